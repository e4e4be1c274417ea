"""Seconds to choose tokens and describe their distributions, beside the plain way to do it.

    python benchmarks/token_choice.py [--quick] [--model PATH] [--rows 64] [--vocabulary 49152]

The plain way runs transformers' processors on the whole vocabulary, draws by a float64 softmax and
its cumulative sum, and takes the statistics from log-softmax and its exponentials. Both take turns
in one process and on one thread. Logits are peaked (a few likely tokens, as trained models have
them most of the time), flat (normal with deviation 3), or with `--model` those of a model's own at
the last positions of generated problems. The tokens must be the same.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from lm_eval_ext.data.tiny.formats import prompt
from lm_eval_ext.data.tiny.problems import load_split
from lm_eval_ext.engine.sampling import Sampler
from lm_eval_ext.engine.sampling_settings import SamplingSettings

WAYS = {
    "greedy": SamplingSettings(1),
    "top_k=50": SamplingSettings(1, do_sample=True, temperature=0.7, top_k=50),
    "no cut": SamplingSettings(1, do_sample=True, temperature=0.7),
    "top_p=.95": SamplingSettings(1, do_sample=True, temperature=0.7, top_p=0.95),
    "top_k=20 top_p=.95": SamplingSettings(
        1, do_sample=True, temperature=0.6, top_k=20, top_p=0.95
    ),
    "min_p=.05": SamplingSettings(1, do_sample=True, min_p=0.05),
}


def plainly(
    settings: SamplingSettings, logits: torch.Tensor, uniforms: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return tokens and statistics, over the whole vocabulary at every step."""
    scores = settings.logits_processors()(None, logits.clone())
    if settings.do_sample:
        cumulative = torch.softmax(scores, dim=-1, dtype=torch.float64).cumsum(dim=-1)
        target = uniforms[:, None] * cumulative[:, -1:]
        token_ids = torch.searchsorted(cumulative, target, right=True).squeeze(-1)
    else:
        token_ids = scores.argmax(dim=-1)
    log_probs = torch.log_softmax(logits, dim=-1)
    probs = log_probs.exp()
    chosen = log_probs.gather(-1, token_ids[:, None]).squeeze(-1)
    possible = log_probs > -torch.inf
    log_probs = log_probs.where(possible, 0.0)
    n_possible = possible.sum(dim=-1)
    entropy = -(probs * log_probs).sum(dim=-1)
    self_certainty = -log_probs.sum(dim=-1) / n_possible - n_possible.log()
    top = probs.topk(2, dim=-1).values
    return token_ids, torch.stack([chosen, entropy, self_certainty, top[:, 0] - top[:, 1]], dim=-1)


def synthetic_logits(n_rows: int, vocabulary: int) -> dict[str, torch.Tensor]:
    """Return peaked and flat logits."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(n_rows, vocabulary, generator=generator)
    likely = torch.randint(0, vocabulary, (n_rows, 30), generator=generator)
    heights = torch.randn(n_rows, 30, generator=generator) * 3 + 14
    return {"peaked": (2 * noise).scatter(1, likely, heights), "flat": 3 * noise}


def model_logits(path: str, n_rows: int) -> torch.Tensor:
    """Return a model's logits behind the last tokens of generated problems."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    problems = load_split("gsm8k", "test", size=8)
    text = "\n\n".join(prompt("gsm8k", problem) for problem in problems)
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    return model(ids, logits_to_keep=n_rows, use_cache=False).logits[0]


def compare(kind: str, logits: torch.Tensor, rounds: int) -> dict[str, float]:
    """Time both sides in turn; print medians and return how often ours fits into the peer's."""
    uniforms = torch.rand(
        len(logits), dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    ratios = {}
    for name, settings in WAYS.items():
        sampler = Sampler(settings)
        seconds: dict[str, list[float]] = {"ours": [], "peer": []}
        for _ in range(rounds + 1):
            started = time.perf_counter()
            peer = plainly(settings, logits, uniforms)
            between = time.perf_counter()
            ours = sampler(logits, uniforms)
            seconds["peer"].append(between - started)
            seconds["ours"].append(time.perf_counter() - between)
        assert torch.equal(ours.token_ids, peer[0]), f"{kind}, {name}: other tokens"
        torch.testing.assert_close(ours.statistics, peer[1], atol=1e-4, rtol=1e-5)
        # The first round warms up.
        mine, theirs = (statistics.median(seconds[side][1:]) for side in ("ours", "peer"))
        ratios[name] = theirs / mine
        print(
            f"{kind:7s} {name:20s} ours {1e3 * mine:6.1f} ms, plainly {1e3 * theirs:6.1f} ms, "
            f"{ratios[name]:.1f}x"
        )
    return ratios


@torch.inference_mode()
def main() -> None:
    """Compare, and end with the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="3 rounds, not 15")
    parser.add_argument("--model", help="take the logits of this model")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--vocabulary", type=int, default=49_152)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.model:
        kinds = {"model": model_logits(options.model, options.rows)}
    else:
        kinds = synthetic_logits(options.rows, options.vocabulary)
    rounds = 3 if options.quick else 15
    ratios = {kind: compare(kind, logits, rounds) for kind, logits in kinds.items()}
    (kind, logits), shown = next(iter(kinds.items())), next(iter(ratios.values()))
    listed = ", ".join(f"{name} {ratio:.1f}x" for name, ratio in shown.items())
    print(
        f"ratio: {listed} (transformers' processors and a float64 sum / ours, seconds for "
        f"{len(logits)} x {logits.shape[-1]:,} {kind} logits, same tokens, one thread, medians of "
        f"n = {rounds})"
    )


if __name__ == "__main__":
    main()

"""Wall time of ``epicar`` against ``sampled`` on the same requests.

python benchmarks/self_eval_cost.py [--attempts 16] [--quick]

The two take turns and the fastest of three rounds counts, since other work on the machine only ever
adds time. Beside them: the same confidences from a second pass over prompts and responses.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from lm_eval_ext.data.tiny.formats import prompt
from lm_eval_ext.data.tiny.problems import load_split
from lm_eval_ext.engine.packed import ForcedAttempt, PackedAttempts
from lm_eval_ext.harness import requests as harness
from lm_eval_ext.methods.epistemic.forced_model import ForcedModel, blocks
from lm_eval_ext.methods.self_evaluation.layout import SelfEvalLayout
from lm_eval_ext.model_wrappers.epicar import EpiCaRLM
from lm_eval_ext.model_wrappers.sampled import SampledLM

ROUNDS = 3
SETTINGS = {"do_sample": True, "temperature": 0.7, "max_gen_toks": 200}
# As many tokens per pass as suit a CPU's cache.
TOKENS_PER_PASS = 2048


@torch.inference_mode()
def second_pass(lm: SampledLM, prompts: list[str]) -> None:
    """Sample, and read prompts, responses and the template once more, packed without padding."""
    layout = SelfEvalLayout(lm.tokenizer, max_length=lm.max_length)
    generations = harness.complete(lm, prompts, **SETTINGS)
    responses = layout.response_ids(generations)
    prompt_ids = {text: tuple(lm.prompt_token_ids(text)) for text in set(prompts)}
    label = layout.label_ids[:1]
    attempts = [
        ForcedAttempt(prompt_ids[text], (*response, *layout.template_ids, *label))
        for text, response in zip(prompts, responses, strict=True)
    ]
    model = ForcedModel(lm.model)
    with model.ready():
        for places in blocks(attempts, TOKENS_PER_PASS):
            block = [attempts[i] for i in places]
            model.logits(block, PackedAttempts(block))


def seconds(
    runs: dict[str, Callable[[list[str]], None]], prompts: list[str], n: int
) -> list[float]:
    """Return the fastest time of each, after a warm-up on two prompts."""
    requests = [text for text in prompts for _ in range(n)]
    for run in runs.values():
        run(requests[: 2 * n])
    best = [float("inf")] * len(runs)
    for _ in range(ROUNDS):
        for i, run in enumerate(runs.values()):
            started = time.perf_counter()
            run(requests)
            best[i] = min(best[i], time.perf_counter() - started)
    return best


def main() -> None:
    """Measure and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--attempts", type=int, default=16, help="attempts per question")
    parser.add_argument("--quick", action="store_true", help="16 questions instead of 64")
    options = parser.parse_args()
    n_questions = 16 if options.quick else 64
    prompts = [prompt("gsm8k", doc) for doc in load_split("gsm8k", "test", size=n_questions)]
    sampled, epicar = SampledLM("tiny", seed=0), EpiCaRLM("tiny", seed=0)
    distinct: list[float] = []
    runs: dict[str, Callable[[list[str]], None]] = {
        "sampled": lambda requests: distinct.append(distinct_share(sampled, requests)),
        "epicar": lambda requests: distinct.append(distinct_share(epicar, requests)),
        "second pass": lambda requests: second_pass(sampled, requests),
    }
    times = dict(zip(runs, seconds(runs, prompts, options.attempts), strict=True))
    named = ", ".join(f"{name} {time:.2f}" for name, time in times.items())
    print(f"{n_questions} questions x {options.attempts}, seconds: {named}")
    counts = epicar.run_record()["self_evaluation"]["attempts"]
    share = 1 - counts["retokenized"] / counts["judged"]
    print(f"second pass / sampled: {times['second pass'] / times['sampled']:.2f} (packed)")
    print(
        f"ratio: {times['epicar'] / times['sampled']:.2f} (epicar / sampled, wall time; caches "
        f"reused in full for {share:.0%} of attempts, {distinct[-1]:.0%} differ in their text; "
        f"n = {n_questions * options.attempts} attempts)"
    )


def distinct_share(lm: SampledLM, requests: list[str]) -> float:
    """Sample, and return how many pairs of prompt and response there are per attempt."""
    generations = harness.complete(lm, requests, **SETTINGS)
    return len(set(zip(requests, generations, strict=True))) / len(requests)


if __name__ == "__main__":
    main()

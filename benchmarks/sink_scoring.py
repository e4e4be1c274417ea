"""Cost of scoring heads by the sink probe, and what a structural export at 25% saves.

Time against a plain forward pass over the same tokens, peak memory at 4,096 tokens against
``output_attentions=True``, and tokens per second of the smaller model against the dense one.

python benchmarks/sink_scoring.py [--quick]
"""

from __future__ import annotations

import argparse
import copy
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from lm_eval_ext.engine.memory import key_value_bytes_per_token
from lm_eval_ext.methods.sinks.block_layout import find_layout
from lm_eval_ext.methods.sinks.padded_batches import batches
from lm_eval_ext.methods.sinks.probe import plain_forward
from lm_eval_ext.methods.sinks.selection import select_evenly
from lm_eval_ext.methods.sinks.sink_scores import score_sinks
from lm_eval_ext.methods.sinks.structural import shrink
from lm_eval_ext.models.shipped import model_path

LONG = 4096
RATIO = 0.25


def medium_model() -> PreTrainedModel:
    """Return a Llama of 26 million parameters with random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=64,
        max_position_embeddings=LONG,
    )
    return LlamaForCausalLM(config).eval()


def prompts_of(length: int, count: int) -> list[list[int]]:
    """Return random prompts, half of them shorter, so that there is padding."""
    generator = torch.Generator().manual_seed(1)
    lengths = [length if i % 2 == 0 else length * 3 // 4 for i in range(count)]
    return [torch.randint(3, 700, (n,), generator=generator).tolist() for n in lengths]


@torch.inference_mode()
def plain(model: PreTrainedModel, prompts: list[list[int]]) -> None:
    """Read the prompts and do nothing with them."""
    for batch in batches(prompts):
        plain_forward(model, batch.input_ids, batch.attention_mask)


def medians(actions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median seconds of each action; they take turns, so that load hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for action in actions.values():
        action()
    for _ in range(repeats):
        for name, action in actions.items():
            started = time.perf_counter()
            action()
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def time_ratio(name: str, model: PreTrainedModel, length: int, repeats: int) -> float:
    """Return the time of scoring over a plain forward pass, after printing both."""
    prompts = prompts_of(length, max(2, 2048 // length))
    seconds = medians(
        {"plain": lambda: plain(model, prompts), "probe": lambda: score_sinks(model, prompts)},
        repeats,
    )
    ratio = seconds["probe"] / seconds["plain"]
    print(
        f"{name}, {length} tokens: plain {seconds['plain']:.3f} s, "
        f"scoring {seconds['probe']:.3f} s, {ratio:.2f}x"
    )
    return ratio


@torch.inference_mode()
def measure_memory(how: str) -> None:
    """Print the bytes that one pass over 4,096 tokens adds to this process's peak."""
    from transformers import AutoModelForCausalLM

    attention = "eager" if how == "eager" else "sdpa"
    model = AutoModelForCausalLM.from_pretrained(
        model_path("tiny"), attn_implementation=attention
    ).eval()
    prompt = prompts_of(LONG, 1)
    plain(model, prompts_of(16, 1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if how == "eager":
        ids = torch.tensor(prompt)
        output = model(input_ids=ids, use_cache=False, output_attentions=True, logits_to_keep=1)
        torch.stack([layer[..., 0].mean(dim=-1) for layer in output.attentions])
    else:
        score_sinks(model, prompt)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def memory_ratio() -> None:
    """Print the peak memory of both ways, each in a process of its own."""
    peak = {
        how: 1024
        * int(
            subprocess.run(
                [sys.executable, __file__, "--memory", how],
                check=True,
                capture_output=True,
                text=True,
            ).stdout.split()[-1]
        )
        for how in ("probe", "eager")
    }
    print(
        f"peak memory at {LONG} tokens, tiny: scoring {peak['probe'] / 1e6:.0f} MB, "
        f"output_attentions {peak['eager'] / 1e6:.0f} MB: 1/{peak['eager'] / peak['probe']:.0f}"
    )


@torch.inference_mode()
def structural_gain(repeats: int) -> None:
    """Print tokens per second and memory of the structural export against the dense model."""
    dense = medium_model()
    layout = find_layout(dense)
    scores = score_sinks(dense, prompts_of(64, 4)).score
    removal = select_evenly(scores, ratio=RATIO, unit="kv_group", layout=layout)
    smaller = shrink(copy.deepcopy(dense), removal)
    models = {"dense": dense, "structural": smaller}
    prompts = prompts_of(512, 2)
    n_tokens = sum(map(len, prompts))
    reading = medians({n: lambda m=m: plain(m, prompts) for n, m in models.items()}, repeats)
    ids = torch.tensor(prompts_of(256, 1))
    n_new = 16

    def write(model: PreTrainedModel) -> None:
        model.generate(ids, max_new_tokens=n_new, min_new_tokens=n_new, do_sample=False)

    writing = medians({n: lambda m=m: write(m) for n, m in models.items()}, repeats)
    for name, model in models.items():
        size = sum(p.numel() * p.element_size() for p in model.parameters())
        print(
            f"{name}: reading {n_tokens / reading[name]:.0f} tokens/s, generating "
            f"{n_new / writing[name]:.1f} tokens/s, weights {size / 1e6:.1f} MB, cache "
            f"{key_value_bytes_per_token(model) / 1e3:.1f} kB/token"
        )
    print(
        f"structural export at {RATIO:.0%}: "
        f"{reading['dense'] / reading['structural']:.2f}x reading, "
        f"{writing['dense'] / writing['structural']:.2f}x generating (26M parameters)"
    )


def main() -> None:
    """Measure everything and print the ratio of times."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats and lengths")
    parser.add_argument("--memory", choices=("probe", "eager"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        measure_memory(args.memory)
        return
    memory_ratio()
    structural_gain(2 if args.quick else 9)
    model = medium_model()
    lengths = (512,) if args.quick else (128, 512, 2048, LONG)
    ratios = [
        time_ratio("26M parameters", model, length, 3 if args.quick else 7) for length in lengths
    ]
    print(
        f"ratio: {max(ratios):.2f} (scoring / plain forward pass, seconds, the largest of "
        f"n = {len(ratios)} lengths)"
    )


if __name__ == "__main__":
    main()

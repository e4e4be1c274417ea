"""``sampled`` against lm-eval's stock ``hf`` on a GPU, and against the GPU's memory bandwidth.

A model in the shape of Qwen3-0.6B with random weights in bfloat16, and prompts of random words
from a tokenizer made here: nothing is downloaded. No attempt ends early, so that both systems
produce equally many tokens. Both run through lm-eval's ``generate_until``.

    python benchmarks/gpu_throughput.py --quick
    python benchmarks/gpu_throughput.py --questions 32 --attempts 64 --tokens 512
    python benchmarks/gpu_throughput.py --device cpu --layers 2 --hidden 64 --vocabulary 500 \
        --questions 2 --attempts 4 --tokens 8 --prompt-tokens 20

Without a CUDA device it says so and exits with status 77; on a processor, in float32, it shows
that it works and no more. The limit that memory sets to decoding: each step reads all weights,
the prompts in flight once and the cache of every attempt, at the bandwidth of copying within the
device.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from lm_eval.models.huggingface import HFLM
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SKIPPED = 77
TEMPERATURE = 0.7


class Size(NamedTuple):
    """What is generated, and how many attempts at once."""

    questions: int
    attempts: int
    prompt_tokens: int
    tokens: int
    rows: int


def random_model(options: argparse.Namespace) -> PreTrainedModel:
    """Return Qwen3-0.6B with random weights, or the smaller one that was asked for."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=options.vocabulary,
        hidden_size=options.hidden,
        intermediate_size=3 * options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=40960,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    config.dtype = torch.bfloat16 if options.device.startswith("cuda") else torch.float32
    torch.manual_seed(0)
    with torch.device(options.device):
        model = Qwen3ForCausalLM(config)
    return model.to(options.device, config.dtype).eval()


def word_tokenizer(vocabulary: int) -> PreTrainedTokenizerBase:
    """Return a tokenizer of words ``w1``, ``w2``, ..., one per entry of the vocabulary.

    Its end of text is the entry behind the last: no model produces it, and no attempt ends.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, **{f"w{i}": i for i in range(1, vocabulary)}, "<end>": vocabulary}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", padding_side="left"
    )


def random_prompts(size: Size, vocabulary: int) -> list[str]:
    """Return prompts of so many random words."""
    generator = torch.Generator().manual_seed(0)
    shape = (size.questions, size.prompt_tokens)
    drawn = torch.randint(1, vocabulary, shape, generator=generator)
    return [" ".join(f"w{i}" for i in row) for row in drawn.tolist()]


def seconds(lm: HFLM, prompts: Sequence[str], attempts: int, tokens: int) -> float:
    """Return the time of all attempts; stops if any ended early."""
    from lm_eval_ext.harness import requests as harness
    from lm_eval_ext.models.generation import Generation

    asked = [text for text in prompts for _ in range(attempts)]
    synchronize(lm.device)
    started = time.perf_counter()
    responses = harness.complete(
        lm, asked, do_sample=True, temperature=TEMPERATURE, max_gen_toks=tokens
    )
    synchronize(lm.device)
    taken = time.perf_counter() - started
    # Of hf the words of the text, in which padding that the model chose does not show.
    written = sum(
        len(text.record.token_ids) if isinstance(text, Generation) else len(text.split())
        for text in responses
    )
    if written < 0.95 * len(asked) * tokens:
        raise SystemExit(f"attempts ended early: {written} of {len(asked) * tokens} tokens")
    return taken


def synchronize(device: torch.device | str) -> None:
    """Wait for what was started on a GPU."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def copy_bandwidth(device: str, n_bytes: int, repeats: int = 10) -> float:
    """Return the bytes per second, read and written, of copying within a device's memory."""
    source = torch.ones(n_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(repeats):
        synchronize(device)
        started = time.perf_counter()
        target.copy_(source)
        synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * n_bytes / best


def bytes_read(size: Size, weights: int, per_token: int, *, first: int = 1) -> int:
    """Return what decoding must read, over all steps.

    Parameters
    ----------
    size
        What is generated; attempts run in waves of ``rows``.
    weights
        Bytes of the weights, read in every step.
    per_token
        Bytes of a token in the key/value cache.
    first
        First token that counts: the step of token t finds t tokens of the attempt in the cache.

    Examples
    --------
    >>> bytes_read(Size(questions=1, attempts=2, prompt_tokens=10, tokens=3, rows=2), 100, 1)
    226
    """
    left, total = size.questions * size.attempts, 0
    while left > 0:
        rows = min(left, size.rows)
        prompts = -(-rows // size.attempts)
        for own in range(first, size.tokens):
            total += weights + per_token * (prompts * size.prompt_tokens + rows * own)
        left -= rows
    return total


def measure_ours(options: argparse.Namespace, size: Size, prompts: Sequence[str]) -> float:
    """Print and return attempts per second of ``sampled``, and what it reaches of the limit."""
    from lm_eval_ext.engine.memory import key_value_bytes_per_token
    from lm_eval_ext.model_wrappers.sampled import SampledLM

    model = random_model(options)
    weights = sum(p.numel() * p.itemsize for p in model.parameters())
    lm = SampledLM(
        model, tokenizer=word_tokenizer(options.vocabulary), seed=0, batch_size=size.rows
    )
    seconds(lm, prompts[:1], size.attempts, 4)  # warm-up
    first = seconds(lm, prompts, size.attempts, 1)
    taken = seconds(lm, prompts, size.attempts, size.tokens)
    rate = show("sampled", size, taken)
    bandwidth = copy_bandwidth(options.device, 2**30 if model.device.type == "cuda" else 2**26)
    limit = bytes_read(size, weights, key_value_bytes_per_token(model)) / bandwidth
    print(
        f"{weights / 1e9:.2f} GB of weights in {str(model.dtype).removeprefix('torch.')}; copying: "
        f"{bandwidth / 1e9:,.0f} GB/s; decoding {taken - first:.2f} s, {limit:.3f} s at that "
        f"bandwidth: {limit / max(taken - first, 1e-9):.3f} of the limit",
        flush=True,
    )
    return rate


def measure_hf(options: argparse.Namespace, size: Size, prompts: Sequence[str]) -> float:
    """Print and return attempts per second of ``hf``."""
    from lm_eval.models.huggingface import HFLM

    tokenizer = word_tokenizer(options.vocabulary)
    lm = HFLM(random_model(options), tokenizer=tokenizer, batch_size=size.rows)
    seconds(lm, prompts[:1], min(size.attempts, size.rows), 4)  # warm-up
    return show("hf", size, seconds(lm, prompts, size.attempts, size.tokens))


def show(name: str, size: Size, taken: float) -> float:
    """Print what a system reached, and return its attempts per second."""
    rate = size.questions * size.attempts / taken
    print(
        f"{name:8} {rate:10.2f} attempts/s {rate * size.tokens:12,.0f} tokens/s, {size.rows} rows",
        flush=True,
    )
    return rate


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="4 questions, 64 tokens")
    parser.add_argument("--questions", type=int, help="16, or 4 with --quick")
    parser.add_argument("--attempts", type=int, default=64, help="N (%(default)s)")
    parser.add_argument("--prompt-tokens", type=int, default=600, help="(%(default)s)")
    parser.add_argument("--tokens", type=int, help="of an attempt; 256, or 64 with --quick")
    parser.add_argument("--rows", type=int, default=512, help="of sampled, at once (%(default)s)")
    parser.add_argument("--hf-rows", type=int, default=256, help="of hf (%(default)s)")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, cpu (%(default)s)")
    parser.add_argument("--layers", type=int, default=28, help="of the model (%(default)s)")
    parser.add_argument("--hidden", type=int, default=1024, help="its width (%(default)s)")
    parser.add_argument("--vocabulary", type=int, default=151936, help="its words (%(default)s)")
    options = parser.parse_args(argv)
    if options.questions is None:
        options.questions = 4 if options.quick else 16
    if options.tokens is None:
        options.tokens = 64 if options.quick else 256
    for name in ("questions", "attempts", "prompt_tokens", "rows", "hf_rows", "layers", "hidden"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')}={getattr(options, name)} must be 1 or more")
    if options.tokens < 2 or options.vocabulary < 2:
        parser.error("--tokens and --vocabulary must be 2 or more")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Measure both and print the ratio; return the exit status."""
    options = parse(argv)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("skipped: needs a CUDA device")
        return SKIPPED
    size = Size(
        options.questions, options.attempts, options.prompt_tokens, options.tokens, options.rows
    )
    name = torch.cuda.get_device_name(options.device) if "cuda" in options.device else "processor"
    print(
        f"{name}: {size.questions} questions of {size.prompt_tokens} tokens x {size.attempts} "
        f"attempts of {size.tokens}",
        flush=True,
    )
    prompts = random_prompts(size, options.vocabulary)
    ours = measure_ours(options, size, prompts)
    gc.collect()  # the model of the first, so that the second has the memory
    stock = measure_hf(options, size._replace(rows=options.hf_rows), prompts)
    print(
        f"ratio: {ours / stock:.2f} (sampled / hf, attempts per second, "
        f"n = {size.questions * size.attempts} attempts)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

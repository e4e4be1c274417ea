"""Planned against measured time of sampled runs on this machine's processor.

python benchmarks/plan_accuracy.py [--quick]

One thread and its processor time, which other programs on the machine disturb less than wall time.
The plan is told the mean length of the responses that were sampled: what is checked is the cost
model, not the guess of a length. Its constants come from the micro-benchmark of
``lm-eval-ext plan --gpu cpu``, run in the same process; the runs themselves enter nothing.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from typing import NamedTuple

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from lm_eval_ext import harness
from lm_eval_ext.model_wrappers.sampled import SampledLM
from lm_eval_ext.planning.cost import CASES, Run, estimate
from lm_eval_ext.planning.cpu import measured_cpu
from lm_eval_ext.planning.hardware import Device
from lm_eval_ext.planning.model_shape import shape_of
from lm_eval_ext.planning.workload import Lengths, Workload
from lm_eval_ext.tiny import model_path
from lm_eval_ext.tiny.formats import prompt, target
from lm_eval_ext.tiny.problems import load_split


class Case(NamedTuple):
    """A run to be planned and timed; ``width`` is that of a random model, or 0 for the shipped."""

    width: int
    shots: int
    questions: int
    attempts: int
    rows: int
    max_new_tokens: int


QUICK = (Case(0, 0, 4, 16, 64, 100), Case(0, 8, 2, 16, 32, 40), Case(256, 0, 1, 16, 16, 24))
FULL = (
    Case(0, 0, 16, 16, 256, 200),
    Case(0, 0, 16, 16, 32, 200),
    Case(0, 8, 8, 16, 64, 120),
    Case(512, 0, 2, 16, 32, 48),
    Case(512, 8, 2, 16, 32, 48),
)


def model_folder(width: int, scratch: str) -> str:
    """Return the shipped model, or a Llama of six layers with random weights."""
    if not width:
        return model_path("tiny")
    tokenizer = AutoTokenizer.from_pretrained(model_path("tiny"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    folder = f"{scratch}/{width}"
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def prompts_of(case: Case) -> list[str]:
    """Return the prompts of a run."""
    shots = load_split("gsm8k", "train", size=case.shots) if case.shots else []
    head = "".join(f"{prompt('gsm8k', doc)} {target('gsm8k', doc)}\n\n" for doc in shots)
    docs = load_split("gsm8k", "test", size=case.questions)
    return [head + prompt("gsm8k", doc) for doc in docs]


def compare(case: Case, device: Device, scratch: str) -> float:
    """Time a run, print its plan beside it, and return planned over measured time."""
    folder = model_folder(case.width, scratch)
    lm = SampledLM(folder, seed=0, batch_size=case.rows, device="cpu", dtype="float32")
    texts = prompts_of(case)
    asked = [text for text in texts for _ in range(case.attempts)]
    settings = {"do_sample": True, "temperature": 0.7, "until": ["Question:"]}
    harness.complete(lm, asked[: case.attempts], max_gen_toks=4, **settings)  # warm-up
    started = time.process_time()
    responses = harness.complete(lm, asked, max_gen_toks=case.max_new_tokens, **settings)
    measured = time.process_time() - started
    length = statistics.mean(len(response.record.token_ids) for response in responses)
    workload = Workload(
        questions=case.questions,
        prompt_tokens=statistics.mean(len(lm.tok_encode(text)) for text in texts),
        max_new_tokens=case.max_new_tokens,
        attempts=case.attempts,
        response_tokens=Lengths(length, length, length),
    )
    shape = shape_of(lm.model.config, name=folder)
    run = Run(shape, device, workload, number_bytes=4, batch_size=case.rows)
    found = {name: estimate(run, name) for name in CASES}
    times = {name: e.prefill_seconds + e.decode_seconds for name, e in found.items()}
    print(
        f"{shape.parameters / 1e6:4.1f}M parameters, {workload.prompt_tokens:4.0f} prompt tokens, "
        f"{case.questions} x {case.attempts} attempts of {length:.0f} tokens, {case.rows} rows: "
        f"planned {times['expected']:.2f} s ({times['best']:.2f} to {times['worst']:.2f}), "
        f"measured {measured:.2f} s, {times['expected'] / measured:.2f}",
        flush=True,
    )
    return times["expected"] / measured


def main() -> None:
    """Plan and time every run, and print the mean ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="three short runs instead of five")
    cases = QUICK if parser.parse_args().quick else FULL
    torch.set_num_threads(1)
    device = measured_cpu(time.process_time)
    reached = device.scenarios.expected
    print(
        f"micro-benchmark: {device.bandwidth / 1e9:.1f} GB/s, {device.flops_32 / 1e9:.0f} GFLOP/s, "
        f"{1e3 * reached.step_seconds:.2f} ms per step, {1e3 * reached.layer_seconds:.2f} ms per "
        f"layer, {1e6 * reached.row_seconds:.0f} us per row, {reached.logit_bytes:.0f} bytes per "
        f"logit, {reached.score_bytes:.0f} per score",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as scratch:
        ratios = [compare(case, device, scratch) for case in cases]
    mean = math.exp(statistics.mean(map(math.log, ratios)))
    print(
        f"ratio: {mean:.2f} (planned / measured processor time, geometric mean, n = {len(ratios)} "
        f"runs from {min(ratios):.2f} to {max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()

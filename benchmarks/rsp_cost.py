"""Attempts per second of ``rsp`` against ``sampled`` on the same zero-shot questions.

python benchmarks/rsp_cost.py [--quick]
"""

from __future__ import annotations

import argparse
import time

from lm_eval_ext.data.tiny.formats import prompt
from lm_eval_ext.data.tiny.problems import load_split
from lm_eval_ext.harness import requests as harness
from lm_eval_ext.model_wrappers.rsp import RSP
from lm_eval_ext.model_wrappers.sampled import SampledLM

ATTEMPTS = 16
LENGTH = 8


def attempts_per_second(lm: SampledLM, prompts: list[str]) -> float:
    """Return the rate over all attempts, after a warm-up on two prompts."""
    settings = {"do_sample": True, "temperature": 0.7, "max_gen_toks": 200}
    requests = [text for text in prompts for _ in range(ATTEMPTS)]
    harness.complete(lm, requests[: 2 * ATTEMPTS], **settings)
    started = time.perf_counter()
    harness.complete(lm, requests, **settings)
    return len(requests) / (time.perf_counter() - started)


def main() -> None:
    """Measure both and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="16 questions instead of 64")
    n_questions = 16 if parser.parse_args().quick else 64
    prompts = [prompt("gsm8k", doc) for doc in load_split("gsm8k", "test", size=n_questions)]
    plain = attempts_per_second(SampledLM("tiny", seed=0), prompts)
    injected = attempts_per_second(RSP("tiny", length=LENGTH, seed=0), prompts)
    print(
        f"{n_questions} questions x {ATTEMPTS}: sampled {plain:.1f}, rsp {injected:.1f} attempts/s"
    )
    print(
        f"ratio: {injected / plain:.2f} (rsp with {LENGTH} vectors / sampled, attempts per second, "
        f"n = {n_questions * ATTEMPTS} attempts)"
    )


if __name__ == "__main__":
    main()

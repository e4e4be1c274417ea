"""Wall time of ``draft-eu`` against ``sampled`` on the same requests, and of TokUR beside it.

python benchmarks/draft_eu_cost.py [--drafts FOLDERS] [--attempts 16] [--temperature 0.7] [--quick]

The three take turns and the fastest of three rounds counts, since other work on the machine only
ever adds time. TokUR runs without drafts: a copy of the target is one that costs no pass. Equal
responses are read once; a high temperature shows the cost where hardly any are equal.
"""

from __future__ import annotations

import argparse
import time

from lm_eval_ext.data.tiny.formats import prompt
from lm_eval_ext.data.tiny.problems import load_split
from lm_eval_ext.harness import requests as harness
from lm_eval_ext.model_wrappers.draft_eu import DraftEU
from lm_eval_ext.model_wrappers.sampled import SampledLM

ROUNDS = 3


def seconds(
    lms: dict[str, SampledLM], requests: list[str], n_warm_up: int, temperature: float
) -> tuple[dict[str, float], float]:
    """Return the fastest time of each wrapper after a warm-up, and the share of distinct texts."""
    settings = {"do_sample": True, "temperature": temperature, "max_gen_toks": 200}
    for lm in lms.values():
        harness.complete(lm, requests[:n_warm_up], **settings)
    best = dict.fromkeys(lms, float("inf"))
    for _ in range(ROUNDS):
        for name, lm in lms.items():
            started = time.perf_counter()
            texts = harness.complete(lm, requests, **settings)
            best[name] = min(best[name], time.perf_counter() - started)
    return best, len(set(zip(requests, texts, strict=True))) / len(requests)


def main() -> None:
    """Measure all three and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--drafts", default="tiny-drafts", help="as for --model draft-eu")
    parser.add_argument("--attempts", type=int, default=16, help="attempts per question")
    parser.add_argument("--temperature", type=float, default=0.7, help="of the attempts")
    parser.add_argument("--quick", action="store_true", help="16 questions instead of 64")
    options = parser.parse_args()
    n_questions = 16 if options.quick else 64
    prompts = [prompt("gsm8k", doc) for doc in load_split("gsm8k", "test", size=n_questions)]
    lms = {
        "sampled": SampledLM("tiny", seed=0),
        "draft-eu": DraftEU("tiny", drafts=options.drafts, seed=0),
        "tokur": DraftEU("tiny", drafts="tiny", reference="tokur", seed=0),
    }
    requests = [text for text in prompts for _ in range(options.attempts)]
    times, distinct = seconds(lms, requests, 2 * options.attempts, options.temperature)
    named = ", ".join(f"{name} {time:.2f}" for name, time in times.items())
    print(
        f"{n_questions} questions x {options.attempts}, temperature {options.temperature:g}, "
        f"{distinct:.0%} of the responses distinct, seconds: {named}"
    )
    print(f"tokur / sampled: {times['tokur'] / times['sampled']:.2f} (10 samples, sequence)")
    n_drafts = len(lms["draft-eu"].run_record()["draft_eu"]["drafts"])
    print(
        f"ratio: {times['draft-eu'] / times['sampled']:.2f} (draft-eu / sampled, wall time, "
        f"{n_drafts} drafts of {options.drafts}, n = {n_questions * options.attempts} attempts)"
    )


if __name__ == "__main__":
    main()

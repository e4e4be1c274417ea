"""Estimates from the beginning of a run against the time of the whole run.

python benchmarks/plan_accuracy.py [--quick]

Each run samples generated problems with the shipped model. It is ended after a share of its time,
as ``lm-eval-ext plan --measure`` does, then run as a whole.
"""

from __future__ import annotations

import argparse
import math
import statistics
from typing import NamedTuple

import torch

from lm_eval_ext.commands.plan.measure import measure
from lm_eval_ext.commands.plan.workload import RunNumbers

TASK = "tiny_gsm8k_passn"


class Case(NamedTuple):
    """A run, and the seconds after which it is ended for the estimate."""

    questions: int
    attempts: int
    rows: int
    seconds: float


QUICK = (Case(8, 16, 64, 1.0), Case(8, 16, 16, 1.0))
FULL = (Case(100, 16, 64, 10.0), Case(100, 16, 256, 10.0), Case(50, 16, 16, 10.0))


def compare(case: Case) -> float:
    """Time a run, print the estimate beside it, and return estimated over measured time."""
    numbers = RunNumbers(attempts=case.attempts, questions=case.questions)
    options = {"batch_size": case.rows, "device": "cpu", "dtype": "float32"}
    begun = measure("tiny", TASK, numbers, seconds=case.seconds, **options)
    whole = measure("tiny", TASK, numbers, seconds=math.inf, **options)
    estimate = begun.seconds + begun.seconds_left
    print(
        f"{case.questions} x {case.attempts} attempts, {case.rows} rows: after "
        f"{begun.seconds:.1f} s and {begun.n_ended} of {begun.n_attempts} attempts estimated "
        f"{estimate:.1f} s, measured {whole.seconds:.1f} s, {estimate / whole.seconds:.2f}",
        flush=True,
    )
    return estimate / whole.seconds


def main() -> None:
    """Estimate and time every run, and print the mean ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two short runs instead of three")
    cases = QUICK if parser.parse_args().quick else FULL
    torch.set_num_threads(1)
    ratios = [compare(case) for case in cases]
    mean = math.exp(statistics.mean(map(math.log, ratios)))
    print(
        f"ratio: {mean:.2f} (estimated / measured time, geometric mean, n = {len(ratios)} "
        f"runs from {min(ratios):.2f} to {max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()

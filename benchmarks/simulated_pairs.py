"""How often the leaderboard's tests find runs different that are equal, and runs that are not.

    python benchmarks/simulated_pairs.py [--quick]

Pairs of made-up runs answer the same questions, 16 attempts each. A question is solved with
log-odds skill - difficulty + noise of the run, so that two equally able runs differ at single
questions. Rows: share of pairs found different at the 5% level without a difference, and with one
(power), by the paired test and by one that takes the runs for independent; and how often one of
several equal runs is marked best. The binomial error of a rate of 5% is 0.15 points with 20,000
pairs (means) and 0.5 with 2,000 (metrics that pool attempts). Nearly all of the time goes into the
latter's bootstraps; `--quick` makes 300 and 30 pairs, whose rates say only that the script works.
"""

from __future__ import annotations

import argparse
import time
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lm_eval_ext.leaderboard.paired import paired_means, paired_pooled, unpaired
from lm_eval_ext.leaderboard.run_data import TaskOutput
from lm_eval_ext.leaderboard.run_ranking import places
from lm_eval_ext.metrics import auroc, brier, debiased_ece, pass_at_k
from lm_eval_ext.metrics.bootstrap import bootstrap_with_values
from lm_eval_ext.scoring.scores import Score, score

FloatArray = NDArray[np.float64]

N_ATTEMPTS = 16
ALPHA = 0.05
POOLED = {"debiased_ece": debiased_ece, "brier": brier, "hallucination_auroc": auroc}


class Answers(NamedTuple):
    """Verdicts and confidences, shape (n_questions, n_attempts)."""

    correct: NDArray[np.bool_]
    confidence: FloatArray


def answers(rng: np.random.Generator, difficulty: FloatArray, skill: float, bias: float) -> Answers:
    """Draw a run: its confidence is the log-odds with noise and, to be worse, a bias."""
    n = len(difficulty)
    log_odds = skill - difficulty + rng.normal(0, 0.7, n)
    correct = rng.random((n, N_ATTEMPTS)) < 1 / (1 + np.exp(-log_odds[:, None]))
    noise = rng.normal(0, 0.5 + bias, (n, N_ATTEMPTS))
    return Answers(correct, 1 / (1 + np.exp(-log_odds[:, None] - noise - bias)))


def value_of(run: Answers, k: int) -> FloatArray:
    """Return pass@k of each question."""
    return np.asarray(pass_at_k(run.correct.sum(axis=1), N_ATTEMPTS, k), dtype=np.float64)


def rates_of_means(n_questions: int, k: int, shift: float, n_pairs: int) -> tuple[float, float]:
    """Return how often pass@k differs significantly, paired and taken for independent."""
    rng = np.random.default_rng(n_questions + k)
    found = np.zeros(2)
    for _ in range(n_pairs):
        difficulty = rng.normal(0, 2, n_questions)
        a, b = (value_of(answers(rng, difficulty, s, 0.0), k) for s in (0.0, shift))
        apart = unpaired(score(a.tolist(), "mean", True), score(b.tolist(), "mean", True))
        found += [paired_means(a, b).p_value < ALPHA, apart.p_value < ALPHA]
    return tuple(found / n_pairs)


def rates_of_pooled(
    n_questions: int, name: str, bias: float, n_pairs: int, n_resamples: int
) -> tuple[float, float]:
    """Return the same of a metric that pools attempts."""
    rng = np.random.default_rng(n_questions)
    found = np.zeros(2)
    for _ in range(n_pairs):
        difficulty = rng.normal(0, 2, n_questions)
        scores, values = [], []
        for its_bias in (0.0, bias):
            run = answers(rng, difficulty, 0.0, its_bias)
            data = {"correct": run.correct, "confidence": run.confidence}
            interval, resampled = bootstrap_with_values(POOLED[name], data, n_resamples=n_resamples)
            error, low, high = interval.standard_error, interval.low, interval.high
            scores.append(Score(interval.estimate, error, low, high, n_questions, True))
            values.append(resampled)
        found += [
            paired_pooled(*scores, *values).p_value < ALPHA,
            unpaired(*scores).p_value < ALPHA,
        ]
    return tuple(found / n_pairs)


def rate_of_best(n_questions: int, n_runs: int, n_boards: int) -> float:
    """Return how often one of several equal runs is marked best by pass@1."""
    rng = np.random.default_rng(n_questions)
    marked = 0
    for _ in range(n_boards):
        difficulty = rng.normal(0, 2, n_questions)
        tasks = []
        for _ in range(n_runs):
            values = value_of(answers(rng, difficulty, 0.0, 0.0), 1)
            metrics = {"pass@1": score(values.tolist(), "mean", True)}
            by_question = {"pass@1": dict(enumerate(values.tolist()))}
            hashes = {i: str(i) for i in range(n_questions)}
            tasks.append(TaskOutput(hashes, by_question, metrics))
        marked += any(place.best for place in places(tasks, "pass@1"))
    return marked / n_boards


def main() -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a fifth of the pairs or fewer")
    quick = parser.parse_args().quick
    n_pairs, n_few, n_resamples = (300, 30, 200) if quick else (20_000, 2_000, 1_000)
    start = time.perf_counter()
    ratio = 1.0
    print(
        "| metric | questions | equal, found different | differing, found (not paired) |",
        flush=True,
    )
    print("|---|---|---|---|")
    for n_questions in (50, 200, 1_000):
        for k in (1, 16):
            false, _ = rates_of_means(n_questions, k, 0.0, n_pairs)
            power, apart = rates_of_means(n_questions, k, 0.3, n_pairs)
            print(
                f"| pass@{k} | {n_questions} | {false:.1%} | {power:.0%} ({apart:.0%}) |",
                flush=True,
            )
            if (n_questions, k) == (200, 1):
                ratio = power / max(apart, 1 / n_pairs)
    for n_questions in (50, 200):
        for name in POOLED:
            false, _ = rates_of_pooled(n_questions, name, 0.0, n_few, n_resamples)
            power, apart = rates_of_pooled(n_questions, name, 0.5, n_few, n_resamples)
            row = f"| {name} | {n_questions} | {false:.1%} | {power:.0%} ({apart:.0%}) |"
            print(row, flush=True)
    for n_runs in (2, 10):
        rate = rate_of_best(200, n_runs, n_few)
        print(f"one of {n_runs} equal runs marked best, 200 questions: {rate:.1%}")
    print(f"{time.perf_counter() - start:.0f} s")
    print(
        f"ratio: {ratio:.1f} (power of the paired / the unpaired test, pass@1, 200 questions, "
        f"n = {n_pairs} pairs)"
    )


if __name__ == "__main__":
    main()

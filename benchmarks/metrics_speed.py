"""Time the metrics against their peers, in one process and on the same data.

    python benchmarks/metrics_speed.py [--quick]

Three comparisons, and a line of speed-ups at the end:

- pass@k of 100,000 questions and ten k against a loop over the published per-question estimator;
- ECE of 1,000,000 answers against torchmetrics (in the `dev` extra; skipped without);
- 1,000 bootstrap resamples of ECE over 5,000 questions x 16 attempts against a plain loop that
  draws questions and recomputes ECE bin by bin, as published code does. That loop is the peer of
  the target of 20x; the same loop over this package's own, faster `ece` is printed beside it.

Each side is timed as the best of several runs, after one run to warm up. `--quick` takes a tenth of
the data and checks only that everything runs and agrees.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lm_eval_ext.metrics import cluster_bootstrap, ece, pass_at_k

FloatArray = NDArray[np.float64]


def best_time(run: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Return the shortest wall time of a call in seconds, and its result."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = run()
        times.append(time.perf_counter() - start)
    return min(times), result


def published_estimator(n: int, c: int, k: int) -> float:
    """Estimate pass@k of one question as Chen et al. 2021 print it: a product over n - c + 1..n."""
    if n - c < k:
        return 1.0
    return float(1.0 - np.prod(1.0 - k / np.arange(n - c + 1, n + 1)))


def compare_pass_at_k(scale: float, repeats: int) -> float:
    """Time ten k for many questions with 64 attempts each."""
    rng = np.random.default_rng(0)
    n_correct = rng.integers(0, 65, size=int(100_000 * scale))
    ks = [1, 2, 4, 8, 10, 16, 20, 32, 50, 64]
    ours, values = best_time(lambda: pass_at_k(n_correct, 64, ks), repeats)

    def loop() -> list[list[float]]:
        return [[published_estimator(64, c, k) for k in ks] for c in n_correct.tolist()]

    theirs, reference = best_time(loop, 1)
    np.testing.assert_allclose(values, reference, atol=1e-12)
    return report(f"pass@k, {len(n_correct):,} questions x {len(ks)} k", ours, theirs, "loop")


def compare_ece(scale: float, repeats: int) -> float | None:
    """Time ECE with 15 bins on flat arrays, against torchmetrics' functional form."""
    try:
        import torch
        from torchmetrics.functional.classification import binary_calibration_error
    except ImportError as error:
        print(f"ECE: skipped, {error}; pip install torchmetrics")
        return None
    rng = np.random.default_rng(1)
    n = int(1_000_000 * scale)
    # No confidence of exactly 1 and none on a border: the two libraries differ there.
    confidence = rng.random(n)
    correct = rng.random(n) < confidence
    ours, value = best_time(lambda: ece(confidence, correct, n_bins=15), repeats)
    tensors = torch.from_numpy(confidence), torch.from_numpy(correct.astype(np.int64))
    theirs, reference = best_time(
        lambda: float(binary_calibration_error(*tensors, n_bins=15, norm="l1")), repeats
    )
    np.testing.assert_allclose(value, reference, atol=1e-5)
    threads = f"torchmetrics, {torch.get_num_threads()} threads"
    return report(f"ECE, {n:,} answers", ours, theirs, threads)


def binned_ece(confidence: FloatArray, correct: FloatArray) -> float:
    """Compute ECE bin by bin with masks, as most published code does."""
    total = 0.0
    edges = np.linspace(0, 1, 11)
    for low, high in pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            total += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return total


def compare_bootstrap(scale: float, repeats: int) -> tuple[float, float]:
    """Time the cluster bootstrap against drawing questions and calling ECE each time."""
    rng = np.random.default_rng(2)
    n_questions, n_resamples = int(5_000 * scale), int(1_000 * scale)
    confidence = rng.random((n_questions, 16))
    correct = (rng.random((n_questions, 16)) < confidence).astype(np.float64)
    data = {"confidence": confidence, "correct": correct}
    name = f"bootstrap of ECE, {n_resamples:,} x {n_questions:,} questions x 16"
    ours, interval = best_time(
        lambda: cluster_bootstrap(ece, data, n_resamples=n_resamples), repeats
    )

    def loop(metric: Callable[[FloatArray, FloatArray], float]) -> list[float]:
        generator = np.random.default_rng(0)
        values = []
        for _ in range(n_resamples):
            drawn = generator.integers(0, n_questions, size=n_questions, dtype=np.int32)
            values.append(metric(confidence[drawn].ravel(), correct[drawn].ravel()))
        return values

    theirs, _ = best_time(lambda: loop(binned_ece), 1)
    own, values = best_time(lambda: loop(ece), 1)
    np.testing.assert_allclose(np.quantile(values, 0.975), interval.high, atol=1e-9)
    return (
        report(name, ours, theirs, "loop over a bin-by-bin ECE (the peer)"),
        report(name, ours, own, "loop over this package's ece"),
    )


def report(name: str, ours: float, theirs: float, peer: str) -> float:
    """Print both times and return how often ours fits into theirs."""
    print(f"{name}: {ours:.4f} s, {peer} {theirs:.4f} s, {theirs / ours:.1f}x")
    return theirs / ours


def main() -> None:
    """Run the comparisons and end with their speed-ups."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the data, one repeat")
    quick = parser.parse_args().quick
    scale, repeats = (0.1, 1) if quick else (1.0, 5)
    ece(np.array([0.5]), np.array([1]))
    ratios = {
        "pass_at_k": compare_pass_at_k(scale, repeats),
        "ece": compare_ece(scale, repeats),
    }
    ratios["bootstrap_ece"], ratios["bootstrap_ece_own_loop"] = compare_bootstrap(scale, repeats)
    shown = [f"{name} {r:.1f}x" if r else f"{name} skipped" for name, r in ratios.items()]
    print(
        f"ratio: {', '.join(shown)} (peers / ours; n = {int(100_000 * scale):,} questions, "
        f"{int(1_000_000 * scale):,} answers)"
    )


if __name__ == "__main__":
    main()

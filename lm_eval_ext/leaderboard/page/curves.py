"""The numbers behind a run's charts, computed here so that the page only draws them.

All are metrics of `lm_eval_ext.metrics` with their 95% intervals over questions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lm_eval_ext import metrics
from lm_eval_ext.grading.attempt_details import Question
from lm_eval_ext.harness.attempt_settings import AttemptSettings
from lm_eval_ext.scoring.confidence_sources import Source

N_POINTS = 160
"""Most points of a drawn curve; between them the curve is a straight line to within a pixel."""

N_HISTOGRAM_BINS = 20
SHARES = (0.5, 0.25, 0.1)
"""Shares of most confident attempts that the page can filter by."""


@dataclass
class SourceRows:
    """The confidences of one source over a whole task, one row per attempt (or per question).

    Parameters
    ----------
    confidence, correct, question
        Of each row: the confidence, the verdict, and the position of its question.
    """

    is_probability: bool
    confidence: list[float] = field(default_factory=list)
    correct: list[bool] = field(default_factory=list)
    question: list[int] = field(default_factory=list)

    def add(self, source: Source, question: int) -> None:
        """Append the rows of a question."""
        self.confidence += source.confidence
        self.correct += source.correct
        self.question += [question] * len(source.confidence)


def k_curves(questions: Sequence[Question], settings: AttemptSettings) -> dict[str, Any]:
    """Return pass@k and maj@k over k with the ends of their 95% intervals."""
    counts = [(sum(a["correct"] for a in q), len(q)) for q in questions]
    n_correct, n_attempts = np.array(counts).T
    passed = metrics.pass_at_k(n_correct, n_attempts, settings.ks)
    ks = sorted({*settings.ks, *settings.vote_ks})
    votes = np.array([_majority(_tally(question), tuple(ks)) for question in questions])
    return {"pass@k": _band(settings.ks, passed), "maj@k": _band(ks, votes)}


def source_curves(rows: SourceRows, n_bins: int) -> dict[str, Any]:
    """Return the histogram, the risk-coverage, ROC and reliability curve of a source.

    Returns
    -------
    dict
        Plain values. Without ROC, and with an `UndefinedMetricWarning`, if all attempts are right
        or all are wrong.
    """
    confidence, correct = np.array(rows.confidence), np.array(rows.correct)
    risk = metrics.risk_coverage_curve(correct, confidence=confidence)
    roc = metrics.roc_curve(correct, confidence=confidence)
    area = metrics.auroc(correct, confidence=confidence)
    curves = {
        "is_probability": rows.is_probability,
        "n": len(confidence),
        "accuracy": float(correct.mean()),
        "histogram": _histogram(confidence, correct, rows.is_probability),
        "risk_coverage": _thinned(risk.coverage, risk.risk),
        "roc": None if np.isnan(area) else _thinned(*roc),
        "auroc": area,
        "thresholds": {
            f"{share:g}": rounded(np.quantile(confidence, 1 - share)) for share in SHARES
        },
    }
    if rows.is_probability:
        curve = metrics.reliability_curve(
            confidence, correct, clusters=np.array(rows.question), n_bins=n_bins
        )
        curves["reliability"] = {name: _plain(values) for name, values in curve._asdict().items()}
    return curves


def rounded(value: float) -> float:
    """Return a number to 6 significant digits, as it is kept on the page."""
    return float(f"{value:.6g}")


def _tally(question: Question) -> tuple[tuple[int, int], ...]:
    """Return (attempts, right ones) of each answer, the invalid ones first: all a vote depends on.

    Sorted, so that questions with the same outcome are computed once.
    """
    votes: Counter[str] = Counter()
    right: Counter[str] = Counter()
    n_invalid = 0
    for attempt in question:
        if attempt["answer"] is None:
            n_invalid += 1
        else:
            votes[attempt["answer"]] += 1
            right[attempt["answer"]] += attempt["correct"]
    return ((n_invalid, 0), *sorted((n, right[answer]) for answer, n in votes.items()))


@lru_cache(maxsize=1 << 16)
def _majority(tally: tuple[tuple[int, int], ...], ks: tuple[int, ...]) -> tuple[float, ...]:
    answers: list[int | None] = []
    correct: list[bool] = []
    for number, (n, n_right) in enumerate(tally):
        answers += [number if number else None] * n
        correct += [i < n_right for i in range(n)]
    return tuple(metrics.maj_at_k(answers, correct, ks).score.tolist())


def _band(ks: Iterable[int], values: NDArray[np.float64]) -> dict[str, Any]:
    band: dict[str, Any] = {"k": [], "value": [], "low": [], "high": [], "n": []}
    for k, column in zip(ks, np.asarray(values).T, strict=True):
        known = column[~np.isnan(column)]
        if len(known) < 2:
            continue
        interval = metrics.proportion_interval(known)
        band["k"].append(k)
        band["value"].append(float(interval.estimate))
        band["low"].append(float(interval.low))
        band["high"].append(float(interval.high))
        band["n"].append(len(known))
    return band


def _histogram(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_], is_probability: bool
) -> dict[str, Any]:
    limits = (0.0, 1.0) if is_probability else (confidence.min(), confidence.max())
    edges = np.histogram_bin_edges(confidence, N_HISTOGRAM_BINS, limits)
    return {
        "edges": _plain(edges),
        "correct": np.histogram(confidence[correct], edges)[0].tolist(),
        "wrong": np.histogram(confidence[~correct], edges)[0].tolist(),
    }


def _thinned(x: NDArray[np.float64], y: NDArray[np.float64]) -> dict[str, list[float]]:
    """Keep so many points, evenly spaced along the rows, that the curve looks the same."""
    chosen = np.unique(np.linspace(0, len(x) - 1, N_POINTS).round().astype(np.intp))
    return {"x": _plain(x[chosen]), "y": _plain(y[chosen])}


def _plain(values: ArrayLike) -> list[float]:
    return [rounded(value) for value in np.asarray(values, dtype=np.float64).tolist()]

"""Which metrics a task reports; the place to add one.

A task file names its suite by the key ``metrics``: ``passn`` for N sampled attempts per question,
``calib`` for one answer and the confidence in it, ``eu`` for one answer and the uncertainty at each
of its tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np

from lm_eval_ext import metrics
from lm_eval_ext.checks import check_choice
from lm_eval_ext.grading.attempt_details import Question
from lm_eval_ext.harness.attempt_settings import AttemptSettings
from lm_eval_ext.scoring.aggregations import (
    Aggregation,
    attempts_by_question,
    with_lengths,
    within_question_auroc,
)
from lm_eval_ext.scoring.confidence_sources import Source
from lm_eval_ext.scoring.question import MetricSuite, QuestionMetric, SourceMetric
from lm_eval_ext.scoring.token_aggregations import cross_fitted, token_pairs, token_ranks
from lm_eval_ext.scoring.token_estimates import TokenEstimate, token_estimates

VoteRule = Literal["softmax", "linear", "best_of_n"]


def passn(settings: AttemptSettings) -> MetricSuite:
    """Return the metrics of N attempts per question, all from the same attempts."""
    return MetricSuite(
        [
            *(QuestionMetric(f"pass@{k}", _share(metrics.pass_at_k, k), True) for k in settings.ks),
            *(
                QuestionMetric(f"pass^{k}", _share(metrics.pass_hat_k, k), True)
                for k in settings.ks
                if k > 1
            ),
            *(QuestionMetric(f"maj@{k}", _majority_of(k), True) for k in settings.vote_ks),
            *_RATES,
        ],
        [
            *(
                SourceMetric(f"{name}@{k}", _vote(rule, k, settings.tau), True)
                for name, rule in VOTES.items()
                for k in settings.vote_ks
            ),
            *_calibration(settings.n_bins),
            *_RANKING,
            SourceMetric("within_question_auroc", _attempt_pairs, True, within_question_auroc),
        ],
    )


def calib(settings: AttemptSettings) -> MetricSuite:
    """Return the metrics of one answer per question and the confidence in it."""
    return MetricSuite(
        [QuestionMetric("accuracy", _share(metrics.pass_at_k, 1), True), *_RATES],
        [
            *_calibration(settings.n_bins),
            *_RANKING,
            SourceMetric(
                "accuracy_at_50",
                _pairs,
                True,
                Aggregation("accuracy_at_50", partial(metrics.accuracy_at_coverage, coverage=0.5)),
            ),
            SourceMetric(
                "partial_correlation",
                _triples,
                True,
                Aggregation("partial_correlation", metrics.partial_correlation, with_lengths),
            ),
        ],
    )


def eu(settings: AttemptSettings) -> MetricSuite:
    """Return how close estimates of the tokens' uncertainty come to the reference."""
    after_fit = Aggregation("rmse", metrics.rmse, cross_fitted)
    return MetricSuite(
        [
            QuestionMetric("accuracy", _share(metrics.pass_at_k, 1), True),
            QuestionMetric("eu_rmse:mean", _zero_pairs, False, after_fit),
            *_RATES,
        ],
        [
            SourceMetric(name, _token_pairs, higher_is_better, aggregation)
            for name, higher_is_better, aggregation in (
                ("eu_rmse", False, Aggregation("rmse", metrics.rmse, token_pairs)),
                ("eu_mae", False, Aggregation("mae", metrics.mae, token_pairs)),
                ("eu_affine_rmse", False, after_fit),
                ("eu_spearman", True, Aggregation("spearman", metrics.pearson, token_ranks)),
            )
        ],
        token_estimates,
    )


SUITES: dict[str, Callable[[AttemptSettings], MetricSuite]] = {
    "passn": passn,
    "calib": calib,
    "eu": eu,
}
"""Suites by the name a task file uses."""

SINGLE_ANSWER = frozenset({"calib", "eu"})
"""Suites of tasks that make one attempt per question."""


def suite(name: str, settings: AttemptSettings) -> MetricSuite:
    """Return a suite by name.

    Raises
    ------
    UserError
        For an unknown name.
    """
    check_choice("metrics", name, sorted(SUITES))
    return SUITES[name](settings)


def _share(estimator: Callable[..., Any], k: int) -> Callable[[Question], float]:
    def value(question: Question) -> float:
        n_correct = sum(attempt["correct"] for attempt in question)
        return float(estimator(n_correct, len(question), k))

    return value


def _majority_of(k: int) -> Callable[[Question], float]:
    def value(question: Question) -> float:
        return float(metrics.maj_at_k(*_answers(question), k).score)

    return value


def _vote(rule: VoteRule, k: int, tau: float) -> Callable[[Question, Source], float | None]:
    def value(question: Question, source: Source) -> float | None:
        # The best attempt needs an order only; a weight must be one on its own scale.
        weight = source.votes if rule == "best_of_n" else source.vote_weight
        if weight is None:
            return None
        confidence = weight if source.of_subsets is None else source.of_subsets
        answers, correct = _answers(question)
        score = metrics.weighted_vote(answers, correct, confidence, k, rule=rule, tau=tau).score
        return float(score)

    return value


def _answers(question: Question) -> tuple[list[str | None], list[bool]]:
    return [a["answer"] for a in question], [a["correct"] for a in question]


def _pairs(question: Question, source: Source) -> list[tuple[float, bool]]:
    return list(zip(source.confidence, source.correct, strict=True))


def _pairs_of_probability(question: Question, source: Source) -> list[tuple[float, bool]] | None:
    return _pairs(question, source) if source.is_probability else None


def _attempt_pairs(question: Question, source: Source) -> list[tuple[float, bool]] | None:
    """Return the pairs of a source that tells attempts at one question apart."""
    several = source.votes is not None and len(source.votes) > 1
    return _pairs(question, source) if several else None


def _triples(question: Question, source: Source) -> list[tuple[float, bool, float]] | None:
    if np.isnan(source.n_tokens).any():
        return None
    return list(zip(source.confidence, source.correct, source.n_tokens, strict=True))


def _token_pairs(question: Question, source: TokenEstimate) -> list[tuple[float, float]]:
    return list(zip(source.estimate, source.reference, strict=True))


def _zero_pairs(question: Question) -> list[tuple[float, float]] | None:
    zero = token_estimates(question).get("zero")
    return None if zero is None else list(zip(zero.estimate, zero.reference, strict=True))


def _calibration(n_bins: int) -> list[SourceMetric]:
    """Return the metrics that read a confidence as a probability."""
    ece = Aggregation("ece", partial(metrics.ece, n_bins=n_bins))
    debiased = partial(metrics.debiased_ece, n_bins=n_bins)
    aggregations = [
        ece,
        Aggregation("debiased_ece", debiased, attempts_by_question),
        Aggregation("brier", metrics.brier),
        Aggregation("nll", metrics.nll),
    ]
    return [
        SourceMetric(aggregation.__name__, _pairs_of_probability, False, aggregation)
        for aggregation in aggregations
    ]


_RANKING = [
    SourceMetric("hallucination_auroc", _pairs, True, Aggregation("auroc", metrics.auroc)),
    SourceMetric("auprc", _pairs, True, Aggregation("auprc", metrics.auprc)),
    SourceMetric("aurc", _pairs, False, Aggregation("aurc", metrics.aurc)),
    SourceMetric("prr", _pairs, True, Aggregation("prr", metrics.prr)),
]

VOTES: dict[str, VoteRule] = {"cisc": "softmax", "linear": "linear", "best_of": "best_of_n"}
"""Rules of the weighted votes, by their name in tables."""


def _invalid_rate(question: Question) -> float:
    return float(np.mean([attempt["answer"] is None for attempt in question]))


def _truncated_rate(question: Question) -> float | None:
    if not all("finish_reason" in attempt for attempt in question):
        return None
    return float(np.mean([attempt["finish_reason"] == "length" for attempt in question]))


def _mean_tokens(question: Question) -> float | None:
    if not all("n_tokens" in attempt for attempt in question):
        return None
    return float(np.mean([attempt["n_tokens"] for attempt in question]))


def _unfinished_thought_rate(question: Question) -> float | None:
    if not any("unfinished_thought" in attempt for attempt in question):
        return None
    return float(np.mean([attempt.get("unfinished_thought", False) for attempt in question]))


def _mean_thinking_tokens(question: Question) -> float | None:
    if not any("n_thinking_tokens" in attempt for attempt in question):
        return None
    return float(np.mean([attempt.get("n_thinking_tokens", 0) for attempt in question]))


_RATES = [
    QuestionMetric("invalid_rate", _invalid_rate, False),
    QuestionMetric("truncated_rate", _truncated_rate, False),
    QuestionMetric("unfinished_thought_rate", _unfinished_thought_rate, False),
    QuestionMetric("mean_tokens", _mean_tokens, None),
    QuestionMetric("mean_thinking_tokens", _mean_thinking_tokens, None),
]

"""Votes of a run against the majority vote of another: curves over k, and how few attempts do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from lm_eval_ext.errors import UserError
from lm_eval_ext.grading.attempt_details import Question
from lm_eval_ext.leaderboard.run_files import newest_run, read_samples
from lm_eval_ext.metrics import (
    MeanInterval,
    PairedDifference,
    maj_at_k,
    mean_over_questions,
    paired_bootstrap,
    proportion_interval,
    weighted_vote,
)
from lm_eval_ext.metrics.checks import FloatArray
from lm_eval_ext.metrics.resampling import draw
from lm_eval_ext.scoring.confidence_sources import Source, confidence_sources
from lm_eval_ext.scoring.metric_suites import VOTES

N_RESAMPLES = 2_000

_TIE = 1e-9
"""Means of equal scores may differ in their last bits."""


@dataclass(frozen=True)
class Vote:
    """A vote, and the confidence its attempts are weighted by."""

    rule: str
    source: str = ""

    @classmethod
    def parse(cls, name: str) -> Vote:
        """Read a vote as it is called in tables of metrics, without its k.

        Raises
        ------
        UserError
            For an unknown rule, or one without a source.

        Examples
        --------
        >>> Vote.parse("cisc:self_eval")
        Vote(rule='cisc', source='self_eval')
        """
        rule, _, source = name.partition(":")
        if rule == "maj" and not source:
            return cls(rule)
        if rule not in VOTES or not source:
            known = ", ".join(f"{known}:SOURCE" for known in VOTES)
            raise UserError(f"--vote={name}: must be maj, or one of {known}")
        return cls(rule, source)

    def name(self, k: int | str = "k") -> str:
        """Return the name in tables.

        Examples
        --------
        >>> Vote("cisc", "self_eval").name(10)
        'cisc@10:self_eval'
        """
        return f"{self.rule}@{k}" + (f":{self.source}" if self.source else "")


class FewestAttempts(NamedTuple):
    """The smallest k whose vote reaches a target.

    Parameters
    ----------
    k
        The smallest k; infinity where none does.
    low, high
        95% bootstrap interval over questions; infinity where a k that reaches it is beyond the
        attempts there are.
    not_inferior
        The smallest k whose paired 95% interval of the difference to the target lies above minus
        the margin; infinity where none does.
    """

    k: float
    low: float
    high: float
    reached: float
    not_inferior: float


class VoteCurve(NamedTuple):
    """A vote at every k, next to the target.

    Parameters
    ----------
    points
        Mean score with its 95% interval over questions, per k.
    differences
        Score minus the target's, paired over the questions, per k.
    """

    vote: Vote
    points: list[MeanInterval]
    differences: list[PairedDifference]
    fewest: FewestAttempts


def read_questions(folder: Path, task: str) -> dict[int, Question]:
    """Read the attempts of a task in the newest run below a folder, by question number.

    Raises
    ------
    UserError
        If there are no attempts, several filters, or not equally many attempts.
    """
    path = newest_run(folder).samples.get(task)
    if path is None:
        raise UserError(f"{folder}: no sample file of {task}; run lm_eval with --log_samples")
    questions: dict[int, Question] = {}
    for sample in read_samples(path):
        if "attempts" not in sample:
            continue
        if int(sample["doc_id"]) in questions:
            raise UserError(f"{path}: the task has several filters; votes need a single one")
        questions[int(sample["doc_id"])] = sample["attempts"]
    if not questions:
        raise UserError(f"{path}: no logged attempts; run a _passn task with --log_samples")
    counts = sorted({len(question) for question in questions.values()})
    if len(counts) > 1:
        raise UserError(
            f"{path}: questions have {counts[0]} to {counts[-1]} attempts; run lm_eval again so "
            "that all have equally many"
        )
    return questions


def vote_scores(
    questions: Mapping[int, Question], vote: Vote, ks: Sequence[int], *, tau: float = 1.0
) -> FloatArray:
    """Return the expected score of a vote of k attempts, per question and k.

    Parameters
    ----------
    questions
        Attempts by question number; the result is in the order of the numbers.
    ks
        Attempts in a vote, of shape (n_ks,).

    Returns
    -------
    numpy.ndarray
        Shape (n_questions, n_ks).

    Raises
    ------
    UserError
        For a source that the attempts do not have or that has no weights.
    """
    numbers = tqdm(sorted(questions), desc=vote.name(), unit="question", disable=None)
    try:
        rows = [_score(questions[number], vote, ks, tau) for number in numbers]
    except KeyError as error:
        raise UserError(f"the run's attempts cannot be voted on: no {error}") from error
    return np.array(rows, dtype=np.float64)


def _score(question: Question, vote: Vote, ks: Sequence[int], tau: float) -> Any:
    answers = [attempt["answer"] for attempt in question]
    correct = [attempt["correct"] for attempt in question]
    if vote.rule == "maj":
        return maj_at_k(answers, correct, list(ks)).score
    rule = VOTES[vote.rule]
    sources = confidence_sources(question)
    source: Source | None = sources.get(vote.source)
    weights = None
    if source is not None:
        weights = source.votes if rule == "best_of_n" else source.vote_weight
    if weights is None:
        usable = [name for name, one in sources.items() if one.vote_weight is not None]
        raise UserError(
            f"--vote={vote.rule}:{vote.source}: the attempts have no such weights (there are: "
            f"{', '.join(usable) or 'none'})"
        )
    return weighted_vote(answers, correct, weights, list(ks), rule=rule, tau=tau).score


def vote_curve(
    vote: Vote, ks: Sequence[int], scores: FloatArray, target: FloatArray, *, margin: float
) -> VoteCurve:
    """Set a vote at every k beside a target on the same questions.

    Parameters
    ----------
    target
        Score of the baseline's vote, of shape (n_questions,).
    margin
        Of the non-inferiority, in units of the score.
    """
    differences = [
        paired_bootstrap(
            mean_over_questions, {"values": column}, {"values": target}, n_resamples=N_RESAMPLES
        )
        for column in scores.T
    ]
    points = [proportion_interval(column) for column in scores.T]
    not_inferior = _first(ks, np.array([[d.low > -margin for d in differences]]))[0]
    estimate, low, high, reached = _fewest(ks, scores, target)
    fewest = FewestAttempts(estimate, low, high, reached, not_inferior)
    return VoteCurve(vote, points, differences, fewest)


def _fewest(
    ks: Sequence[int], scores: FloatArray, target: FloatArray, *, seed: int = 0
) -> tuple[float, float, float, float]:
    """Return the smallest k that reaches the target, its interval, and how often any does."""
    gaps = scores - target[:, None]
    n = len(gaps)
    estimate = _first(ks, gaps.mean(axis=0, keepdims=True) >= -_TIE)[0]
    rng = np.random.default_rng(seed)
    means = np.concatenate([drawn @ gaps / n for drawn in draw(rng, n, N_RESAMPLES)])
    resampled = np.sort(_first(ks, means >= -_TIE))
    # Infinity is a value like the others, so nothing is interpolated.
    low, high = (resampled[math.ceil(p * len(resampled)) - 1] for p in (0.025, 0.975))
    return estimate, float(low), float(high), float(np.isfinite(resampled).mean())


def _first(ks: Sequence[int], reached: Any) -> list[float]:
    """Return, per row of shape (n_ks,), the smallest k that reaches; infinity where none does."""
    return [float(ks[int(row.argmax())]) if row.any() else math.inf for row in reached]

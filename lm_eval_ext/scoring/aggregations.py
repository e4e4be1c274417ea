"""Our metrics as aggregations of lm-eval, each with its standard error over questions.

In lm-eval a task's ``process_results`` gives one *item* per question, and an aggregation turns the
items of all questions into the number of the result table. The entry points of this distribution
register those below by name, so that a task file can say::

    metric_list:
      - metric: calibration_error
        aggregation: ece
        higher_is_better: false

An item of `pass_at_k` and `pass_hat_k` is three numbers, ``(n_correct, n_attempts, k)``. An item of
every other aggregation is a pair ``(confidence, correct)``, or a list of such pairs, one for each
attempt at the question; an empty list leaves the question out. Where only the order counts, the
confidence may be any number, such as the negative of an uncertainty.

lm-eval knows the standard errors of its own functions only. `lm_eval_ext.harness.bridge` makes it
ask an aggregation that has a ``standard_error``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lm_eval_ext import metrics
from lm_eval_ext.errors import UserError
from lm_eval_ext.harness.bridge import unsupported_release
from lm_eval_ext.metrics.bootstrap import bootstrap_with_values
from lm_eval_ext.metrics.resampling import FEW_UNDEFINED, MANY_UNDEFINED

_mean = metrics.mean_over_questions
MAX_RESAMPLES = 1_000
"""Most resamples drawn for a standard error, which is then known to about 2%."""

FEW_QUESTIONS = 10
"""Fewer that are all alike have no standard error, rather than one of 0."""


class Sample(NamedTuple):
    """Items as the arrays of a metric.

    Parameters
    ----------
    data
        Arrays by argument name of the metric, one row per attempt or per question.
    questions
        Number of the question of each row, shape (n_rows,), or None where a row is a question.
    """

    data: dict[str, NDArray[Any]]
    questions: NDArray[np.intp] | None = None


def attempts(items: Sequence[Any]) -> Sample:
    """Read items that are a (confidence, correct) pair or a list of them.

    Raises
    ------
    ValueError
        If an item is neither.

    Examples
    --------
    >>> attempts([(0.9, True), [(0.5, True), (0.25, False)]]).data["confidence"]
    array([0.9 , 0.5 , 0.25])
    """
    rows = [_pairs_of(number, item) for number, item in enumerate(items)]
    confidence, correct = np.concatenate(rows or [np.empty((0, 2))]).T
    questions = np.repeat(np.arange(len(rows)), [len(pairs) for pairs in rows])
    return Sample({"confidence": confidence, "correct": correct}, questions)


def attempts_by_question(items: Sequence[Any]) -> Sample:
    """Read items as `attempts` does, for a metric that is told the question of each row."""
    data, questions = attempts(items)
    assert questions is not None
    return Sample({**data, "clusters": questions}, questions)


def with_lengths(items: Sequence[Any]) -> Sample:
    """Read items that are lists of (confidence, correct, n_tokens), one per attempt.

    Returns
    -------
    Sample
        For a correlation of the confidence with the verdict, given the length.

    Raises
    ------
    ValueError
        If an item is something else.
    """
    rows = [np.asarray(item, dtype=np.float64).reshape(len(item), -1) for item in items]
    for number, row in enumerate(rows):
        if row.size and row.shape[1] != 3:
            raise ValueError(
                "the item of a question must be a list of (confidence, correct, n_tokens), one "
                f"per attempt; item {number} is {_shown(items[number])}"
            )
    estimate, reference, given = np.concatenate([row.reshape(-1, 3) for row in rows]).T
    questions = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    return Sample({"estimate": estimate, "reference": reference, "given": given}, questions)


def counts(estimator: Callable[..., Any], items: Sequence[Any]) -> Sample:
    """Read items that are (n_correct, n_attempts, k) as values of a per-question estimator.

    Parameters
    ----------
    estimator
        Called with n_correct and n_attempts, shape (n_questions,), and k.
    items
        One per question, all with the same k.

    Raises
    ------
    ValueError
        If an item is something else, counts are impossible, or k differs between questions.
    """
    rows = [_counts_of(number, item) for number, item in enumerate(items)]
    n_correct, n_attempts, ks = np.array(rows).T
    if (ks != ks[0]).any():
        raise ValueError(f"k must be the same for all questions, got {np.unique(ks)[:5].tolist()}")
    values = estimator(n_correct, n_attempts, ks[0])
    left_out = int(np.isnan(values).sum())
    if left_out:
        warnings.warn(
            f"{left_out} of {len(values)} questions have fewer than k = {ks[0]:g} attempts and are "
            "left out",
            metrics.UndefinedMetricWarning,
            stacklevel=2,
        )
    return Sample({"values": values})


class Aggregation:
    """A metric that lm-eval can call with the items of a task, and ask for its standard error.

    Make one to set the metric's options, and name it in a task file as
    ``aggregation: !function my_metrics.ece_15``::

        ece_15 = Aggregation("ece_15", partial(ece, n_bins=15))

    Parameters
    ----------
    name
        Its name in messages.
    metric
        Called with the arrays of a `Sample` by name.
    read
        From items to a `Sample`.
    """

    def __init__(
        self,
        name: str,
        metric: Callable[..., Any],
        read: Callable[[Sequence[Any]], Sample] = attempts,
    ) -> None:
        self.__name__ = name
        self._metric = metric
        self._read = read

    def __repr__(self) -> str:
        return f"Aggregation({self.__name__!r})"

    def __call__(self, items: Sequence[Any]) -> float:
        """Return the metric over all questions, to lm-eval.

        Parameters
        ----------
        items
            One per question.

        Returns
        -------
        float
            NaN, with an `lm_eval_ext.metrics.UndefinedMetricWarning`, where it is undefined.

        Raises
        ------
        UserError
            For items that are not what the metric takes, and with an lm-eval that would have made
            one value of a question's attempts before.
        """
        unsupported = unsupported_release()
        if unsupported is not None:
            raise UserError(f"aggregation {self.__name__}: {unsupported}")
        return self.value(items)

    def value(self, items: Sequence[Any]) -> float:
        """Return the metric over all questions, as a call does; with any lm-eval.

        Parameters
        ----------
        items
            One per question.
        """
        data, questions = self._sample(items)
        if _is_empty(data):
            warnings.warn(
                f"{self.__name__} is undefined (NaN): none of {len(items)} questions has an "
                "attempt with this confidence (vote_share: one with a valid answer)",
                metrics.UndefinedMetricWarning,
                stacklevel=3,
            )
            return float("nan")
        n_known = len(items) if questions is None else len(np.unique(questions))
        if n_known < len(items):
            warnings.warn(  # one line for all metrics
                f"n = {n_known} of {len(items)} questions: the others have no attempt with this "
                "confidence (vote_share: none with a valid answer) and are left out",
                metrics.UndefinedMetricWarning,
                stacklevel=2,
            )
        try:
            return float(self._metric(**data))
        except ValueError as error:
            raise self._error(error) from None

    def standard_error(
        self, items: Sequence[Any], bootstrap_iters: int = MAX_RESAMPLES, seed: int = 0
    ) -> float:
        """Return the standard error of the metric by resampling whole questions.

        Parameters
        ----------
        items, bootstrap_iters, seed
            As in `interval`.

        Returns
        -------
        float
            NaN where the metric is undefined on the sample or on more than a quarter of the
            resamples, fewer than two questions have an attempt, or all resamples give one value:
            unless `FEW_QUESTIONS` are all alike, that comes of too few questions. lm-eval's table
            then says N/A. Warns when more than 5% of the resamples are undefined.
        """
        interval = self.interval(items, bootstrap_iters, seed)
        return float("nan") if interval is None else float(interval.standard_error)

    def interval(
        self, items: Sequence[Any], bootstrap_iters: int = MAX_RESAMPLES, seed: int = 0
    ) -> metrics.BootstrapInterval | None:
        """Return the metric with its 95% interval, by resampling whole questions.

        Parameters
        ----------
        items
            One per question.
        bootstrap_iters
            Resamples, at most `MAX_RESAMPLES` and at least 2; lm-eval's default is 100,000.
        seed
            Seed of the resamples.

        Returns
        -------
        BootstrapInterval or None
            None where no question has an attempt.
        """
        found = self.interval_with_values(items, bootstrap_iters, seed)
        return None if found is None else found[0]

    def interval_with_values(
        self, items: Sequence[Any], bootstrap_iters: int = MAX_RESAMPLES, seed: int = 0
    ) -> tuple[metrics.BootstrapInterval, NDArray[np.float64]] | None:
        """Return `interval` and the metric's values on the resamples.

        Parameters
        ----------
        items, bootstrap_iters, seed
            As in `interval`.

        Returns
        -------
        tuple or None
            The interval, and values of shape (n_resamples,); None as in `interval`.
        """
        n_resamples = max(2, min(bootstrap_iters, MAX_RESAMPLES))
        with warnings.catch_warnings():
            # The call for the value has told.
            warnings.simplefilter("ignore", metrics.UndefinedMetricWarning)
            data, questions = self._sample(items)
            if _is_empty(data):
                return None
            interval, values = bootstrap_with_values(
                self._metric, data, clusters=questions, n_resamples=n_resamples, seed=seed
            )
        alike = _are_alike(data) and interval.n_questions >= FEW_QUESTIONS
        if self._metric is not _mean and _is_constant(values) and not alike:
            nan = float("nan")
            interval = interval._replace(standard_error=nan, low=nan, high=nan)
        share = interval.n_undefined / n_resamples
        if share > FEW_UNDEFINED and interval.n_questions > 1 and not np.isnan(interval.estimate):
            warnings.warn(
                f"{self.__name__} is undefined (NaN) on {share:.0%} of the resamples for its "
                f"standard error{' (NaN)' if share > MANY_UNDEFINED else ''}: too few questions "
                "decide it",
                metrics.UndefinedMetricWarning,
                stacklevel=4,
            )
        return interval, values

    def _sample(self, items: Sequence[Any]) -> Sample:
        try:
            return self._read(items)
        except ValueError as error:
            raise self._error(error) from None

    def _error(self, error: ValueError) -> UserError:
        return UserError(f"aggregation {self.__name__}: {error}")


def _is_constant(values: NDArray[np.float64]) -> bool:
    """Tell whether all defined values are one, up to rounding."""
    known = values[~np.isnan(values)]
    return bool(known.size) and bool(np.ptp(known) <= 1e-12 * max(1.0, np.abs(known).max()))


def _are_alike(data: dict[str, NDArray[Any]]) -> bool:
    """Tell whether all attempts have the same numbers."""
    return all(np.ptp(values) == 0 for name, values in data.items() if name != "clusters")


def _is_empty(data: dict[str, NDArray[Any]]) -> bool:
    return not next(iter(data.values())).size


def _pairs_of(number: int, item: Any) -> NDArray[np.float64]:
    """Return the pairs of one item, shape (n_attempts, 2)."""
    try:
        pairs = np.asarray(item, dtype=np.float64)
    except (TypeError, ValueError):
        pairs = np.empty(())
    if pairs.shape == (0,):
        return np.empty((0, 2))
    if pairs.shape != (2,) and pairs.shape[1:] != (2,):
        raise ValueError(
            f"the item of a question must be a (confidence, correct) pair or a list of such pairs, "
            f"one per attempt; item {number} is {_shown(item)}"
        )
    return pairs.reshape(-1, 2)


def _counts_of(number: int, item: Any) -> NDArray[np.float64]:
    try:
        row = np.asarray(item, dtype=np.float64)
    except (TypeError, ValueError):
        row = np.empty(())
    if row.shape != (3,):
        raise ValueError(
            f"the item of a question must be three numbers, (n_correct, n_attempts, k); "
            f"item {number} is {_shown(item)}"
        )
    return row


def _shown(item: Any, length: int = 80) -> str:
    text = " ".join(repr(item).split())
    return text if len(text) <= length else text[: length - 3] + "..."


ece = Aggregation("ece", metrics.ece)
debiased_ece = Aggregation("debiased_ece", metrics.debiased_ece, attempts_by_question)
brier = Aggregation("brier", metrics.brier)
nll = Aggregation("nll", metrics.nll)

auroc = Aggregation("auroc", metrics.auroc)
within_question_auroc = Aggregation(
    "within_question_auroc", metrics.within_question_auroc, attempts_by_question
)
auprc = Aggregation("auprc", metrics.auprc)
auprc_incorrect = Aggregation("auprc_incorrect", partial(metrics.auprc, positive="incorrect"))
aurc = Aggregation("aurc", metrics.aurc)
e_aurc = Aggregation("e_aurc", metrics.e_aurc)
prr = Aggregation("prr", metrics.prr)
prr_at_50 = Aggregation("prr_at_50", partial(metrics.prr, max_rejection=0.5))
accuracy_at_50 = Aggregation("accuracy_at_50", partial(metrics.accuracy_at_coverage, coverage=0.5))

pass_at_k = Aggregation("pass_at_k", _mean, partial(counts, metrics.pass_at_k))
pass_hat_k = Aggregation("pass_hat_k", _mean, partial(counts, metrics.pass_hat_k))

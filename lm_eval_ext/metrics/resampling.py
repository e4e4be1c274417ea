"""Metrics as functions of how much each question weighs, for every interval and test here.

A metric on fixed data is a *formula*: from a weight for each question to its value. With weights of
1 it is the plain metric; a resample of questions is the weights that say how often each one was
drawn. One formula evaluates many resamples at once, from per-question sums or from one common sort.
A metric declares its formula with `weighted`; any other function is called on repeated rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lm_eval_ext.metrics.checks import FloatArray, UndefinedMetricWarning

Metric = Callable[..., Any]
"""A function of named arrays that gives a number, or an array of them."""

Data = Mapping[str, ArrayLike]
"""The arrays a metric is called with, by argument name."""

_F = TypeVar("_F", bound=Metric)

_CHUNK = 1 << 16
"""Weights held at once: few enough to stay in the processor's cache."""


FEW_UNDEFINED = 0.05
"""Share of resamples without a value that an interval leaves out without a warning."""

MANY_UNDEFINED = 0.25
"""Share beyond which there is no interval: the rest says how the metric varies where it exists."""


class Questions(NamedTuple):
    """Which question each row belongs to: `of_row`, shape (n_rows,), counted from 0."""

    of_row: NDArray[np.intp]
    n_questions: int
    ids: NDArray[Any]


class Formula(NamedTuple):
    """A metric on fixed data, as a function of the weights of the questions.

    Parameters
    ----------
    value
        From weights, whole numbers of shape (n_samples, n_questions), to values, (n_samples, ...).
    resampled
        The same for intervals, on data whose true value is `target`: a metric that is corrected
        for its bias would show the noise of the data a second time on resamples of the data.
        None: `value`, and the target is the metric on the sample. Values on resamples are shifted
        by what the metric on the sample is above the target.
    target
        What `resampled` estimates.
    upper
        Another estimator of the same quantity, whose interval gives the upper bound: for a metric
        that is itself too low in places, so that an interval around it would end too early.
    """

    value: Callable[[FloatArray], FloatArray]
    resampled: Callable[[FloatArray], FloatArray] | None = None
    target: Any = None
    upper: Formula | None = None

    def at_weight_one(self, n_questions: int) -> FloatArray:
        """Return the metric on the sample itself, shape (...)."""
        return np.asarray(self.value(np.ones((1, n_questions)))[0])


def weighted(make: Callable[..., Formula]) -> Callable[[_F], _F]:
    """Attach to a metric the function that makes its `Formula`.

    Parameters
    ----------
    make
        Called as ``make(questions, **arguments)`` with a `Questions` and the metric's arguments;
        the first axis of each array counts rows.
    """

    def attach(metric: _F) -> _F:
        metric.formula = make  # type: ignore[attr-defined]
        return metric

    return attach


def plain(
    make: Callable[..., Formula],
    rows: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    by_question: bool = False,
    **arguments: Any,
) -> float:
    """Return a metric of one number: its formula where every row weighs 1.

    Parameters
    ----------
    make
        As for `weighted`.
    rows
        One of the arrays.
    clusters
        Question id of each row; None: each entry of the first axis is a question.
    by_question
        Whether it matters which rows share a question; otherwise all may be of one.
    arguments
        Of `make`.
    """
    n_rows = len(np.atleast_1d(np.asarray(rows)))
    questions = Questions(np.zeros(n_rows, dtype=np.intp), 1, np.zeros(1))
    if by_question:
        questions = questions_of({"rows": rows}, clusters)
    return float(make(questions, **arguments).at_weight_one(questions.n_questions))


def ratio(
    of_row: NDArray[np.intp],
    n_questions: int,
    numerator: FloatArray,
    denominator: FloatArray,
    finish: Callable[[FloatArray], FloatArray] = np.asarray,
) -> Formula:
    """Return the formula of a function of one sum over another; NaN where the second is 0.

    Parameters
    ----------
    of_row
        Question of each row, shape (n_rows,).
    n_questions
        Number of questions.
    numerator, denominator
        What is summed, shape (n_rows,).
    finish
        Of the ratio.
    """
    sums = sums_by_question(of_row, n_questions, [numerator, denominator])

    def value(weights: FloatArray) -> FloatArray:
        above, below = (weights @ sums).T
        return finish(above / np.where(below > 0, below, np.nan))

    return Formula(value)


def questions_of(data: Data, clusters: ArrayLike | None) -> Questions:
    """Check that all arrays have the same rows, and number the question of each row."""
    if not data:
        raise ValueError("data must name at least one array, such as {'correct': correct}")
    lengths = {name: len(np.atleast_1d(np.asarray(array))) for name, array in data.items()}
    if clusters is not None:
        ids = np.asarray(clusters)
        if ids.ndim != 1:
            raise ValueError(f"clusters must be one question id per row, got shape {ids.shape}")
        lengths["clusters"] = len(ids)
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(f"arrays must have the same number of rows, got {listed}")
    n_rows = next(iter(lengths.values()))
    if n_rows == 0:
        raise ValueError(f"{' and '.join(data)} must not be empty")
    if clusters is None:
        return Questions(np.arange(n_rows), n_rows, np.arange(n_rows))
    unique, of_row = np.unique(ids, return_inverse=True)
    return Questions(of_row, len(unique), unique)


def require_same_questions(metric: str, questions: Questions, clusters: ArrayLike | None) -> None:
    """Refuse question ids among the data of a metric that differ from the questions resampled.

    Raises
    ------
    ValueError
        If two rows share a question in one and not in the other.
    """
    if clusters is None:
        return
    given = np.asarray(clusters)
    same = given.shape == questions.of_row.shape
    if same:
        _, ids = np.unique(given, return_inverse=True)
        pairs = np.unique(np.stack([ids, questions.of_row]), axis=1).shape[1]
        same = pairs == ids.max() + 1 == questions.n_questions
    if not same:
        raise ValueError(
            f"clusters in the data of {metric} must tell apart the same questions as the "
            "resampling does; give the ids to the bootstrap instead, as its own clusters="
        )


def formula_of(metric: Metric, data: Data, questions: Questions) -> Formula:
    """Return the formula of a metric, or one that repeats rows and calls the metric."""
    arrays = {name: np.asarray(array) for name, array in data.items()}
    options: dict[str, Any] = {}
    function = metric
    while isinstance(function, partial):
        if function.args:
            raise ValueError("a partial metric must fix its options by name, not by position")
        options = {**function.keywords, **options}
        function = function.func
    make = getattr(function, "formula", None)
    if make is not None:
        return cast(Formula, make(questions, **arrays, **options))
    return Formula(partial(_repeat_rows, metric, arrays, questions))


def _repeat_rows(
    metric: Metric, arrays: dict[str, NDArray[Any]], questions: Questions, weights: FloatArray
) -> FloatArray:
    """Evaluate any metric, one sample at a time, on rows repeated as often as drawn."""
    if (weights == 1).all():  # in their order, and with what the metric has to say
        return np.stack([np.asarray(metric(**arrays), dtype=np.float64)] * len(weights))
    values = []
    order = np.argsort(questions.of_row, kind="stable")
    sorted_question = questions.of_row[order]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the caller counts the undefined resamples
        for times in weights.astype(np.intp):
            rows = np.repeat(order, times[sorted_question])
            values.append(metric(**{name: array[rows] for name, array in arrays.items()}))
    return np.asarray(values, dtype=np.float64)


def draw(rng: np.random.Generator, n_questions: int, n_resamples: int) -> Iterator[FloatArray]:
    """Yield the weights of n_resamples resamples of n_questions, in chunks of rows."""
    step = max(1, _CHUNK // n_questions)
    for start in range(0, n_resamples, step):
        size = min(step, n_resamples - start)
        cells = rng.integers(0, n_questions, size=(size, n_questions), dtype=np.int32)
        cells = cells + (np.arange(size) * n_questions)[:, None]
        counts = np.bincount(cells.ravel(), minlength=size * n_questions)
        yield counts.reshape(size, n_questions).astype(np.float64)


def leave_one_out(n_questions: int) -> Iterator[FloatArray]:
    """Yield the weights that leave out each question in turn, in chunks of rows."""
    step = max(1, _CHUNK // n_questions)
    for start in range(0, n_questions, step):
        left_out = np.arange(start, min(start + step, n_questions))
        counts = np.ones((len(left_out), n_questions))
        counts[np.arange(len(left_out)), left_out] = 0
        yield counts


def resampled_values(
    formula: Formula,
    estimate: FloatArray,
    n_questions: int,
    n_resamples: int,
    rng: np.random.Generator,
) -> FloatArray:
    """Return the values on random resamples, shifted where the formula asks for it.

    Shape (n_resamples, ...); all NaN for a single question, which has no spread to show.
    """
    values = evaluate_all(formula, draw(rng, n_questions, n_resamples))
    if n_questions < 2:
        return np.full_like(values, np.nan)
    return values if formula.target is None else values + (estimate - formula.target)


def evaluate_all(formula: Formula, drawn: Iterator[FloatArray]) -> FloatArray:
    """Concatenate a formula's values on resamples over chunks of weights."""
    value = formula.resampled or formula.value
    return np.concatenate([value(weights) for weights in drawn])


def as_arrays(data: Data) -> dict[str, NDArray[Any]]:
    """Convert the data once, so that a metric sees arrays on the sample and on resamples alike."""
    return {name: np.asarray(array) for name, array in data.items()}


def too_undefined(values: FloatArray, estimate: FloatArray) -> NDArray[np.bool_]:
    """Return which values of a metric have no value on too many resamples, and warn of some.

    Parameters
    ----------
    values
        Values on resamples, shape (n_resamples, ...).
    estimate
        Values on the sample, shape (...); where it is NaN that has been told.
    """
    share = np.where(np.isnan(estimate), 0.0, np.isnan(values).mean(axis=0))
    if share.max(initial=0.0) > FEW_UNDEFINED:
        many = share.max() > MANY_UNDEFINED
        warnings.warn(
            f"the metric is undefined (NaN) on {share.max():.0%} of {len(values)} resamples, "
            + ("too many for an interval" if many else "which the interval leaves out")
            + "; too few questions decide it",
            UndefinedMetricWarning,
            stacklevel=3,
        )
    return np.asarray(share > MANY_UNDEFINED)


def flat_rows(
    questions: Questions, *arrays: NDArray[Any]
) -> tuple[NDArray[np.intp], list[NDArray[Any]]]:
    """Flatten (n_questions, n_attempts) arrays to rows and return the question of each row."""
    of_row = questions.of_row
    if arrays[0].ndim > 1:
        of_row = np.repeat(of_row, arrays[0][0].size)
    return of_row, [array.ravel() for array in arrays]


def sums_by_question(
    of_row: NDArray[np.intp], n_questions: int, columns: list[FloatArray]
) -> FloatArray:
    """Sum columns of per-row numbers within questions, shape (n_questions, n_columns)."""
    sums = [np.bincount(of_row, weights=column, minlength=n_questions) for column in columns]
    return np.stack(sums, axis=1)

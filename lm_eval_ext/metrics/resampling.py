"""Re-evaluation of a metric on resampled questions, for every interval and test of this package.

A resample of questions is described by how often each one was drawn, a row of *multiplicities* of
shape (n_questions,). Any metric can be re-evaluated by repeating its rows accordingly. A metric
that can do better says so where it is defined, with `resampled_by`: it then evaluates many rows of
multiplicities at once, from per-question sums or from one common sort.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lm_eval_ext.metrics.checks import FloatArray, IntArray, UndefinedMetricWarning

Metric = Callable[..., Any]
"""A function of named arrays that gives a number, or an array of them."""

Data = Mapping[str, ArrayLike]
"""The arrays a metric is called with, by argument name."""

_F = TypeVar("_F", bound=Metric)

_CHUNK = 1 << 16
"""Multiplicities held at once: few enough to stay in the processor's cache."""


FEW_UNDEFINED = 0.05
"""Share of resamples without a value that an interval leaves out without a warning."""

MANY_UNDEFINED = 0.25
"""Share beyond which there is no interval: the rest says how the metric varies where it exists."""


class Questions(NamedTuple):
    """Which question each row belongs to: `of_row`, shape (n_rows,), counted from 0."""

    of_row: NDArray[np.intp]
    n_questions: int
    ids: NDArray[Any]


class Resampler(NamedTuple):
    """A metric on fixed data, as a function of how often each question is drawn.

    Parameters
    ----------
    evaluate
        From multiplicities of shape (n_resamples, n_questions) to values, (n_resamples, ...).
    estimate
        The metric on the sample, where that depends on which rows share a question; None if the
        metric is simply called.
    target
        What the values on resamples estimate, if that is not the metric's value on the sample. A
        bias-corrected metric differs from what it estimates there, and its intervals are shifted
        by that difference.
    upper
        Another estimator of the same quantity, whose interval gives the upper bound: for a metric
        that is itself too low in places, so that an interval around it would end too early.
    """

    evaluate: Callable[[IntArray], FloatArray]
    estimate: Any = None
    target: Any = None
    upper: Resampler | None = None


def resampled_by(make: Callable[..., Resampler | None]) -> Callable[[_F], _F]:
    """Attach to a metric the function that makes its `Resampler`.

    Parameters
    ----------
    make
        Called as ``make(questions, **arguments)`` with a `Questions` and the metric's arguments;
        the first axis of each array counts rows. It may return None to decline.
    """

    def attach(metric: _F) -> _F:
        metric.make_resampler = make  # type: ignore[attr-defined]
        return metric

    return attach


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


def resampler_of(metric: Metric, data: Data, questions: Questions) -> Resampler:
    """Return the fast resampler of a metric, or one that repeats rows and calls the metric."""
    arrays = {name: np.asarray(array) for name, array in data.items()}
    options: dict[str, Any] = {}
    function = metric
    while isinstance(function, partial):
        if function.args:
            raise ValueError("a partial metric must fix its options by name, not by position")
        options = {**function.keywords, **options}
        function = function.func
    make = getattr(function, "make_resampler", None)
    resampler = make(questions, **arrays, **options) if make else None
    return resampler or Resampler(partial(_repeat_rows, metric, arrays, questions))


def _repeat_rows(
    metric: Metric, arrays: dict[str, NDArray[Any]], questions: Questions, drawn: IntArray
) -> FloatArray:
    """Evaluate any metric, one resample at a time, on rows repeated as often as drawn."""
    values = []
    order = np.argsort(questions.of_row, kind="stable")
    sorted_question = questions.of_row[order]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the caller counts the undefined resamples
        for multiplicities in drawn:
            rows = np.repeat(order, multiplicities[sorted_question])
            values.append(metric(**{name: array[rows] for name, array in arrays.items()}))
    return np.asarray(values, dtype=np.float64)


def draw(rng: np.random.Generator, n_questions: int, n_resamples: int) -> Iterator[IntArray]:
    """Yield multiplicities of n_resamples resamples of n_questions, in chunks of rows."""
    step = max(1, _CHUNK // n_questions)
    for start in range(0, n_resamples, step):
        size = min(step, n_resamples - start)
        cells = rng.integers(0, n_questions, size=(size, n_questions), dtype=np.int32)
        cells = cells + (np.arange(size) * n_questions)[:, None]
        counts = np.bincount(cells.ravel(), minlength=size * n_questions)
        yield counts.reshape(size, n_questions)


def leave_one_out(n_questions: int) -> Iterator[IntArray]:
    """Yield the multiplicities that leave out each question in turn, in chunks of rows."""
    step = max(1, _CHUNK // n_questions)
    for start in range(0, n_questions, step):
        left_out = np.arange(start, min(start + step, n_questions))
        counts = np.ones((len(left_out), n_questions), dtype=np.int64)
        counts[np.arange(len(left_out)), left_out] = 0
        yield counts


def estimate_of(metric: Metric, data: Data, resampler: Resampler) -> FloatArray:
    """Return the metric on the sample itself."""
    value = metric(**data) if resampler.estimate is None else resampler.estimate
    return np.asarray(value, dtype=np.float64)


def resampled_values(
    resampler: Resampler,
    estimate: FloatArray,
    n_questions: int,
    n_resamples: int,
    rng: np.random.Generator,
) -> FloatArray:
    """Return the values on random resamples, shifted where the resampler asks for it.

    Shape (n_resamples, ...); all NaN for a single question, which has no spread to show.
    """
    values = evaluate_all(resampler, draw(rng, n_questions, n_resamples))
    if n_questions < 2:
        return np.full_like(values, np.nan)
    return values if resampler.target is None else values + (estimate - resampler.target)


def evaluate_all(resampler: Resampler, drawn: Iterator[IntArray]) -> FloatArray:
    """Concatenate a resampler's values over chunks of multiplicities."""
    return np.concatenate([resampler.evaluate(counts) for counts in drawn])


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

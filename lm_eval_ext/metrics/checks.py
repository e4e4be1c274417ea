"""Input checks shared by the metrics: each failure is one line that names the argument."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class UndefinedMetricWarning(UserWarning):
    """A metric is NaN on this data; the message names the cause."""


def as_float(name: str, values: ArrayLike) -> FloatArray:
    """Return `values` as float64 and refuse NaN and anything that is not a number."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must hold numbers: {error}") from None
    if np.isnan(array).any():
        raise ValueError(
            f"{name} has {int(np.isnan(array).sum())} NaN of {array.size} values; drop them first"
        )
    return array


def as_probability(name: str, values: ArrayLike) -> FloatArray:
    """Return `values` as float64 and refuse anything outside [0, 1]."""
    array = as_float(name, values)
    if array.size and (array.min() < 0 or array.max() > 1):
        remedy = "; an unscaled uncertainty is not a confidence" if name == "confidence" else ""
        raise ValueError(
            f"{name} must be probabilities in [0, 1], got values from {array.min():g} "
            f"to {array.max():g}{remedy}"
        )
    return array


def as_binary(name: str, values: ArrayLike) -> FloatArray:
    """Return 0/1 verdicts as float64 and refuse any other value."""
    array = np.asarray(values)
    if array.dtype == np.bool_:
        return array.astype(np.float64)
    array = as_float(name, array)
    wrong = array[(array != 0) & (array != 1)]
    if wrong.size:
        raise ValueError(f"{name} must hold only 0 and 1 (or booleans), got {wrong.flat[0]:g}")
    return array


def as_count(name: str, values: ArrayLike) -> IntArray:
    """Return non-negative whole numbers as int64."""
    array = np.asarray(values)
    if array.dtype.kind not in "iub":
        array = as_float(name, array)
        if (array != np.floor(array)).any() or np.isinf(array).any():
            raise ValueError(f"{name} must be whole numbers, got {array}")
    array = array.astype(np.int64)
    if array.size and array.min() < 0:
        raise ValueError(f"{name} must not be negative, got {array.min()}")
    return array


def scalar_or_array(values: ArrayLike) -> Any:
    """Return a plain float for a single value and the array otherwise."""
    array = np.asarray(values, dtype=np.float64)
    return float(array) if array.ndim == 0 else array


def same_shape(**arrays: NDArray[Any]) -> None:
    """Refuse empty arrays and arrays of different shapes."""
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"arguments must have the same shape, got {listed}")
    if any(0 in shape for shape in shapes.values()):
        raise ValueError(f"{' and '.join(shapes)} must not be empty")


def at_least(name: str, value: int, minimum: int) -> int:
    """Return a whole number that is at least `minimum`."""
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be a whole number, got {value!r}") from None
    if number < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {number}")
    return number


def open_unit(name: str, value: float) -> float:
    """Return a number strictly between 0 and 1, such as a confidence level."""
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie strictly between 0 and 1, got {value!r}")
    return float(value)


def one_of(name: str, value: str, choices: tuple[str, ...]) -> str:
    """Return `value` if it is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return value

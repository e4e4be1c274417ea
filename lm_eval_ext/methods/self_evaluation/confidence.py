"""From the logits of the two labels to the probability that an answer is correct."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import NamedTuple

from lm_eval_ext.checks import is_number
from lm_eval_ext.errors import UserError

FILE_NAME = "temperature.json"
"""What ``lm-eval-ext train temperature`` writes into a folder."""


class Temperature(NamedTuple):
    """A temperature of the confidence, above 0; 1 changes nothing. `source` is its file, if any."""

    value: float
    source: str | None = None


def confidence(logit_yes: float, logit_no: float, temperature: float = 1.0) -> float:
    r"""Return :math:`\sigma((z_A - z_B) / T)`: P(A) / (P(A) + P(B)) of the model at temperature T.

    The logits are those of the labels of a correct and of a wrong answer.

    Examples
    --------
    >>> confidence(2.0, 2.0), round(confidence(3.0, 1.0), 4), round(confidence(3.0, 1.0, 2.0), 4)
    (0.5, 0.8808, 0.7311)
    """
    x = (logit_yes - logit_no) / temperature
    # Written for both signs, so that a large number overflows on neither side.
    small = math.exp(-abs(x))
    return (1.0 if x >= 0 else small) / (1 + small)


def read_temperature(value: float | str | Path | None) -> Temperature | None:
    """Read ``calibration_temperature``: a number, or what ``lm-eval-ext train temperature`` wrote.

    Raises
    ------
    UserError
        For a number that is not above 0, or a file without one.
    """
    if value is None:
        return None
    if not isinstance(value, (str, Path)):
        return Temperature(_above_zero(value, f"calibration_temperature={value!r}"))
    path, name = Path(value), f"calibration_temperature={value}"
    if path.is_dir():
        path = path / FILE_NAME
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["temperature"]
    except OSError as error:
        raise UserError(
            f"{name}: no such file; give a number, or the output of lm-eval-ext train temperature"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{name}: {path.name} holds no temperature; write it with lm-eval-ext train temperature"
        ) from error
    return Temperature(_above_zero(found, f"{name}: temperature={found!r}"), str(path))


def _above_zero(value: object, name: str) -> float:
    if not is_number(value) or not 0 < value < math.inf:
        raise UserError(f"{name} must be a number above 0, or a file that holds one")
    return float(value)

"""From the logits of the two labels to the probability that an answer is correct."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval_ext.checks import is_number
from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.self_evaluation.layout import SelfEvalLayout
from lm_eval_ext.models.generation import Generation

FILE_NAME = "temperature.json"
"""What ``lm-eval-ext train temperature`` writes into a folder."""

SOURCE = "self_eval"
"""Name of the probability among those of an attempt."""

UNTUNED = "self_eval_untuned"
"""Name, in ``extra``, of the probability at temperature 1 where another was set."""


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


class SelfEvaluation:
    """Judges attempts: what is read after them, and what the labels' logits say.

    Attributes
    ----------
    counts
        Attempts so far: ``judged``, ``retokenized`` (the tokenizer's tokens of the response were
        not those that had been sampled) and ``cut`` (too long, cut from the left).
    """

    def __init__(self, layout: SelfEvalLayout, temperature: Temperature | None = None) -> None:
        self.layout = layout
        self.temperature = temperature
        self.counts: Counter[str] = Counter(judged=0, retokenized=0, cut=0)

    def annotated(self, generation: Generation, readout: Sequence[float]) -> Generation:
        """Return an attempt with its confidence, given the logits of both labels."""
        yes, no = readout
        untuned = confidence(yes, no)
        if self.temperature is None:
            return generation.annotated(probabilities={SOURCE: untuned})
        tuned = confidence(yes, no, self.temperature.value)
        return generation.annotated(probabilities={SOURCE: tuned}, extra={UNTUNED: untuned})

    def key_settings(self) -> dict[str, Any]:
        """Return what decides the confidence, for the keys of a store."""
        template = self.layout.template
        return {
            "prompt": template.prompt,
            "labels": list(template.labels),
            "template_ids": list(self.layout.template_ids),
            "temperature": None if self.temperature is None else self.temperature.value,
        }

    def record(self) -> dict[str, Any]:
        """Return the settings and the counts, for the record of the run."""
        template = self.layout.template
        temperature = self.temperature or Temperature(1.0)
        return {
            "prompt": template.prompt,
            "labels": list(template.labels),
            "label_ids": list(self.layout.label_ids),
            "n_template_tokens": len(self.layout.template_ids),
            "temperature": temperature.value,
            "temperature_file": temperature.source,
            "attempts": dict(self.counts),
        }

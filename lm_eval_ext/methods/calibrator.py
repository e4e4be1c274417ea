"""A fitted calibrator: from the sources of an attempt to the probability that it is correct.

``lm-eval-ext train calibrator`` fits one and writes it as JSON; everything here needs NumPy only.
An attempt's sources go through standardization, linear layers with ReLU between them, and at the
end a logistic function or, where it was fitted by isotonic regression, straight lines between
steps. A single layer is a logistic regression.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lm_eval_ext.errors import UserError
from lm_eval_ext.models.attempt_summary import attempt_summary
from lm_eval_ext.models.generation import Generation

CALIBRATED = "calibrated"
"""Name of the probability among those of an attempt."""

FORMAT = "lm_eval_ext.calibrator/1"

QUESTION_SOURCES = ("answer_share", "answer_groups", "answer_entropy")
"""Sources of an attempt beside the others at its question: the share of them that gave its answer,
the number of different answers per attempt, and `lm_eval_ext.metrics.answer_entropy`."""

GRADED_SOURCES = (*QUESTION_SOURCES, "answer_logprob")
"""Sources that exist only once answers are extracted."""

_SMALLEST = 1e-6
"""Probabilities are read between it and 1 less it, so that their log-odds are finite."""

FloatArray = NDArray[np.float64]


class Layer(NamedTuple):
    """A linear layer: `weights` of shape (n_in, n_out), `bias` of shape (n_out,)."""

    weights: FloatArray
    bias: FloatArray


class Calibrator(NamedTuple):
    """A calibrator as its file describes it.

    Parameters
    ----------
    path
        The file, for messages.
    sources
        Names of what it reads, in order.
    n_attempts
        Attempts per question that it was fitted at.
    center, scale
        Standardization of the sources, shape (n_sources,).
    layers
        At least one; the last has one output.
    steps
        Scores and probabilities, shape (2, n_steps), or None for a logistic function.
    questions, prompts
        Hashes of the questions that it was fitted on, and of their prompts.
    """

    path: str
    sources: tuple[str, ...]
    n_attempts: int
    center: FloatArray
    scale: FloatArray
    layers: tuple[Layer, ...]
    steps: FloatArray | None
    questions: frozenset[str]
    prompts: frozenset[str]

    @property
    def looks_at_questions(self) -> bool:
        """Whether a source compares an attempt with the others at its question."""
        return any(name in QUESTION_SOURCES for name in self.sources)

    def probability(self, values: ArrayLike) -> FloatArray:
        """Return the probability of each attempt, shape (...).

        Parameters
        ----------
        values
            Its sources, shape (..., n_sources); NaN where one is missing gives NaN.
        """
        given = np.asarray(values, dtype=np.float64)
        known = np.asarray(np.isfinite(given).all(axis=-1))
        hidden = np.where(known[..., None], (given - self.center) / self.scale, 0.0)
        for layer in self.layers[:-1]:
            hidden = np.maximum(hidden @ layer.weights + layer.bias, 0.0)
        last = self.layers[-1]
        score = (hidden @ last.weights + last.bias)[..., 0]
        if self.steps is not None:
            found = np.interp(score, *self.steps)
        else:
            # Written for both signs, so that a large number overflows on neither side.
            small = np.exp(-np.abs(score))
            found = np.where(score >= 0, 1.0, small) / (1 + small)
        return np.where(known, found, np.nan)

    def refuse(self, hashes: Iterable[str], what: str) -> None:
        """Refuse questions that the calibrator was fitted on.

        Parameters
        ----------
        hashes
            Of the questions or prompts.
        what
            Where they come from, for the message.

        Raises
        ------
        UserError
            If there is one.
        """
        asked = set(hashes)
        n_shared = len(asked & (self.questions | self.prompts))
        if n_shared:
            raise UserError(
                f"calibrator={self.path}: was fitted on {n_shared} of the {len(asked)} questions "
                f"of {what}; fit it on training problems and score others"
            )


def attempt_values(summary: Mapping[str, Any], names: Sequence[str]) -> list[float]:
    """Return sources of one attempt by name; NaN for one that it does not have.

    Parameters
    ----------
    summary
        As `attempt_summary` returns it, or the details of a logged attempt.
    names
        ``mean_logprob``, ``total_logprob``, ``perplexity``, ``mean_entropy``, ``self_certainty``,
        ``mean_margin``, ``lowest_window_logprob``, ``tail_logprob``, ``answer_logprob``,
        ``length``, or the name of a probability (read as log-odds) or uncertainty.

    Examples
    --------
    >>> summary = {"n_tokens": 4, "mean_logprob": -0.5, "probabilities": {"self_eval": 0.5}}
    >>> attempt_values(summary, ["total_logprob", "length", "self_eval", "draft_eu"])
    [-2.0, 4.0, 0.0, nan]
    """
    known = known_values(summary)
    return [known.get(name, math.nan) for name in names]


def known_values(summary: Mapping[str, Any]) -> dict[str, float]:
    """Return all sources of one attempt that are finite, by name."""
    found: dict[str, float | None] = {
        name: summary.get(key)
        for name, key in (
            ("mean_logprob", "mean_logprob"),
            ("mean_entropy", "mean_entropy"),
            ("self_certainty", "mean_self_certainty"),
            ("mean_margin", "mean_margin"),
            ("length", "n_tokens"),
            *((name, name) for name in ("lowest_window_logprob", "tail_logprob", "answer_logprob")),
        )
    }
    mean, length = found["mean_logprob"], found["length"]
    if mean is not None:
        found["perplexity"] = math.exp(min(-mean, 700.0))  # the largest that a float holds
    if mean is not None and length is not None:
        found["total_logprob"] = mean * length
    for name, probability in summary.get("probabilities", {}).items():
        if name != CALIBRATED:
            found[name] = _log_odds(probability)
    found |= summary.get("uncertainties", {})
    return {name: float(v) for name, v in found.items() if v is not None and math.isfinite(v)}


def calibrated(
    calibrator: Calibrator | None, generations: Iterable[Generation]
) -> list[Generation]:
    """Return attempts with the probability ``calibrated``, those that have every source.

    Parameters
    ----------
    calibrator
        One that reads sources of attempts only; with None the attempts stay as they are.
    generations
        Finished attempts.
    """
    attempts = list(generations)
    if calibrator is None:
        return attempts
    values = [attempt_values(attempt_summary(a.record), calibrator.sources) for a in attempts]
    found = calibrator.probability(np.reshape(values, (len(attempts), len(calibrator.sources))))
    return [
        attempt if math.isnan(p) else attempt.annotated(probabilities={CALIBRATED: float(p)})
        for attempt, p in zip(attempts, found, strict=True)
    ]


def read_calibrator(path: str | Path) -> Calibrator:
    """Read a file of ``lm-eval-ext train calibrator``.

    Raises
    ------
    UserError
        If there is no such file, or it holds something else.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"calibrator={path}: no such file; write one with lm-eval-ext train calibrator"
        ) from error
    except ValueError as error:
        raise UserError(f"calibrator={path}: not valid JSON ({error})") from error
    try:
        return _checked(path, found)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"calibrator={path}: not a file of lm-eval-ext train calibrator ({error}); write it "
            "again"
        ) from error


def read_attempt_calibrator(path: str | Path | None) -> Calibrator | None:
    """Read the argument ``calibrator`` of a model.

    Raises
    ------
    UserError
        As `read_calibrator`, and for one that reads what exists only after grading.
    """
    if path is None:
        return None
    found = read_calibrator(path)
    graded = [name for name in found.sources if name in GRADED_SOURCES]
    if graded:
        raise UserError(
            f"calibrator={path}: reads {', '.join(graded)}, which exist only when the attempts at "
            "a question are graded; use lm-eval-ext score --calibrator on the run"
        )
    return found


def _checked(path: str | Path, found: Mapping[str, Any]) -> Calibrator:
    if found.get("format") != FORMAT:
        raise ValueError(f"format {found.get('format')!r}")
    model, sources = found["model"], tuple(map(str, found["sources"]))
    layers = tuple(
        Layer(np.array(one["weights"], np.float64), np.array(one["bias"], np.float64))
        for one in model["layers"]
    )
    center, scale = (np.array(model[name], np.float64) for name in ("center", "scale"))
    steps = None
    if model.get("steps") is not None:
        steps = np.array([model["steps"]["score"], model["steps"]["probability"]], np.float64)
    widths = [len(sources), *(layer.weights.shape[1] for layer in layers)]
    shapes = list(pairwise(widths))
    if (
        not layers
        or [layer.weights.shape for layer in layers] != shapes
        or [layer.bias.shape for layer in layers] != [(width,) for width in widths[1:]]
        or widths[-1] != 1
        or center.shape != scale.shape
        or scale.shape != (len(sources),)
    ):
        raise ValueError("its numbers do not fit its sources")
    known = [center, scale, *(array for layer in layers for array in layer)]
    if not all(np.isfinite(array).all() for array in known) or not (scale > 0).all():
        raise ValueError("a number is not finite")
    return Calibrator(
        str(path),
        sources,
        int(found["n_attempts"]),
        center,
        scale,
        layers,
        steps,
        frozenset(found["questions"]),
        frozenset(found["prompts"]),
    )


def _log_odds(probability: float) -> float:
    p = min(max(probability, _SMALLEST), 1 - _SMALLEST)
    return math.log(p / (1 - p))

"""How many attempts a task makes, and the options of its metrics."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

from lm_eval_ext.checks import is_number
from lm_eval_ext.errors import UserError

RESERVED = ("attempts", "ks", "vote_ks", "tau", "n_bins", "data_folder", "report")
"""Names in the metadata of a task that mean something to this package."""

REPORTS = ("headline", "all")
"""Which rows a run prints. It changes nothing that is computed, stored or compared."""

DEFAULT_ATTEMPTS = 16
"""Attempts per question where neither the command line nor the task says."""


class AttemptSettings(NamedTuple):
    """Number of attempts per question, and the options of the metrics.

    Parameters
    ----------
    attempts
        Per question, at least 1.
    ks
        The k of every pass@k, ascending, each from 1 to the number of attempts.
    vote_ks
        The k of every vote, likewise.
    tau
        Temperature of the softmax vote, above 0. It should be tuned on training questions; the
        default of 1 is untuned, and close to a majority vote.
    n_bins
        Bins of the expected calibration error, at least 1.
    """

    attempts: int
    ks: tuple[int, ...]
    vote_ks: tuple[int, ...]
    tau: float = 1.0
    n_bins: int = 10

    def to_metadata(self) -> dict[str, Any]:
        """Return the metadata that `read_settings` reads as these settings, as JSON has it."""
        values = self._asdict().items()
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values}


_MEANT = {"repeats": "attempts", "n_repeats": "attempts", "num_repeats": "attempts"}


def read_settings(
    metadata: Mapping[str, Any], repeats: int | None = None, *, known: Collection[str] = ()
) -> AttemptSettings:
    """Read the settings of a task with several attempts per question.

    Parameters
    ----------
    metadata
        The task's metadata: ``attempts``, ``ks``, ``vote_ks``, ``tau`` and ``n_bins``. lm-eval puts
        the command line's ``--metadata`` here, but also every model argument: no model may have
        an argument of such a name.
    repeats
        The task's ``repeats``, which counts where ``attempts`` is not given. lm-eval's default of
        1, which many task files spell out, counts as not given.
    known
        Names in the metadata that mean something to others: arguments of the model.

    Returns
    -------
    AttemptSettings
        By default 16 attempts; k = 1, 2, 4, ... and the number of attempts; votes of all attempts.

    Raises
    ------
    UserError
        For anything else than whole numbers, fewer than one attempt, a k above the number of
        attempts, an option out of its range, or a name that is nearly one of these.

    Examples
    --------
    >>> read_settings({"attempts": 12}).ks
    (1, 2, 4, 8, 12)
    >>> read_settings({}, repeats=64)
    AttemptSettings(attempts=64, ks=(1, 2, 4, 8, 16, 32, 64), vote_ks=(64,), tau=1.0, n_bins=10)
    """
    check_names(metadata, known)
    attempts = metadata.get("attempts")
    if attempts is None:
        attempts = repeats if repeats not in (None, 1) else DEFAULT_ATTEMPTS
    attempts = _positive("attempts", attempts)
    powers = sorted({2**i for i in range(attempts.bit_length())} | {attempts})
    return AttemptSettings(
        attempts,
        ks=_ks("ks", metadata.get("ks"), attempts, default=powers),
        vote_ks=_ks("vote_ks", metadata.get("vote_ks"), attempts, default=[attempts]),
        tau=_above_zero("tau", metadata.get("tau", 1.0)),
        n_bins=_positive("n_bins", metadata.get("n_bins", 10)),
    )


def single_answer(metadata: Mapping[str, Any], *, known: Collection[str] = ()) -> AttemptSettings:
    """Read the settings of a task with one answer per question, whatever ``attempts`` says.

    A run of several tasks shares one ``--metadata``; its attempts are for those that sample.
    """
    check_names(metadata, known)
    options = {name: metadata[name] for name in ("tau", "n_bins") if name in metadata}
    return read_settings({**options, "attempts": 1})


def check_names(metadata: Mapping[str, Any], known: Collection[str] = ()) -> None:
    """Refuse names that are nearly ours; all others belong to the model or to the task.

    Raises
    ------
    UserError
        For such a name.

    Examples
    --------
    >>> check_names({"attempts": 4, "length": 8, "version": 1.0})
    >>> check_names({"atempts": 4}, known=["atempts"])
    """
    for name, value in metadata.items():
        if name in RESERVED or name in known:
            continue
        plain = str(name).lower().replace("-", "_").replace(" ", "_")
        near = get_close_matches(plain, RESERVED, n=1, cutoff=0.8)
        if plain == "k" and isinstance(value, Sequence):
            near = ["ks"]
        meant = _MEANT.get(plain) or next(iter(near), None)
        if meant is not None:
            raise UserError(
                f"metadata has {name}={value!r}, which means nothing here: write {meant} (the "
                f"names are {', '.join(RESERVED)})"
            )


def _ks(name: str, value: Any, attempts: int, *, default: Sequence[int]) -> tuple[int, ...]:
    if value is None:
        return tuple(default)
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise UserError(f"{name}={value!r} must be a list of whole numbers, for example [1, 8]")
    chosen = tuple(sorted({_positive(f"every k in {name}", k) for k in value}))
    if chosen[-1] > attempts:
        raise UserError(
            f"{name}={list(chosen)} asks for k={chosen[-1]} of {attempts} attempts: raise "
            f"attempts to {chosen[-1]} or drop that k"
        )
    return chosen


def _positive(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"{name} must be a whole number of at least 1, got {value!r}")
    return value


def _above_zero(name: str, value: Any) -> float:
    if not is_number(value) or not 0 < value < math.inf:
        raise UserError(f"{name} must be a number above 0, got {value!r}")
    return float(value)

"""How many attempts a task makes and for which k it reports pass@k."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lm_eval_ext.errors import UserError

DEFAULT_ATTEMPTS = 16
"""Attempts per question where neither the command line nor the task says."""


class AttemptSettings(NamedTuple):
    """Number of attempts per question and the list of k.

    Parameters
    ----------
    n_attempts
        Attempts per question, at least 1.
    ks
        The k of every pass@k, ascending, each from 1 to n_attempts.
    """

    n_attempts: int
    ks: tuple[int, ...]


def read_settings(metadata: Mapping[str, Any], repeats: int | None = None) -> AttemptSettings:
    """Read the settings of a task.

    Parameters
    ----------
    metadata
        The task's metadata. ``attempts`` is a whole number, ``ks`` a list of them. lm-eval puts
        the command line's ``--metadata`` here, but also every model argument: no model may have
        an argument of either name.
    repeats
        The task's ``repeats``, which counts where ``attempts`` is not given. lm-eval's default of
        1, which many task files spell out, counts as not given.

    Returns
    -------
    AttemptSettings
        16 attempts by default; k = 1, 2, 4, ... and the number of attempts by default.

    Raises
    ------
    UserError
        For anything else than whole numbers, fewer than one attempt, or a k above the number of
        attempts.

    Examples
    --------
    >>> read_settings({"attempts": 12})
    AttemptSettings(n_attempts=12, ks=(1, 2, 4, 8, 12))
    >>> read_settings({}, repeats=64).ks
    (1, 2, 4, 8, 16, 32, 64)
    """
    stated = metadata.get("attempts")
    if stated is None:
        stated = repeats if repeats not in (None, 1) else DEFAULT_ATTEMPTS
    n_attempts = _positive("attempts", stated)
    ks = metadata.get("ks")
    if ks is None:
        powers = {2**i for i in range(n_attempts.bit_length())}
        return AttemptSettings(n_attempts, tuple(sorted(powers | {n_attempts})))
    if isinstance(ks, str) or not isinstance(ks, Sequence) or not ks:
        raise UserError(f"ks={ks!r} must be a list of whole numbers, for example [1, 8]")
    chosen = tuple(sorted({_positive("every k in ks", k) for k in ks}))
    if chosen[-1] > n_attempts:
        raise UserError(
            f"ks={list(chosen)} asks for pass@{chosen[-1]} of {n_attempts} attempts: raise "
            f"attempts to {chosen[-1]} or drop that k"
        )
    return AttemptSettings(n_attempts, chosen)


def _positive(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"{name} must be a whole number of at least 1, got {value!r}")
    return value

"""Arguments: options of a command are declared here, and what is given is checked.

A failed check is one line that names the argument, its value and the remedy.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import field
from typing import Any, TypeGuard

from lm_eval_ext.errors import UserError


def option(text: str, default: Any = None, **metadata: Any) -> Any:
    """Return a field of a dataclass that is an option of a command.

    Parameters
    ----------
    text
        What the help says of it.
    default
        Its value where it is not given.
    metadata
        ``repeat``: an option of a tuple is given once per item, which then may hold commas;
        ``bare``: its value where it is given without one.
    """
    return field(default=default, metadata={"help": text, **metadata})


def required(text: str) -> Any:
    """Return a field of a dataclass that a command must be given."""
    return field(metadata={"help": text})


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value is a number; True and False are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_flag(name: str, value: object) -> None:
    """Raise `UserError` unless a value is True or False."""
    if not isinstance(value, bool):
        raise UserError(f"{name}={value!r} must be true or false")


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Return a question after the most similar of some names, or nothing.

    Examples
    --------
    >>> did_you_mean("layre", ("layer", "head"))
    ': did you mean layer?'
    >>> did_you_mean("x", ("layer", "head"))
    ''
    """
    close = difflib.get_close_matches(given, list(known), n=1)
    return f": did you mean {close[0]}?" if close else ""


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Raise `UserError` unless a value is one of some names.

    Examples
    --------
    >>> check_choice("unit", "layer", ("head", "block"))
    Traceback (most recent call last):
    lm_eval_ext.errors.UserError: unit='layer' is unknown: use one of head, block
    """
    choices = tuple(choices)
    if value not in choices:
        raise UserError(f"{name}={value!r} is unknown: use one of {', '.join(choices)}")


def check_at_least(settings: object, prefix: str = "", **bounds: float) -> None:
    """Raise `UserError` unless attributes are finite and at least their bounds; None passes.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> check_at_least(SimpleNamespace(limit=0), prefix="--", limit=1)
    Traceback (most recent call last):
    lm_eval_ext.errors.UserError: --limit=0 must be at least 1
    """
    for name, bound in bounds.items():
        value = getattr(settings, name)
        if value is not None and not bound <= value < math.inf:
            end = "" if value != math.inf else " and finite"
            raise UserError(f"{prefix}{name}={value} must be at least {bound}{end}")


def whole_number(name: str, value: object) -> int:
    """Read an argument that must be a whole number, or a text that is one.

    Examples
    --------
    >>> whole_number("seed", "7")
    7
    """
    try:
        number = int(value)  # type: ignore[call-overload]
    except (OverflowError, TypeError, ValueError) as error:
        raise UserError(f"{name}={value!r} must be a whole number") from error
    if isinstance(value, bool) or (isinstance(value, float) and number != value):
        raise UserError(f"{name}={value!r} must be a whole number")
    return number

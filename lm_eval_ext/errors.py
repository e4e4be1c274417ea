"""Errors a user can fix, and how they are shown."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType


class UserError(ValueError):
    """Bad input: one line that names the argument, the value and the remedy.

    Commands print the line and exit with a non-zero status; Python callers catch a `ValueError`.
    """


def show_user_errors_in_one_line(
    also: Callable[[BaseException], str | None] = lambda error: None,
) -> None:
    """Let a process that ends with a `UserError` print its message without a traceback.

    lm-eval's command line does not know our errors. Every other exception goes to the hook that
    was in place.

    Parameters
    ----------
    also
        Returns the line to show for an exception that is not a `UserError`, or None to leave it to
        the hook that was in place.
    """
    previous = sys.excepthook

    def excepthook(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        line = str(error) if isinstance(error, UserError) else also(error)
        if line is None:
            previous(kind, error, traceback)
            return
        print(f"{Path(sys.argv[0]).name or 'lm_eval'}: error: {line}", file=sys.stderr)

    sys.excepthook = excepthook

"""Errors a user can fix, and how a command line shows them."""

from __future__ import annotations


class UserError(ValueError):
    """Bad input: one line that names the argument, the value and the remedy.

    Commands print the line and exit with a non-zero status; Python callers catch a `ValueError`.
    """

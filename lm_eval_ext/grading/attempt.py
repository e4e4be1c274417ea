"""The verdict on one attempt."""

from __future__ import annotations

from typing import NamedTuple


class Attempt(NamedTuple):
    """One attempt after grading. Without an answer it is *invalid*: wrong, and without a vote."""

    answer: str | None  # in canonical form
    correct: bool
    reason: str | None = None  # why it is not, where that is known (``test 2: ZeroDivisionError``)

    @property
    def valid(self) -> bool:
        """Whether an answer was found."""
        return self.answer is not None


UNFINISHED_THOUGHT = Attempt(answer=None, correct=False, reason="unfinished thought")
"""The verdict on an attempt that ended inside its thought, whatever its last words are."""

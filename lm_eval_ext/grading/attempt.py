"""The verdict on one attempt."""

from __future__ import annotations

from typing import NamedTuple


class Attempt(NamedTuple):
    """One attempt after grading.

    Parameters
    ----------
    answer
        The extracted answer in canonical form, or None when none was found. An attempt without
        an answer is *invalid*: it counts as wrong and never votes.
    correct
        Whether the answer is right.
    reason
        Why it is not, in a few words (``timeout``, ``test 2: ZeroDivisionError``), where the
        grader knows more than that the answer differs.
    """

    answer: str | None
    correct: bool
    reason: str | None = None

    @property
    def valid(self) -> bool:
        """Whether an answer was found."""
        return self.answer is not None


UNFINISHED_THOUGHT = Attempt(answer=None, correct=False, reason="unfinished thought")
"""The verdict on an attempt that ended inside its thought, whatever its last words are."""

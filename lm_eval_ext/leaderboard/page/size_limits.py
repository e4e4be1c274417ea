"""How much of the runs a page keeps."""

from __future__ import annotations

from typing import NamedTuple

from lm_eval_ext.errors import UserError


class PageLimits(NamedTuple):
    """What bounds the size of a page. Statistics always rest on everything.

    Parameters
    ----------
    questions
        Questions of each task, the first ones, whose texts are kept; None for all.
    attempts
        Attempts of each question, the first ones, whose texts are kept; None for all.
    characters
        Longest text; the middle of a longer one is left out, and the page says so.
    token_score_attempts
        Attempts of each question, the first ones, whose scores per token are kept.
    """

    questions: int | None = None
    attempts: int | None = None
    characters: int = 4000
    token_score_attempts: int = 4

    def checked(self) -> PageLimits:
        """Return the limits.

        Raises
        ------
        UserError
            If one is no whole number, below 0, or so few characters that nothing would be left.
        """
        for name, value in self._asdict().items():
            lowest = 100 if name == "characters" else 0
            if value is None and name in ("questions", "attempts"):
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
                raise UserError(f"{name}={value!r} must be a whole number of at least {lowest}")
        return self

    def shortened(self, text: str) -> str:
        """Return a text without its middle where it is too long.

        Examples
        --------
        >>> len(PageLimits(characters=100).shortened("x" * 500))
        135
        """
        left_out = len(text) - self.characters
        if left_out <= 0:
            return text
        start = self.characters * 3 // 4
        end = self.characters - start
        return f"{text[:start]}\n[... {left_out} characters left out ...]\n{text[-end:]}"

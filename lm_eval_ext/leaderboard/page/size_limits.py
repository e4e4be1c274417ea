"""How much of the runs a page keeps."""

from __future__ import annotations

from dataclasses import dataclass

from lm_eval_ext.checks import check_at_least, option


@dataclass(frozen=True)
class PageLimits:
    """Size of the page; its statistics always rest on everything."""

    questions: int | None = option(
        "questions of each task, the first ones, whose texts are kept; by default all"
    )
    attempts: int | None = option(
        "attempts of each question, the first ones, whose texts are kept; by default all"
    )
    characters: int = option(
        "longest text; the middle of a longer one is left out, and the page says so", 4000
    )
    token_score_attempts: int = option(
        "attempts of each question, the first ones, whose scores per token are kept", 4
    )

    def __post_init__(self) -> None:
        check_at_least(self, questions=0, attempts=0, characters=100, token_score_attempts=0)

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

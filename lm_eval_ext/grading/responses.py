"""The responses to a question on their way from lm-eval's filters to the grader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval_ext.grading import Attempt
from lm_eval_ext.grading.attempt_details import record_of
from lm_eval_ext.models.generation import Generation, Thought


class Responses(list[Any]):
    """The filtered responses to a question, with their thoughts and, once graded, their verdicts.

    Parameters
    ----------
    filtered
        The responses.
    thoughts
        The thought of each, or None where it has none, as read before the filters.
    raw
        The responses before the filters.
    """

    def __init__(
        self, filtered: Sequence[Any], thoughts: Sequence[Thought | None], raw: Sequence[Any]
    ) -> None:
        super().__init__(filtered)
        self._records = [record_of(text) for text in self.texts]
        # A record tells what of the thought the filters have left.
        self.thoughts = [
            thought if record is None else record.thought
            for thought, record in zip(thoughts, self._records, strict=True)
        ]
        self.verdicts: list[Attempt] | None = None
        self._raw = raw

    @classmethod
    def of(cls, filtered: Sequence[Any]) -> Responses:
        """Return responses that may not have passed through `AttemptsTask.apply_filters`."""
        if isinstance(filtered, cls):
            return filtered
        return cls(filtered, [None] * len(filtered), [first_text(text) for text in filtered])

    @property
    def texts(self) -> list[Any]:
        """The responses themselves, where a filter pipeline ends with lists of one."""
        return [first_text(text) for text in self]

    @property
    def n_tokens(self) -> int:
        """How many tokens were generated, as far as it is known."""
        records = (record_of(text) for text in self.texts)
        return sum(len(record.token_ids) for record in records if record is not None)

    @property
    def unfinished(self) -> list[bool]:
        """Whether each ended inside its thought, and so has no answer."""
        return [thought is not None and not thought.finished for thought in self.thoughts]

    def to_grade(
        self, doc: Mapping[str, Any]
    ) -> tuple[list[str | None], Mapping[str, Any], list[str | None]]:
        """Return what a grader is given: the texts, the record and why each attempt ended."""
        return (
            [
                str(text) if thought is None else thought.answer_in(str(text))
                for text, thought in zip(self.texts, self.thoughts, strict=True)
            ],
            doc,
            [
                record.finish_reason if record and keeps_end(text, raw) else None
                for text, raw, record in zip(self.texts, self._raw, self._records, strict=True)
            ],
        )


def keeps_end(filtered: Any, raw: Any) -> bool:
    """Return whether a filter left the end of a response, which the token limit may have cut."""
    return str(raw).endswith(str(filtered))


def with_record(filtered: Any, response: Any) -> Any:
    """Give a filtered response the record of the response it was made from."""
    if not isinstance(response, Generation):
        return filtered
    if isinstance(filtered, str):
        return response.with_text(filtered)
    if isinstance(filtered, list):
        return [with_record(text, response) for text in filtered]
    return filtered


def first_text(filtered: Any) -> Any:
    """Return the response itself where a filter pipeline ends with a list of one."""
    return filtered[0] if isinstance(filtered, list) and filtered else filtered

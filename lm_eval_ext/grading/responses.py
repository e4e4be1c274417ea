"""The responses of a task on their way from lm-eval to the grader, and their thoughts.

Of the thoughts, our own wrappers know from the tokens. Of other models there is the prompt and the
text, and the text may lack the tags: lm-eval removes thoughts where a model has a
``think_end_token``, decoding drops special tokens, and chat APIs render the prompt themselves.
Where it cannot be known, a response is taken for one without a thought, and the run says so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from lm_eval_ext.grading import Attempt
from lm_eval_ext.grading.attempt_details import record_of
from lm_eval_ext.models.generation import Generation, Thought
from lm_eval_ext.models.thoughts import ThoughtFormats, ThoughtTags

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

logger = logging.getLogger(__name__)


class Responses(list[Any]):
    """The filtered responses to a question, with their thoughts and, once graded, their verdicts.

    ``raw`` are those before the filters, where ``thoughts`` were read: None for a response without.
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


class ResponseThoughts:
    """Reads the thoughts of a task's responses; lm-eval puts the model's arguments in metadata."""

    def __init__(self, task: str, metadata: Mapping[str, Any]) -> None:
        self._task = task
        self._lm: Any = None
        self._dropped: list[ThoughtTags] = []
        # Either is the argument that names a model.
        self._knows_arguments = bool({"pretrained", "model"} & metadata.keys())
        self._set_tags(metadata.get("think_start_token"), metadata.get("think_end_token"))

    def _set_tags(self, opening: Any, closing: Any) -> None:
        self._removes_thoughts = closing is not None
        tags = (tag if isinstance(tag, str) else None for tag in (opening, closing))
        self._formats = ThoughtFormats(*tags)

    def know_model(self, chat_template: Any) -> None:
        """Learn about the model from what lm-eval passes to a task: a method of it, or None."""
        self._lm = getattr(chat_template, "__self__", None)
        if getattr(self._lm, "think_end_token", None) is not None:
            self._set_tags(getattr(self._lm, "think_start_token", None), self._lm.think_end_token)
        tokenizer = getattr(self._lm, "tokenizer", None)
        self._dropped = [one for one in self._formats.all if _drops(tokenizer, one.closing)]

    def read(
        self, instances: Sequence[Instance], prefix_of: Callable[[Any], str | None]
    ) -> list[list[Thought | None]]:
        """Return the thought of every response, None for those without one.

        ``prefix_of`` gives, for a question's record, the beginning of the answer that ends its
        prompt.
        """
        reasons: set[str] = set()
        thoughts = []

        @cache  # one pass over all responses per tag, not per question
        def shows(tag: str) -> bool:
            return any(tag in str(one) for each in instances for one in each.resps)

        for instance in instances:
            prompt = instance.arguments[0]
            opened = None
            if isinstance(prompt, str):
                prefix = prefix_of(instance.doc) or ""
                opened = self._formats.opened_by(prompt, prefix=prefix)
            hidden = self._why_hidden(prompt, opened, shows)
            found = [self._thought(one, None if hidden else opened) for one in instance.resps]
            thoughts.append(found)
            if hidden and any(
                thought is None and record_of(response) is None
                for response, thought in zip(instance.resps, found, strict=True)
            ):
                reasons.add(hidden)
        for reason in sorted(reasons):
            logger.warning(
                "%s: %s, so whether a response ended inside its thought cannot be seen: such ones "
                "are graded like others. See docs/thoughts.md",
                self._task,
                reason,
            )
        return thoughts

    def _thought(self, response: Any, opened: ThoughtTags | None) -> Thought | None:
        record = record_of(response)
        if record is not None:
            return record.thought
        span = self._formats.find(str(response), opened)
        return None if span is None else Thought(span.finished)

    def _why_hidden(
        self, prompt: Any, opened: ThoughtTags | None, shows: Callable[[str], bool]
    ) -> str | None:
        """Return why a thought in the responses may leave no trace; `shows` looks for a tag."""
        if not isinstance(prompt, str):
            return "the server renders the prompts"
        if opened is not None and self._removes_thoughts:
            return "the model removes thoughts (think_end_token)"
        if opened is None and self._formats.switched_off_by(prompt):
            return None
        # Where the prompt opens no thought, a response may.
        for tags in self._dropped:
            if opened in (None, tags):
                return f"{tags.closing} is a special token and left out of the text"
        if opened is None or self._lm is not None:
            return None
        if self._knows_arguments and not opened.is_control:
            return None
        # The tags of one response show that those of others would be seen.
        if shows(opened.closing):
            return None
        return f"no response has a {opened.closing}"


def _drops(tokenizer: Any, tag: str) -> bool:
    """Return whether a tokenizer of transformers leaves a tag out when it decodes."""
    if not hasattr(tokenizer, "all_special_tokens"):
        return False
    ids = tokenizer(tag, add_special_tokens=False)["input_ids"]
    shown = tokenizer.decode(ids, skip_special_tokens=True)
    return tag in tokenizer.decode(ids) and tag not in shown

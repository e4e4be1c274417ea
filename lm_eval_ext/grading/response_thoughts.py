"""Which responses of a task ended inside their thought, for models of any type.

Our own wrappers know from the tokens. Of other models there is the prompt and the text, and the
text may lack the tags: lm-eval removes thoughts where a model has a ``think_end_token``, decoding
drops special tokens, and chat APIs render the prompt themselves. Where it cannot be known, a
response is taken for one without a thought, and the run says so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from lm_eval_ext.models.generation import Generation, Thought
from lm_eval_ext.models.thoughts import ThoughtFormats, ThoughtTags

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

logger = logging.getLogger(__name__)


class ResponseThoughts:
    """Reads the thoughts of a task's responses.

    Parameters
    ----------
    task
        Name of the task, for messages.
    metadata
        Its metadata, where lm-eval puts the model's arguments.
    """

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
        """Learn about the model from the function that renders its chats, if there is one.

        Parameters
        ----------
        chat_template
            What lm-eval passes to a task: a method of the model, or None.
        """
        self._lm = getattr(chat_template, "__self__", None)
        if getattr(self._lm, "think_end_token", None) is not None:
            self._set_tags(getattr(self._lm, "think_start_token", None), self._lm.think_end_token)
        tokenizer = getattr(self._lm, "tokenizer", None)
        self._dropped = [one for one in self._formats.all if _drops(tokenizer, one.closing)]

    def read(
        self, instances: Sequence[Instance], prefix_of: Callable[[Any], str | None]
    ) -> list[list[Thought | None]]:
        """Return the thought of every response, None for those without one.

        Parameters
        ----------
        instances
            The questions with their responses.
        prefix_of
            From a question's record to what stands at the end of its prompt as the beginning of
            the answer.
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
            if hidden and not all(map(_is_known, instance.resps, found)):
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
        if isinstance(response, Generation) and response.record.token_ids:
            return response.record.thought
        span = self._formats.find(str(response), opened)
        return None if span is None else Thought(span.finished)

    def _why_hidden(
        self, prompt: Any, opened: ThoughtTags | None, shows: Callable[[str], bool]
    ) -> str | None:
        """Return why a thought in the responses to a prompt may leave no trace, or None.

        `shows` tells whether some response of the run holds a tag.
        """
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


def _is_known(response: Any, thought: Thought | None) -> bool:
    return thought is not None or (
        isinstance(response, Generation) and bool(response.record.token_ids)
    )


def _drops(tokenizer: Any, tag: str) -> bool:
    """Return whether a tokenizer of transformers leaves a tag out when it decodes."""
    if not hasattr(tokenizer, "all_special_tokens"):
        return False
    ids = tokenizer(tag, add_special_tokens=False)["input_ids"]
    return tag in tokenizer.decode(ids) and tag not in tokenizer.decode(
        ids, skip_special_tokens=True
    )

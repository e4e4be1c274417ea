"""End thoughts that take too many tokens, so that an answer follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from lm_eval_ext.models.thoughts import ThoughtFormats, ThoughtTags

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Forced(NamedTuple):
    """Tokens to put next, none where the model may choose, and at which length to check again."""

    token_ids: tuple[int, ...]
    due: int


class ThinkingBudget:
    """Forces the closing tag on a thought that has reached `n_tokens`.

    They count from the beginning of the completion, or after its opening tag where it has one.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, formats: ThoughtFormats, n_tokens: int
    ) -> None:
        self.n_tokens = n_tokens
        self._tokenizer = tokenizer
        self._formats = formats

    def check(self, token_ids: Sequence[int], opened: ThoughtTags | None) -> Forced:
        """Return what follows an attempt's tokens; first called at `n_tokens` of them."""
        text = self._tokenizer.decode(list(token_ids))
        thought = self._formats.find(text, opened)
        if thought is None or thought.finished:
            # A thought that begins after this one has a budget of its own.
            return Forced((), len(token_ids) + self.n_tokens)
        start = n_tokens_until(self._tokenizer, token_ids, thought.start)
        due = start + self.n_tokens
        if len(token_ids) < due:
            return Forced((), due)
        end = self._tokenizer(thought.tags.end, add_special_tokens=False)["input_ids"]
        return Forced(tuple(map(int, end)), len(token_ids) + len(end) + self.n_tokens)


def n_tokens_until(
    tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int], offset: int
) -> int:
    """Return how many tokens it takes to write the first characters of a text."""
    low, high = 0, len(token_ids)
    while low < high:
        middle = (low + high) // 2
        if len(tokenizer.decode(list(token_ids[:middle]))) >= offset:
            high = middle
        else:
            low = middle + 1
    return low

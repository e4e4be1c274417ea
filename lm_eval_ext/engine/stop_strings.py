"""Notice that a stop string has just been completed, across token borders, after the thought."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lm_eval_ext.models.thoughts import ThoughtFormats, ThoughtTags

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@lru_cache(maxsize=16)
def _completing_tokens(
    tokenizer: PreTrainedTokenizerBase, size: int, last: frozenset[str]
) -> NDArray[np.bool_]:
    """Return, by token id, whether a token may complete a stop string that ends in one of `last`.

    Cached: every group of attempts asks, and decoding a vocabulary of 49,152 takes 0.4 seconds. The
    size is an argument because tokens can be added to a tokenizer.
    """
    if not last:
        return np.zeros(size, dtype=bool)
    if any(not c.isascii() or (c.isspace() and c != "\n") for c in last):
        # Tokenizers drop spaces and split characters when a token is decoded alone.
        return np.ones(size, dtype=bool)
    texts = tokenizer.batch_decode([[i] for i in range(size)])
    return np.fromiter(
        (any(character in text for character in last) for text in texts), dtype=bool, count=size
    )


class StopStrings:
    """Detects stop strings in the decoded text of growing token sequences.

    They do not count inside a thought: reasoning is full of blank lines and new questions.

    Decoding every row after every token would cost more than a small model's forward pass. Only a
    token that contains the last character of a stop string can complete it, so only such rows are
    decoded. Thoughts are marked in the given formats, by default those of published models.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        stop: Sequence[str],
        formats: ThoughtFormats | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._formats = formats or ThoughtFormats()
        self._stop = tuple(string for string in stop if string)
        last = frozenset(string[-1] for string in self._stop)
        self._completing = _completing_tokens(tokenizer, len(tokenizer), last)
        # Every token but a special one carries at least one byte of the text, so this many tokens
        # hold the longest stop string with room for the token that overhangs it.
        self.window = max((len(s.encode("utf-8")) for s in self._stop), default=0) + 8

    def candidates(self, newest: NDArray[np.int64]) -> NDArray[np.intp]:
        """Return the rows whose newest token, shape (n_rows,), may have completed a stop string."""
        if not self._stop:
            return np.empty(0, dtype=np.intp)
        # Padded vocabularies have ids beyond the tokenizer's; such a token decodes to nothing.
        known = newest < len(self._completing)
        return np.flatnonzero(known & self._completing[np.where(known, newest, 0)])

    def completed(self, token_ids: Sequence[int], opened: ThoughtTags | None = None) -> bool:
        """Return whether a stop string stands at or near the end of a sequence."""
        text = self._tokenizer.decode(list(token_ids[-self.window :]))
        if not any(string in text for string in self._stop):
            return False
        whole = self._tokenizer.decode(list(token_ids))
        thought = self._formats.find(whole, opened)
        if thought is None:
            return True
        answer = whole[thought.end :]
        return any(string in answer for string in self._stop)

    def inside_thought(self, token_ids: Sequence[int], opened: ThoughtTags | None = None) -> bool:
        """Return whether a sequence ends inside a thought."""
        thought = self._formats.find(self._tokenizer.decode(list(token_ids)), opened)
        return thought is not None and not thought.finished

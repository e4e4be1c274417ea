"""The text of each token of a response, logged so that scores per token can be shown over it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

TOKEN_TEXTS = "token_texts"
"""Name among the ``extra`` of a generation."""


class TokenTexts:
    """The text that each token adds, special tokens by their name.

    A token is decoded after an ordinary one, since many tokenizers drop the space at the beginning
    of a text. A character that is spread over several tokens gives a replacement character for
    each; the other texts together are the response.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._anchor = list(tokenizer.encode("a", add_special_tokens=False)[-1:])
        self._skipped = len(self._decoded(self._anchor))
        self._known: dict[int, str] = {}

    def of(self, token_ids: Iterable[int]) -> list[str]:
        """Return the text of each token."""
        return [self._text(i) for i in token_ids]

    def _text(self, token_id: int) -> str:
        if token_id not in self._known:
            self._known[token_id] = self._decoded([*self._anchor, token_id])[self._skipped :]
        return self._known[token_id]

    def _decoded(self, token_ids: list[int]) -> str:
        return str(self._tokenizer.decode(token_ids, clean_up_tokenization_spaces=False))

"""The text of each token of a response, logged so that scores per token can be shown over it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

TOKEN_TEXTS = "token_texts"
"""Name among the ``extra`` of a generation."""


def token_texts(tokenizer: Any, token_ids: Sequence[int]) -> list[str]:
    """Return what each token adds to a text, special tokens by their name.

    A token is decoded behind an ordinary one, since many tokenizers drop the space at the beginning
    of a text. A character that is spread over several tokens gives a replacement character for
    each, so that joined texts are the response except for those.

    Parameters
    ----------
    tokenizer
        A tokenizer of transformers.
    token_ids
        The tokens, in order.
    """
    anchor = tokenizer.encode("a", add_special_tokens=False)[-1:]
    skipped = len(_decoded(tokenizer, anchor))
    by_id = {i: _decoded(tokenizer, [*anchor, i])[skipped:] for i in set(token_ids)}
    return [by_id[i] for i in token_ids]


def _decoded(tokenizer: Any, token_ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(token_ids), clean_up_tokenization_spaces=False))

"""Whether a draft reads and predicts the same tokens as its target."""

from __future__ import annotations

from collections.abc import Mapping

from lm_eval_ext.errors import UserError


def vocabulary_difference(target: Mapping[str, int], draft: Mapping[str, int]) -> str | None:
    """Return how a draft's vocabulary differs from the target's, or None if it does not.

    Parameters
    ----------
    target, draft
        Token ids by token, as ``tokenizer.get_vocab()`` gives them.

    Examples
    --------
    >>> vocabulary_difference({"a": 0, "b": 1}, {"a": 0, "b": 1}) is None
    True
    >>> vocabulary_difference({"a": 0, "b": 1}, {"a": 1, "b": 0})
    "token 'a' has id 0 in the target and 1 in the draft (2 of 2 tokens differ)"
    """
    if target == draft:
        return None
    different = [token for token, i in target.items() if draft.get(token) != i]
    different += [token for token in draft if token not in target]

    def place(vocabulary: Mapping[str, int], token: str) -> str:
        return str(vocabulary[token]) if token in vocabulary else "none"

    token = different[0]
    return (
        f"token {token!r} has id {place(target, token)} in the target and {place(draft, token)} in "
        f"the draft ({len(different)} of {len(target.keys() | draft.keys())} tokens differ)"
    )


def check_vocabulary(
    name: str,
    target: Mapping[str, int],
    draft: Mapping[str, int] | None,
    *,
    target_width: int,
    draft_width: int,
) -> None:
    """Refuse a draft whose tokens are not the target's.

    Distributions are compared token id by token id, so every id must mean the same token. Logit
    widths may differ beyond the vocabulary: that is padding.

    Parameters
    ----------
    name
        The draft as the user gave it.
    target, draft
        Token ids by token; None for a draft that comes without a tokenizer, of which only the
        width is checked.
    target_width, draft_width
        Number of logits of each model.

    Raises
    ------
    UserError
        If they differ.
    """
    remedy = "use a draft of the same tokenizer, or train one (lm-eval-ext train drafts)"
    if draft is not None:
        difference = vocabulary_difference(target, draft)
        if difference is not None:
            raise UserError(f"drafts={name}: {difference}; {remedy}")
    # Some published models have fewer logits than their tokenizer has entries; a draft may too.
    needed = min(target_width, max(target.values(), default=-1) + 1)
    if draft_width < needed:
        raise UserError(
            f"drafts={name} predicts {draft_width} tokens, the target's vocabulary has {needed}; "
            f"{remedy}"
        )

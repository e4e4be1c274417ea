"""Which draft learns from which prompts, by seed alone."""

from __future__ import annotations

import random
from typing import get_args

from lm_eval_ext.checks import check_choice
from lm_eval_ext.data.question_text import text_hash
from lm_eval_ext.errors import UserError
from lm_eval_ext.training.drafts.settings import Split


def split_prompts(
    n_prompts: int, n_drafts: int, split: Split, *, seed: int
) -> list[tuple[int, ...]]:
    """Give every draft the numbers of its prompts.

    Parameters
    ----------
    n_prompts, n_drafts
        How many there are of each, at least 1.
    split
        ``"disjoint"``: each prompt belongs to one draft, sizes differ by one at most;
        ``"same"``: every draft has all prompts; ``"bootstrap"``: every draft has as many as there
        are, drawn with replacement.

    Returns
    -------
    list of tuple of int
        Sorted numbers for each draft; with ``"bootstrap"`` a number may occur several times.

    Raises
    ------
    UserError
        For an unknown split, or fewer prompts than drafts to divide them among.

    Examples
    --------
    >>> shards = split_prompts(7, 2, "disjoint", seed=0)
    >>> sorted(shards[0] + shards[1])
    [0, 1, 2, 3, 4, 5, 6]
    >>> split_prompts(3, 2, "same", seed=0)
    [(0, 1, 2), (0, 1, 2)]
    """
    check_choice("split", split, get_args(Split))
    if n_drafts < 1:
        raise UserError(f"num_drafts={n_drafts} must be at least 1")
    if n_prompts < (n_drafts if split == "disjoint" else 1):
        raise UserError(
            f"{n_prompts} prompts cannot be divided among {n_drafts} drafts: give more prompts"
        )
    numbers = range(n_prompts)
    if split == "same":
        return [tuple(numbers) for _ in range(n_drafts)]
    if split == "bootstrap":
        return [
            tuple(sorted(random.Random(f"{seed}:bootstrap:{k}").choices(numbers, k=n_prompts)))
            for k in range(n_drafts)
        ]
    shuffled = list(numbers)
    random.Random(f"{seed}:disjoint").shuffle(shuffled)
    return [tuple(sorted(shuffled[k::n_drafts])) for k in range(n_drafts)]


def prompt_hash(prompt: str) -> str:
    """Return the name of a prompt in files: 16 hexadecimal digits of its SHA-256.

    Examples
    --------
    >>> prompt_hash("2+2=")
    '20243c49d24c4af1'
    """
    return text_hash(prompt)

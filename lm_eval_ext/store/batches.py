"""Which attempts are generated together."""

from __future__ import annotations

from collections.abc import Sequence

from lm_eval_ext.engine.request import AttemptRequest
from lm_eval_ext.models.digests import digest
from lm_eval_ext.store.key import AttemptKey

# Attempts of a batch per row decoded at once, where rows that finish are refilled from the batch:
# the more, the rarer the moment at which the last rows run alone.
_ROWS_PER_BATCH = 32


def batch_size(rows: int, *, whole: bool) -> int:
    """Return the number of attempts of a batch.

    Parameters
    ----------
    rows
        Attempts decoded at once.
    whole
        Whether all of a batch are decoded at once, so that it can be repeated exactly.
    """
    return rows if whole else _ROWS_PER_BATCH * rows


def batches(
    places: Sequence[int], attempts: Sequence[AttemptRequest], size: int
) -> list[list[int]]:
    """Divide attempts into batches: long prompts first, the attempts of a prompt together.

    Returns
    -------
    list of list of int
        The division depends on the attempts and the size alone, not on what is in a store.
    """
    order = sorted(places, key=lambda i: (-len(attempts[i].prompt_ids), attempts[i].prompt_ids, i))
    return [order[start : start + size] for start in range(0, len(order), size)]


def batch_name(keys: Sequence[AttemptKey]) -> str:
    """Return the name of a batch: the attempts in it, in their order."""
    return digest("batch", *(key.name for key in keys))[:16]

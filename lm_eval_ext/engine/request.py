"""What the engine is asked for and what it gives back: one attempt each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lm_eval_ext.models.generation import FinishReason, TokenStatistics
from lm_eval_ext.models.thoughts import ThoughtTags

if TYPE_CHECKING:
    import torch


class Vectors(NamedTuple):
    """Embeddings to inject, drawn when the attempt begins: those of a whole run would not fit.

    Every call of `draw` returns the same, of shape (length, hidden), in the space of the embedding
    module's output; float32 on the CPU.
    """

    length: int
    draw: Callable[[], torch.Tensor]


@dataclass(frozen=True, eq=False)
class AttemptRequest:
    """One attempt to sample.

    The model reads ``shared_ids``, then ``vectors``, then ``private_ids``, and continues from
    there. Attempts with equal ``shared_ids``, which may be empty, share their prefill and the
    attention over it; there must be a vector or a private token to continue from.

    Parameters
    ----------
    stream
        Source of the attempt's uniforms in [0, 1), one per chosen token.
    opened
        Tags of the thought that the prompt leaves open, or None.
    """

    shared_ids: tuple[int, ...]
    private_ids: tuple[int, ...]
    stream: np.random.Generator
    vectors: Vectors | None = None
    opened: ThoughtTags | None = None

    def __post_init__(self) -> None:
        if self.private_length == 0:
            raise ValueError(
                "AttemptRequest: private_ids and vectors are both empty; "
                "move at least the last prompt token from shared_ids to private_ids"
            )

    @property
    def n_vectors(self) -> int:
        """Number of injected vectors."""
        return 0 if self.vectors is None else self.vectors.length

    @property
    def private_length(self) -> int:
        """Positions between the shared part and the first generated token."""
        return self.n_vectors + len(self.private_ids)

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """The prompt's real tokens, without the vectors."""
        return self.shared_ids + self.private_ids


@dataclass(frozen=True, eq=False)
class AttemptResult:
    """One finished attempt.

    Parameters
    ----------
    token_ids
        Generated tokens; the end-of-sequence token and the tokens of a stop string are included.
    readout
        Logits that a `lm_eval_ext.engine.follow_up.FollowUp` asked for, or None.
    """

    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    statistics: TokenStatistics | None
    readout: tuple[float, ...] | None = None


def statistics_from_columns(columns: NDArray[np.float32]) -> TokenStatistics:
    """Split an array of shape (n_tokens, 4) into the named per-token statistics."""
    return TokenStatistics(*(np.ascontiguousarray(columns[:, i]) for i in range(4)))


def common_prefix_split(
    token_ids: Sequence[int], at: int | None = None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Split a prompt before the token `at`, by default the last, into shared and private tokens.

    Examples
    --------
    >>> common_prefix_split([5, 6, 7])
    ((5, 6), (7,))
    >>> common_prefix_split([5, 6, 7], at=1)
    ((5,), (6, 7))
    """
    cut = len(token_ids) - 1 if at is None else at
    return tuple(token_ids[:cut]), tuple(token_ids[cut:])


def n_common(
    first: Sequence[int] | NDArray[np.int64], second: Sequence[int] | NDArray[np.int64]
) -> int:
    """Return how many tokens two sequences have in common at their start.

    Examples
    --------
    >>> n_common((5, 6, 7), (5, 6, 8, 9))
    2
    """
    n = min(len(first), len(second))
    differ = np.flatnonzero(np.asarray(first[:n]) != np.asarray(second[:n]))
    return int(differ[0]) if len(differ) else n

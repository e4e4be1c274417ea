"""Random soft prompts as token ids beyond the vocabulary: only ids travel, vectors are redrawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from lm_eval_ext.engine.random_stream import attempt_stream


@dataclass(frozen=True)
class VirtualVocabulary:
    """Ids from ``first`` upward, each with a vector of its own.

    The vector of an id is a function of (seed, id) and of the frozen moments, so rollout, old and
    new log-prob pass, and a run resumed elsewhere, all see the same one. No two rollouts share an
    id: number n has the ``length`` ids from ``first + n * length``.

    Parameters
    ----------
    first
        Number of rows of the model's embedding table; the first virtual id.
    mean, std
        Moments of the entries, in the space of the embedding module's output; see
        `lm_eval_ext.models.embedding_statistics`.

    Examples
    --------
    >>> vocabulary = VirtualVocabulary(first=768, length=2, hidden=4, mean=0.0, std=1.0, seed=0)
    >>> vocabulary.ids(3)
    [774, 775]
    >>> rows = vocabulary.rows([774, 775])
    >>> torch.equal(rows[1:], vocabulary.rows([775]))
    True
    """

    first: int
    length: int
    hidden: int
    mean: float
    std: float
    seed: int

    def ids(self, rollout: int) -> list[int]:
        """Return the ids of one rollout, by its number in the run."""
        start = self.first + rollout * self.length
        return list(range(start, start + self.length))

    def rows(self, ids: Sequence[int]) -> torch.Tensor:
        """Return the vectors of virtual ids, shape (n, hidden), float32 on the CPU."""
        noise = np.empty((len(ids), self.hidden), dtype=np.float32)
        for row, virtual_id in zip(noise, ids, strict=True):
            stream = attempt_stream(self.seed, "", virtual_id, purpose="virtual vocabulary")
            stream.standard_normal(out=row, dtype=np.float32)
        return self.mean + self.std * torch.from_numpy(noise)

    def is_virtual(self, ids: torch.Tensor) -> torch.Tensor:
        """Return which ids are virtual, a bool tensor of the same shape."""
        return ids >= self.first


@contextmanager
def virtual_ids_embedded(
    model: PreTrainedModel, vocabulary: VirtualVocabulary | None
) -> Iterator[None]:
    """Let a model read virtual ids, by two hooks on its input embeddings.

    The module never sees them: they become id 0 on the way in, and their positions of the output
    are replaced. No gradient flows from there into the table.
    """
    if vocabulary is None:
        yield
        return
    pending: list[torch.Tensor] = []

    def hide(module: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        (ids,) = args
        pending[:] = [ids]
        return (ids.masked_fill(vocabulary.is_virtual(ids), 0),)

    def insert(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        ids = pending.pop()
        virtual = vocabulary.is_virtual(ids)
        if not bool(virtual.any()):
            return output
        rows = vocabulary.rows(ids[virtual].tolist()).to(output)
        return output.masked_scatter(virtual.unsqueeze(-1), rows)

    embeddings = model.get_input_embeddings()
    handles = [embeddings.register_forward_pre_hook(hide), embeddings.register_forward_hook(insert)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

"""Ask vLLM's workers about the embeddings of the model they hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lm_eval_ext.models.embedding_statistics import EmbeddingStatistics

if TYPE_CHECKING:
    from lm_eval_ext.vllm_engine.engine_loop import EngineLoop
    from lm_eval_ext.vllm_engine.replicas import Replicas


def worker_embedding_statistics(engine: EngineLoop | Replicas) -> EmbeddingStatistics:
    """Return the moments of the embedding table; see `EmbeddingStatistics`."""
    n_rows = int(engine.facts()["vocab_size"])
    mean, std, *by_dim = _first(engine.ask("lm_eval_ext_moments", n_rows))
    mean_per_dim, std_per_dim = (
        torch.from_numpy(np.frombuffer(values, np.float64).copy()) for values in by_dim
    )
    return EmbeddingStatistics(mean, std, mean_per_dim, std_per_dim, n_rows)


def worker_embeddings(engine: EngineLoop | Replicas, token_ids: Sequence[int]) -> torch.Tensor:
    """Return the embeddings of tokens, shape (n, hidden), float32 on the CPU."""
    packed = _first(engine.ask("lm_eval_ext_embeddings", list(token_ids)))
    rows = np.frombuffer(packed, np.float32).reshape(len(token_ids), -1)
    return torch.from_numpy(rows.copy())


def _first(answers: Sequence[Any]) -> Any:
    """Return the answer of a worker that has one."""
    return next(answer for answer in answers if answer)

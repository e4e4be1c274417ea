"""Mean and variance of a model's token embeddings, in the space the model reads them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from transformers import PreTrainedModel

_ROWS_PER_SLICE = 4096


class EmbeddingStatistics(NamedTuple):
    """Mean and standard deviation of all entries of the embedding table, and per dimension.

    Those per dimension are float64 tensors of shape (hidden,), over all `n_rows` of the table.
    """

    mean: float
    std: float
    mean_per_dim: torch.Tensor
    std_per_dim: torch.Tensor
    n_rows: int


@torch.inference_mode()
def embedding_statistics(model: PreTrainedModel) -> EmbeddingStatistics:
    """Compute the moments of the embedding module's output over the whole vocabulary.

    The output, not the weight: Gemma multiplies by sqrt(hidden) inside the module, so its raw
    table is in another space than the vectors the first layer expects. Granite multiplies after
    the module, where injected vectors are multiplied too.
    """
    module = model.get_input_embeddings()
    n_rows = int(module.num_embeddings)
    total = square = torch.zeros((), dtype=torch.float64)
    for first in range(0, n_rows, _ROWS_PER_SLICE):
        ids = torch.arange(first, min(first + _ROWS_PER_SLICE, n_rows), device=model.device)
        rows = module(ids).float().cpu().double()
        total = total + rows.sum(dim=0)
        square = square + rows.square().sum(dim=0)
    mean_per_dim = total / n_rows
    second_per_dim = square / n_rows
    mean = mean_per_dim.mean()
    variance = (second_per_dim.mean() - mean.square()).clamp_min(0)
    std_per_dim = (second_per_dim - mean_per_dim.square()).clamp_min(0).sqrt()
    return EmbeddingStatistics(
        float(mean), float(variance.sqrt()), mean_per_dim, std_per_dim, n_rows
    )

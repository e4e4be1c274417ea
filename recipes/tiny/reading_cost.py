r"""What attention costs when it has to pay for what it reads.

A head that has nothing to say about a token must still spread its attention over something: the
weights of softmax add up to 1. It can only fall silent by looking at a position whose value vector
is small. The reading cost of a layer makes silence worth while:

.. math:: \frac{1}{H T} \sum_{h,t,j} \alpha^{(h)}_{t,j} \frac{\|v^{(h)}_j\|^2}{\bar v^{(h)}}
          \qquad \bar v^{(h)} = \frac{1}{T} \sum_j \|v^{(h)}_j\|^2

is the mean squared length of the values that are read, in units of those that are there. It is 1
for even attention, does not change when all values of a head are scaled, and names no position:
where a head rests is its own choice.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from lm_eval_ext.engine.attention_override import attention_override

ATTENTION_NAME = "lm_eval_ext_reading_cost"

_costs: list[torch.Tensor] = []


def _reading_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend causally to rows without padding, and note the layer's reading cost."""
    rows, heads, length, size = query.shape
    groups = key.shape[1]
    scale = size**-0.5 if scaling is None else scaling
    # Query heads that share keys lie one under another: (rows, groups, heads of a group * length).
    stacked = query.reshape(rows, groups, -1, size)
    scores = (stacked @ key.transpose(-1, -2)).view(rows, groups, -1, length, length) * scale
    future = torch.ones(length, length, dtype=torch.bool, device=query.device).triu(1)
    weights = scores.masked_fill(future, -torch.inf).softmax(dim=-1)
    lengths = value.pow(2).sum(-1)
    read = (weights.mean(dim=3) * lengths[:, :, None]).sum(-1)
    _costs.append((read / lengths.mean(dim=-1)[:, :, None]).mean())
    output = weights.view(rows, groups, -1, length) @ value
    return output.view(rows, heads, length, size).transpose(1, 2).contiguous(), None


def costed_logits(model: PreTrainedModel, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits of full rows, and the reading cost, a scalar, averaged over layers.

    Parameters
    ----------
    model
        A model whose attention is causal, without sliding window or soft cap.
    ids
        Shape (n_rows, length), without padding.

    Returns
    -------
    tuple of Tensor
        Logits of shape (n_rows, length, vocabulary), equal to those of the model's own attention,
        and the cost; both carry gradients.
    """
    _costs.clear()
    try:
        with attention_override(model, name=ATTENTION_NAME, attention=_reading_attention):
            logits = model(input_ids=ids, use_cache=False).logits
        return logits, torch.stack(_costs).mean()
    finally:
        _costs.clear()

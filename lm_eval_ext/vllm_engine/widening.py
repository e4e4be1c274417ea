"""Widen the attention heads of a Llama without changing what it computes.

Some attention kernels have no heads of 16, which the shipped models have: that of vLLM's CPU build
begins at 32. With zeros in the new dimensions queries, keys and values compute what they did;
rotary pairs move to the dimensions where the wider head turns them by the same angle.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lm_eval_ext.errors import UserError

if TYPE_CHECKING:
    import torch

HEAD_DIM = 64
"""Four times 16: the root of the ratio, which scales queries, is then a power of two, and exact."""


def write_widened(source: str | Path, folder: str | Path, *, head_dim: int = HEAD_DIM) -> Path:
    """Write a copy of a Llama with wider heads and the same logits, tokenizer included.

    Where the ratio of the widths is a power of 4 the copy's weights are exact; elsewhere those of
    queries are rounded.

    Raises
    ------
    UserError
        If the model is not a Llama with plain rotary embeddings, or the width is not a multiple.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    config = model.config
    plain = config.model_type == "llama" and not getattr(config, "attention_bias", False)
    if not plain or config.rope_parameters["rope_type"] != "default":
        raise UserError(f"source={source} is not a Llama with plain rotary embeddings")
    old = int(config.head_dim)
    if head_dim % old:
        raise UserError(f"head_dim={head_dim} is not a multiple of the model's {old}")
    weights = {
        name: _widened(name, weight, old, head_dim) for name, weight in model.state_dict().items()
    }
    config.head_dim = head_dim
    wide = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    wide.load_state_dict(weights)
    wide.generation_config = model.generation_config
    wide.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return Path(folder)


def _widened(name: str, weight: torch.Tensor, old: int, new: int) -> torch.Tensor:
    if name.endswith("q_proj.weight"):
        # Scores are divided by the root of the width: undo what the new width divides by.
        return _spread(weight, old, new) * (new / old) ** 0.5
    if name.endswith(("k_proj.weight", "v_proj.weight")):
        return _spread(weight, old, new)
    if name.endswith("o_proj.weight"):
        return _spread(weight.T, old, new).T.contiguous()
    return weight


def _spread(rows: torch.Tensor, old: int, new: int) -> torch.Tensor:
    """Spread each head's rows over as many as it will have, zeros elsewhere."""
    n_heads = len(rows) // old
    wide = rows.new_zeros(n_heads, new, rows.shape[1])
    # Pair i of a head turns by theta^(-2i / width), and lies at i and i + width / 2.
    ratio, half = new // old, old // 2
    heads = rows.reshape(n_heads, old, -1)
    for i in range(half):
        wide[:, i * ratio] = heads[:, i]
        wide[:, new // 2 + i * ratio] = heads[:, half + i]
    return wide.reshape(n_heads * new, -1)

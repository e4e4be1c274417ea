"""Deepen a Llama model by blocks that at first do nothing."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM


def deepen(model: LlamaForCausalLM, after: Sequence[int]) -> tuple[LlamaForCausalLM, list[int]]:
    """Return a deeper model with the same logits, and the indices of its new blocks.

    A new block is a copy of the block before it, with zeros in the two matrices that write to the
    residual stream: it reads like a trained block and writes nothing until it has learned to.

    Parameters
    ----------
    model : LlamaForCausalLM
        Is not changed.
    after : sequence of int
        Blocks of ``model`` to put a new block behind; one named twice gets two.

    Raises
    ------
    ValueError
        For a block that the model does not have.
    """
    from transformers import LlamaForCausalLM

    depth = model.config.num_hidden_layers
    for index in after:
        if not 0 <= index < depth:
            raise ValueError(f"after={list(after)}: the model has blocks 0 to {depth - 1}")
    plan = [(old, copied) for old in range(depth) for copied in _copies(after.count(old))]
    config = copy.deepcopy(model.config)
    config.num_hidden_layers = len(plan)
    deeper = LlamaForCausalLM(config)
    weights = model.state_dict()
    grown = {name: w for name, w in weights.items() if not name.startswith("model.layers.")}
    for new, (old, copied) in enumerate(plan):
        prefix = f"model.layers.{old}."
        for name in [name for name in weights if name.startswith(prefix)]:
            part = name.removeprefix(prefix)
            silent = copied and part in ("self_attn.o_proj.weight", "mlp.down_proj.weight")
            weight = weights[name]
            grown[f"model.layers.{new}.{part}"] = weight * 0 if silent else weight
    deeper.load_state_dict(grown)
    return deeper, [new for new, (_, copied) in enumerate(plan) if copied]


def _copies(count: int) -> list[bool]:
    return [False] + [True] * count

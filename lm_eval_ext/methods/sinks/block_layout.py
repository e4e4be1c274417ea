"""Where a model keeps its blocks, its attention, and the heads' output projection."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from lm_eval_ext.errors import UserError

# What architectures call the projection of the concatenated heads back to the hidden size.
_PROJECTIONS = ("o_proj", "dense", "out_proj", "wo", "c_proj")


class Block(NamedTuple):
    """One block of a model, its attention, and the attention's output projection.

    The projection reads the heads side by side, shape (..., n_heads * head_dim).
    """

    module: nn.Module
    attention: nn.Module
    projection: nn.Module
    head_dim: int


class Layout(NamedTuple):
    """The parts of a model that pruning works on.

    `container` is the module that holds the blocks, `n_heads` and `n_kv_heads` are per layer, and
    `config` is that of the text model.
    """

    container: nn.ModuleList
    blocks: tuple[Block, ...]
    n_heads: int
    n_kv_heads: int
    config: Any

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    @property
    def group_size(self) -> int:
        """Query heads per key/value head."""
        return self.n_heads // self.n_kv_heads

    def heads_of_group(self, group: int) -> range:
        """Return the query heads that share a key/value head."""
        return range(group * self.group_size, (group + 1) * self.group_size)


def find_layout(model: PreTrainedModel) -> Layout:
    """Find the blocks of a causal model.

    Raises
    ------
    UserError
        If the model is not a list of blocks that each have attention with an output projection.
    """
    config = model.config.get_text_config()
    n_heads = getattr(config, "num_attention_heads", None)
    if not n_heads:
        raise UserError(f"{type(model).__name__} has no attention heads to prune")
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == config.num_hidden_layers:
            attention = [part for block in module if (part := _attention(block)) is not None]
            if len(attention) == len(module):
                parts = [
                    _block(model, block, *part, n_heads)
                    for block, part in zip(module, attention, strict=True)
                ]
                # From the module: a configuration may have a number the architecture ignores.
                group = int(getattr(parts[0].attention, "num_key_value_groups", 1))
                return Layout(module, tuple(parts), n_heads, n_heads // group, config)
    raise UserError(
        f"{type(model).__name__} is not a list of blocks that all have attention with an output "
        f"projection ({', '.join(_PROJECTIONS)}): its heads cannot be pruned"
    )


def _attention(block: nn.Module) -> tuple[nn.Module, nn.Module] | None:
    """Return the attention of a block and its output projection."""
    for module in block.modules():
        if "attention" in type(module).__name__.lower() and hasattr(module, "layer_idx"):
            for name in _PROJECTIONS:
                projection = getattr(module, name, None)
                if isinstance(projection, nn.Module):
                    return module, projection
    return None


def _block(
    model: PreTrainedModel,
    block: nn.Module,
    attention: nn.Module,
    projection: nn.Module,
    n_heads: int,
) -> Block:
    width = getattr(projection, "in_features", None) or getattr(projection, "nx", 0)
    if not width or width % n_heads:
        raise UserError(
            f"{type(model).__name__}: the output projection of the attention reads {width} "
            f"features, which {n_heads} heads do not divide; its heads cannot be pruned"
        )
    return Block(block, attention, projection, width // n_heads)


@torch.inference_mode()
def projection_weight(block: Block, n_heads: int) -> torch.Tensor:
    """Return the output projection as a matrix, float32 of shape (hidden, n_heads * head_dim).

    Applied to unit vectors, so it is right for quantized weights, adapters and transposed layouts.
    """
    projection = block.projection
    parameter = next(projection.parameters(), torch.empty(0))  # packed weights are not a parameter
    dtype = parameter.dtype if parameter.dtype.is_floating_point else torch.float16
    width = n_heads * block.head_dim
    unit = torch.eye(width, device=parameter.device, dtype=dtype)
    constant = projection(unit.new_zeros((1, width))).float()
    return (projection(unit).float() - constant).T


def plain_weight(block: Block) -> torch.Tensor:
    """Return the output projection's weight, shape (hidden, n_heads * head_dim), to be edited.

    Raises
    ------
    UserError
        If the weight is quantized or part of an adapter.
    """
    projection = block.projection
    # Subclasses are what quantization and adapters put in place of the plain layer.
    if type(projection) is not nn.Linear or not projection.weight.dtype.is_floating_point:
        raise UserError(
            f"the output projection is a {type(projection).__name__}, whose weights cannot "
            "be edited: load the model without quantization or adapters, or prune by masking"
        )
    return projection.weight

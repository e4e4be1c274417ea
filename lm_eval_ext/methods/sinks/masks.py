"""Taking heads and blocks out of a model and putting them back.

A head is taken out by hiding its output from the output projection. That is what zeroing its
columns in the projection's weight does, works on quantized weights too, and saves no time. A block
is taken out of the list of blocks; the block before it then feeds the block after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from lm_eval_ext.methods.sinks.block_layout import Block, Layout, find_layout, plain_weight
from lm_eval_ext.methods.sinks.selection import Removal


class _HeadMask:
    """A pre-hook on an output projection that replaces the input of some heads."""

    def __init__(self, block: Block, heads: list[int], replacement: torch.Tensor | None) -> None:
        self._channels = channels_of(block, heads)
        self._replacement = replacement

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        states = args[0].clone()
        channels = self._channels.to(states.device)
        if self._replacement is None:
            states[..., channels] = 0
        else:
            states[..., channels] = self._replacement.to(states)
        return (states, *args[1:])


def channels_of(block: Block, heads: list[int]) -> torch.Tensor:
    """Return the input features of the output projection that belong to heads."""
    first = torch.tensor(heads, dtype=torch.int64)[:, None] * block.head_dim
    return (first + torch.arange(block.head_dim)).flatten()


@contextmanager
def pruned(
    model: PreTrainedModel,
    removal: Removal,
    *,
    replacement: NDArray[np.float64] | None = None,
) -> Iterator[None]:
    """Take heads or blocks out of a model, and put them back at the end.

    Parameters
    ----------
    model
        A causal model.
    removal
        What to take out; nothing leaves the model untouched.
    replacement
        What the removed heads give out instead of zeros, shape (n_layers, n_heads, head_dim):
        their mean output, for mean compensation.
    """
    with ExitStack() as stack:
        if removal.heads:
            stack.enter_context(_without_heads(find_layout(model), removal, replacement))
        if removal.blocks:
            stack.enter_context(_without_blocks(find_layout(model), removal))
        yield


@contextmanager
def _without_heads(
    layout: Layout, removal: Removal, replacement: NDArray[np.float64] | None
) -> Iterator[None]:
    with ExitStack() as stack:
        for layer in sorted({layer for layer, _ in removal.heads}):
            heads = removal.heads_of(layer)
            constant = None
            if replacement is not None:
                constant = torch.from_numpy(replacement[layer][heads].reshape(-1))
            mask = _HeadMask(layout.blocks[layer], heads, constant)
            # In front of other hooks, so that they see what the projection sees.
            hook = layout.blocks[layer].projection.register_forward_pre_hook(mask, prepend=True)
            stack.callback(hook.remove)
        yield


@contextmanager
def _without_blocks(layout: Layout, removal: Removal) -> Iterator[None]:
    config = layout.config
    previous = {name: getattr(config, name) for name in per_layer_settings(config)}
    blocks = list(layout.container)
    indices = [_layer_indices(block) for block in blocks]
    try:
        remove_blocks(layout, removal)
        yield
    finally:
        _replace(layout.container, blocks)
        for index_of_module in indices:
            for module, index in index_of_module.items():
                module.layer_idx = index  # type: ignore[assignment]
        for name, value in previous.items():
            setattr(config, name, value)


def remove_blocks(layout: Layout, removal: Removal) -> None:
    """Take blocks out of a model for good, and renumber the others."""
    kept = [i for i in range(layout.n_layers) if i not in removal.blocks]
    for name in per_layer_settings(layout.config):
        value = getattr(layout.config, name)
        if isinstance(value, int):
            setattr(layout.config, name, len(kept))
        else:
            setattr(layout.config, name, type(value)(value[i] for i in kept))
    blocks = list(layout.container)
    _replace(layout.container, [blocks[i] for i in kept])
    for place, block in enumerate(layout.container):
        for module in _layer_indices(block):
            module.layer_idx = place  # type: ignore[assignment]


def per_layer_settings(config: Any) -> list[str]:
    """Return the names of the settings that depend on the number of blocks.

    The number itself comes last: some configurations check others against it.
    """
    n_layers = config.num_hidden_layers
    lists = [
        name
        for name, value in vars(config).items()
        if "layer" in name and isinstance(value, (list, tuple)) and len(value) == n_layers
    ]
    return [*lists, "num_hidden_layers"]


def _layer_indices(block: nn.Module) -> dict[nn.Module, int]:
    """Return the modules of a block that know its number."""
    return {
        module: int(module.layer_idx)  # type: ignore[arg-type]
        for module in block.modules()
        if isinstance(getattr(module, "layer_idx", None), int)
    }


def _replace(container: nn.ModuleList, blocks: list[nn.Module]) -> None:
    """Put blocks into the list that the model runs through."""
    del container[:]
    container.extend(blocks)


@torch.no_grad()
def zero_heads(model: PreTrainedModel, removal: Removal) -> None:
    """Set the columns of heads in the output projections to zero, for good.

    Raises
    ------
    UserError
        If a weight is quantized or part of an adapter.
    """
    layout = find_layout(model)
    for layer in sorted({layer for layer, _ in removal.heads}):
        block = layout.blocks[layer]
        weight = plain_weight(block)
        weight[:, channels_of(block, removal.heads_of(layer)).to(weight.device)] = 0

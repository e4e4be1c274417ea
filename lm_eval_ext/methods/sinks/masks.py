"""Taking heads and blocks out of a model and putting them back.

A head is taken out by hiding its output from the output projection. This has the effect of zeroing
its columns in the projection's weight, works on quantized weights too, and saves no time. A block
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

from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.sinks.block_layout import Layout, find_layout, plain_weight
from lm_eval_ext.methods.sinks.selection import Removal


class _HeadMask:
    """A pre-hook on an output projection that replaces the input of some heads."""

    def __init__(self, channels: torch.Tensor, replacement: torch.Tensor | None) -> None:
        self._channels, self._replacement = channels, replacement

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        states = args[0].clone()
        channels = self._channels.to(states.device)
        if self._replacement is None:
            states[..., channels] = 0
        else:
            states[..., channels] = self._replacement.to(states)
        return (states, *args[1:])


def channels_of(heads: list[int], head_dim: int) -> torch.Tensor:
    """Return the features that belong to heads, where heads stand side by side."""
    return (
        torch.tensor(heads, dtype=torch.int64)[:, None] * head_dim + torch.arange(head_dim)
    ).flatten()


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
    replacement
        Outputs of the removed heads instead of zeros, shape (n_layers, n_heads, head_dim): their
        mean output, for mean compensation.
    """
    with ExitStack() as stack:
        layout = find_layout(model) if removal else None
        for layer in sorted({layer for layer, _ in removal.heads}):
            assert layout is not None
            block, heads, constant = layout.blocks[layer], removal.heads_of(layer), None
            if replacement is not None:
                constant = torch.from_numpy(replacement[layer][heads].reshape(-1))
            mask = _HeadMask(channels_of(heads, block.head_dim), constant)
            # In front of other hooks, so that they see what the projection sees.
            hook = block.projection.register_forward_pre_hook(mask, prepend=True)
            stack.callback(hook.remove)
        if removal.blocks:
            assert layout is not None
            stack.enter_context(_without_blocks(layout, removal))
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
    for index, block in enumerate(layout.container):
        for module in _layer_indices(block):
            module.layer_idx = index  # type: ignore[assignment]


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
    """Set the columns of heads in the output projections to zero, for good; shapes stay."""
    if removal.blocks:
        raise UserError("form=zeroed is for heads; blocks are removed with form=structural")
    layout = find_layout(model)
    for layer in sorted({layer for layer, _ in removal.heads}):
        block = layout.blocks[layer]
        weight = plain_weight(block)
        channels = channels_of(removal.heads_of(layer), block.head_dim)
        weight[:, channels.to(weight.device)] = 0

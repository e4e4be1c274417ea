"""Statistics of a model on calibration data, for the criteria, gathered in one pass."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedModel

from lm_eval_ext.methods.sinks.block_layout import Layout, find_layout
from lm_eval_ext.methods.sinks.padded_batches import batches
from lm_eval_ext.methods.sinks.probe import plain_forward, probed_forward, sink_probe
from lm_eval_ext.methods.sinks.sink_scores import (
    SinkAccumulator,
    SinkConvention,
    SinkScores,
    check_lengths,
)
from lm_eval_ext.metrics.checks import FloatArray

Part = Literal["sinks", "outputs", "blocks"]


class HeadOutputs(NamedTuple):
    """Moments of the heads' outputs, before the output projection, over real tokens.

    Parameters
    ----------
    mean, mean_square
        Per channel, shape (n_layers, n_heads, head_dim).
    norm
        Mean Euclidean norm of each head's output, shape (n_layers, n_heads).
    """

    mean: FloatArray
    mean_square: FloatArray
    norm: FloatArray


class CalibrationStatistics(NamedTuple):
    """Statistics of a model on calibration data; None where nobody asked.

    Parameters
    ----------
    block_cosine
        Mean cosine similarity of a block's input and output over real tokens, shape (n_layers,).
    """

    sinks: SinkScores | None = None
    outputs: HeadOutputs | None = None
    block_cosine: FloatArray | None = None


class _Sums:
    """Running sums over real tokens, by layer; filled by hooks."""

    def __init__(self, layout: Layout) -> None:
        layers, heads = layout.n_layers, layout.n_heads
        size = layout.blocks[0].head_dim
        self.mean, self.square = np.zeros((2, layers, heads, size))
        self.norm = np.zeros((layers, heads))
        self.cosine = np.zeros(layers)
        self.n_tokens = 0
        self.mask: torch.Tensor | None = None

    def real(self, states: torch.Tensor) -> torch.Tensor:
        """Return the states of real tokens, float32 of shape (n_tokens, size)."""
        assert self.mask is not None
        return states.detach()[self.mask.to(states.device)].float()

    def add_heads(self, layer: int, module: nn.Module, args: tuple[Any, ...]) -> None:
        heads = self.real(args[0]).unflatten(-1, self.mean.shape[1:])
        self.mean[layer] += heads.sum(dim=0, dtype=torch.float64).cpu().numpy()
        self.square[layer] += heads.square().sum(dim=0, dtype=torch.float64).cpu().numpy()
        self.norm[layer] += heads.norm(dim=-1).sum(dim=0, dtype=torch.float64).cpu().numpy()

    def add_block(
        self, layer: int, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any
    ) -> None:
        before = args[0] if args else kwargs["hidden_states"]
        after = output[0] if isinstance(output, tuple) else output
        cosine = torch.cosine_similarity(self.real(before), self.real(after), dim=-1)
        self.cosine[layer] += float(cosine.sum(dtype=torch.float64))


@torch.inference_mode()
def collect_statistics(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    parts: Collection[Part],
    *,
    convention: SinkConvention | None = None,
    lengths: Sequence[int] = (),
    max_tokens: int = 8192,
) -> CalibrationStatistics:
    """Run the calibration data through an unpruned model once, and gather some parts."""
    if not parts:
        return CalibrationStatistics()
    check_lengths(prompts, lengths)
    layout = find_layout(model)
    sums = _Sums(layout)
    sinks = SinkAccumulator(layout.n_layers, layout.n_heads, convention=convention, lengths=lengths)
    with ExitStack() as stack:
        for layer, block in enumerate(layout.blocks):
            if "outputs" in parts:
                hook = block.projection.register_forward_pre_hook(partial(sums.add_heads, layer))
                stack.callback(hook.remove)
            if "blocks" in parts:
                hook = block.module.register_forward_hook(
                    partial(sums.add_block, layer), with_kwargs=True
                )
                stack.callback(hook.remove)
        if "sinks" in parts:
            stack.enter_context(sink_probe(model, sinks))
        run = probed_forward if "sinks" in parts else plain_forward
        progress = stack.enter_context(
            tqdm(total=len(prompts), desc="Calibrating", unit="prompt", delay=2)
        )
        for batch in batches(prompts, max_tokens=max_tokens):
            sums.mask = batch.attention_mask.bool()
            sums.n_tokens += int(sums.mask.sum())
            sinks.begin(batch)
            run(model, batch.input_ids, batch.attention_mask)
            progress.update(len(batch.indices))
    n = sums.n_tokens
    return CalibrationStatistics(
        sinks.scores() if "sinks" in parts else None,
        HeadOutputs(sums.mean / n, sums.square / n, sums.norm / n) if "outputs" in parts else None,
        sums.cosine / n if "blocks" in parts else None,
    )

"""Which heads and blocks to remove first: one function per criterion.

Every function takes a model's layout, its statistics on calibration data and a seed, and returns
one number per head, shape (n_layers, n_heads), or per block, shape (n_layers,). The highest number
is removed first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch

from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.sinks.block_layout import Layout, projection_weight
from lm_eval_ext.methods.sinks.statistics import CalibrationStatistics, HeadOutputs, Part
from lm_eval_ext.metrics.checks import FloatArray

Score = Callable[[Layout, CalibrationStatistics, int], FloatArray]


class Criterion(NamedTuple):
    """A criterion and the parts of `CalibrationStatistics` it needs."""

    score: Score
    needs: frozenset[Part] = frozenset()


def sink(layout: Layout, statistics: CalibrationStatistics, seed: int) -> FloatArray:
    """Return the attention to the first token (arXiv:2601.06787)."""
    assert statistics.sinks is not None
    return statistics.sinks.score


def random(layout: Layout, statistics: CalibrationStatistics, seed: int) -> FloatArray:
    """Return random numbers, the control of every other criterion."""
    return np.random.default_rng(seed).random((layout.n_layers, layout.n_heads))


def magnitude(layout: Layout, statistics: CalibrationStatistics, seed: int) -> FloatArray:
    """Return minus the sum of the column norms of the output projection (Mag-SP)."""
    norms = (weight.square().sum(dim=0).sqrt() for weight in _weights(layout))
    return np.stack([-_by_head(norm.cpu().double().numpy(), layout) for norm in norms])


def wanda(layout: Layout, statistics: CalibrationStatistics, seed: int) -> FloatArray:
    """Return minus the sum of ``|W| * RMS(input)`` over a head's columns (Wanda-SP).

    References
    ----------
    Sun et al. 2024, arXiv:2306.11695; in structured form An et al. 2024, arXiv:2312.11983.
    """
    outputs = _outputs(statistics)
    scores = []
    for weight, square in zip(_weights(layout), outputs.mean_square, strict=True):
        columns = weight.abs().sum(dim=0).cpu().double().numpy() * np.sqrt(square.reshape(-1))
        scores.append(-_by_head(columns, layout))
    return np.stack(scores)


def wanda_per_layer(layout: Layout, statistics: CalibrationStatistics, seed: int) -> FloatArray:
    """Return the rank of `wanda` within the layer, in (0, 1]: layers lose equally many heads."""
    scores = wanda(layout, statistics, seed)
    order = np.argsort(-scores, axis=1, kind="stable")
    return (layout.n_heads - order.argsort(axis=1)) / layout.n_heads


def ahon(layout: Layout, statistics: CalibrationStatistics, seed: int) -> FloatArray:
    """Return minus the mean norm of a head's output (AHON, arXiv:2504.03889)."""
    return -_outputs(statistics).norm


def ahon_ln(layout: Layout, statistics: CalibrationStatistics, seed: int) -> FloatArray:
    """Return minus the mean norm of a head's output as a share of its layer's mean (AHON(LN))."""
    norm = _outputs(statistics).norm
    return np.asarray(-norm / norm.mean(axis=1, keepdims=True))


def top_layers(layout: Layout, statistics: CalibrationStatistics, seed: int) -> FloatArray:
    """Return the number of the layer: later layers go first."""
    return np.repeat(np.arange(layout.n_layers, dtype=np.float64)[:, None], layout.n_heads, axis=1)


def block_sink(layout: Layout, statistics: CalibrationStatistics, seed: int) -> FloatArray:
    """Return the mean sink score of a block's heads (arXiv:2601.06787)."""
    assert statistics.sinks is not None
    return statistics.sinks.by_layer


def shortgpt(layout: Layout, statistics: CalibrationStatistics, seed: int) -> FloatArray:
    """Return minus the block influence, 1 - E cos(input, output) (arXiv:2403.03853)."""
    assert statistics.block_cosine is not None
    return np.asarray(statistics.block_cosine - 1)


def top_down(layout: Layout, statistics: CalibrationStatistics, seed: int) -> FloatArray:
    """Return the number of the block: later blocks go first."""
    return np.arange(layout.n_layers, dtype=np.float64)


def bottom_up(layout: Layout, statistics: CalibrationStatistics, seed: int) -> FloatArray:
    """Return minus the number of the block: earlier blocks go first."""
    return -np.arange(layout.n_layers, dtype=np.float64)


def block_random(layout: Layout, statistics: CalibrationStatistics, seed: int) -> FloatArray:
    """Return random numbers."""
    return np.random.default_rng(seed).random(layout.n_layers)


HEAD_CRITERIA = {
    "sink": Criterion(sink, frozenset({"sinks"})),
    "random": Criterion(random),
    "magnitude": Criterion(magnitude),
    "wanda": Criterion(wanda, frozenset({"outputs"})),
    "wanda_per_layer": Criterion(wanda_per_layer, frozenset({"outputs"})),
    "ahon": Criterion(ahon, frozenset({"outputs"})),
    "ahon_ln": Criterion(ahon_ln, frozenset({"outputs"})),
    "top_layers": Criterion(top_layers),
}
"""Criteria for heads, and for groups of them by their mean."""

BLOCK_CRITERIA = {
    "sink": Criterion(block_sink, frozenset({"sinks"})),
    "random": Criterion(block_random),
    "shortgpt": Criterion(shortgpt, frozenset({"blocks"})),
    "top_down": Criterion(top_down),
    "bottom_up": Criterion(bottom_up),
}
"""Criteria for whole blocks."""


def criteria_for(unit: str) -> dict[str, Criterion]:
    """Return the criteria for a unit of pruning."""
    return BLOCK_CRITERIA if unit == "block" else HEAD_CRITERIA


def find_criterion(name: str, unit: str) -> Criterion:
    """Return a criterion by name; a `UserError` where the unit has none of this name."""
    known = criteria_for(unit)
    if name not in known:
        raise UserError(f"criterion={name!r} is not one of {', '.join(known)} (unit={unit})")
    return known[name]


def _weights(layout: Layout) -> Iterator[torch.Tensor]:
    return (projection_weight(block, layout.n_heads) for block in layout.blocks)


def _by_head(columns: FloatArray, layout: Layout) -> FloatArray:
    return np.asarray(columns.reshape(layout.n_heads, -1).sum(axis=1))


def _outputs(statistics: CalibrationStatistics) -> HeadOutputs:
    assert statistics.outputs is not None
    return statistics.outputs

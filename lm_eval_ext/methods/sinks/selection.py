"""From scores to what is removed."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from lm_eval_ext.checks import is_number
from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.sinks.block_layout import Layout
from lm_eval_ext.metrics.checks import FloatArray


class Removal(NamedTuple):
    """What is taken out of a model.

    Parameters
    ----------
    heads
        (layer, query head) pairs, sorted.
    blocks
        Whole blocks, sorted. Heads and blocks do not occur together.
    """

    heads: tuple[tuple[int, int], ...] = ()
    blocks: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        """Return whether anything is removed."""
        return bool(self.heads or self.blocks)

    def heads_of(self, layer: int) -> list[int]:
        """Return the heads removed from a layer."""
        return [head for at, head in self.heads if at == layer]

    def described(self) -> str:
        """Return what is removed, in a line.

        Examples
        --------
        >>> Removal(heads=((0, 3), (0, 5), (2, 1))).described()
        '3 heads (layer 0: 3, 5; layer 2: 1)'
        >>> Removal(blocks=(4,)).described()
        '1 block (4)'
        """
        if self.blocks:
            blocks = ", ".join(map(str, self.blocks))
            return f"{len(self.blocks)} block{'s' * (len(self.blocks) > 1)} ({blocks})"
        by_layer: dict[int, list[str]] = {}
        for layer, head in self.heads:
            by_layer.setdefault(layer, []).append(str(head))
        places = "; ".join(f"layer {layer}: {', '.join(h)}" for layer, h in by_layer.items())
        return f"{len(self.heads)} head{'s' * (len(self.heads) != 1)} ({places or 'none'})"


def unit_scores(scores: FloatArray, unit: str, layout: Layout) -> FloatArray:
    """Return one score per unit, shape (n_layers, units per layer).

    Scores are of blocks where the unit is ``"block"``, else of heads. A ``"kv_group"`` (the query
    heads of one key/value head) and an ``"attention"`` (all heads of a layer) have their mean.
    """
    expected = (layout.n_layers,) if unit == "block" else (layout.n_layers, layout.n_heads)
    if scores.shape != expected:
        raise UserError(
            f"scores of shape {scores.shape} do not belong to this model, which needs {expected}"
        )
    if unit == "block":
        return scores[:, None]
    if unit == "kv_group":
        return np.asarray(scores.reshape(layout.n_layers, layout.n_kv_heads, -1).mean(axis=2))
    if unit == "attention":
        return np.asarray(scores.mean(axis=1, keepdims=True))
    return scores


def select(
    scores: FloatArray, *, ratio: float, unit: str, layout: Layout, skip_first: int = 0
) -> Removal:
    """Choose what to remove: the units with the highest scores, over all layers at once.

    ``round(ratio * units)`` of all units go (halves to the even number), ties by layer and head.
    The first and the last block, and `skip_first` further ones at the beginning, are not touched.

    Raises
    ------
    UserError
        If fewer units may be touched than are to go, or a score is not finite.
    """
    check_ratio(ratio)
    values = unit_scores(np.asarray(scores, dtype=np.float64), unit, layout)
    n_layers, per_layer = values.shape
    count = round(ratio * values.size)
    eligible = range(1 + skip_first, n_layers - 1)
    if count > len(eligible) * per_layer:
        raise UserError(
            f"ratio={ratio} removes {count} of {values.size} {unit}s, but only "
            f"{len(eligible) * per_layer} are outside the first {1 + skip_first} and the last "
            "block: lower ratio or skip_first"
        )
    candidates = [(layer, i) for layer in eligible for i in range(per_layer)]
    if not all(math.isfinite(values[index]) for index in candidates):
        raise UserError("a score is not a number: calibrate with longer prompts")
    # A stable sort keeps ties in the order of layer and head.
    chosen = sorted(candidates, key=lambda index: -values[index])[:count]
    return as_removal(chosen, unit, layout)


def select_evenly(scores: FloatArray, *, ratio: float, unit: str, layout: Layout) -> Removal:
    """Choose equally many units in every layer, the first and the last included.

    All layers keep one shape, so that the rest can be saved as a smaller model of the same
    architecture. ``round(ratio * units)`` key/value groups go from every layer, or query heads from
    every group.

    Raises
    ------
    UserError
        For another unit, or if nothing would be left.
    """
    check_ratio(ratio)
    values = unit_scores(np.asarray(scores, dtype=np.float64), unit, layout)
    if unit == "kv_group":
        pools, count = [range(layout.n_kv_heads)], round(ratio * layout.n_kv_heads)
    elif unit == "head":
        pools = [layout.heads_of_group(group) for group in range(layout.n_kv_heads)]
        count = round(ratio * layout.group_size)
    else:
        raise UserError(f"allocation='even' needs unit=head or unit=kv_group, not unit={unit!r}")
    if count == len(pools[0]):
        raise UserError(
            f"ratio={ratio} would remove all {count} {unit}s of a "
            f"{'layer' if unit == 'kv_group' else 'group'}: lower ratio, or choose another unit"
        )
    chosen = [
        (layer, i)
        for layer in range(layout.n_layers)
        for pool in pools
        for i in sorted(pool, key=lambda i: -values[layer, i])[:count]
    ]
    return as_removal(chosen, unit, layout)


def as_removal(chosen: list[tuple[int, int]], unit: str, layout: Layout) -> Removal:
    """Return the heads or blocks of units, given as (layer, number in the layer)."""
    if unit == "block":
        return Removal(blocks=tuple(sorted(layer for layer, _ in chosen)))
    heads: list[tuple[int, int]] = []
    for layer, i in chosen:
        if unit == "head":
            heads.append((layer, i))
        else:
            group = layout.heads_of_group(i) if unit == "kv_group" else range(layout.n_heads)
            heads += [(layer, head) for head in group]
    return Removal(heads=tuple(sorted(heads)))


def check_ratio(ratio: object) -> None:
    """Check that a pruning ratio is a number of at least 0 and below 1."""
    if not is_number(ratio) or not 0 <= ratio < 1:
        raise UserError(f"ratio={ratio!r} must be a number of at least 0 and below 1")

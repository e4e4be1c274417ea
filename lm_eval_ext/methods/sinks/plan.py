"""Settings of pruning, and which heads or blocks they remove from a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from lm_eval_ext.checks import check_choice
from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.sinks.block_layout import Layout
from lm_eval_ext.methods.sinks.choices import ALLOCATIONS, UNITS
from lm_eval_ext.methods.sinks.criteria import find_criterion
from lm_eval_ext.methods.sinks.selection import Removal, check_ratio, select, select_evenly
from lm_eval_ext.methods.sinks.statistics import CalibrationStatistics, Part
from lm_eval_ext.metrics.checks import FloatArray


@dataclass(frozen=True)
class PruningSettings:
    """How to prune.

    Parameters
    ----------
    ratio
        Share of the model's units to remove, in [0, 1); 0 removes nothing.
    unit
        ``"head"``, ``"kv_group"``, ``"attention"`` or ``"block"``.
    skip_first
        Blocks after the first that are not touched.
    allocation
        ``"global"``: the highest scores of the whole model go; ``"even"``: equally many in every
        layer, the first and the last included, so that a smaller model can be saved.
    seed
        Of the random criterion.
    mean_compensation
        Let removed heads give out their mean output on the calibration data instead of zeros.
    """

    ratio: float = 0.125
    unit: str = "head"
    criterion: str = "sink"
    skip_first: int = 0
    allocation: str = "global"
    seed: int = 0
    mean_compensation: bool = False

    def __post_init__(self) -> None:
        check_ratio(self.ratio)
        check_choice("unit", self.unit, UNITS)
        check_choice("allocation", self.allocation, ALLOCATIONS)
        find_criterion(self.criterion, self.unit)
        for name in ("skip_first", "seed"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise UserError(f"{name}={value!r} must be an integer of at least 0")
        if self.skip_first and self.allocation == "even":
            raise UserError(
                f"skip_first={self.skip_first} spares blocks and allocation='even' cuts every one: "
                "drop one of the two"
            )
        if not isinstance(self.mean_compensation, bool):
            raise UserError(f"mean_compensation={self.mean_compensation!r} must be true or false")
        if self.mean_compensation and self.unit == "block":
            raise UserError("mean_compensation=true needs a unit of heads, not unit='block'")

    def needs(self, *, scored: bool = False) -> frozenset[Part]:
        """Return the statistics needed to make a plan."""
        if self.ratio == 0:
            return frozenset()
        parts = set() if scored else set(find_criterion(self.criterion, self.unit).needs)
        if self.mean_compensation:
            parts.add("outputs")
        return frozenset(parts)


class PruningPlan(NamedTuple):
    """What to remove, the highest scores first; see `pruned` about `replacement`."""

    settings: PruningSettings
    removal: Removal
    scores: FloatArray | None = None
    replacement: FloatArray | None = None

    def record(self) -> dict[str, Any]:
        """Return the plan as plain values for a results file."""
        return {
            **asdict(self.settings),
            "removed_heads": [list(head) for head in self.removal.heads],
            "removed_blocks": list(self.removal.blocks),
            "scores": None if self.scores is None else self.scores.tolist(),
        }


def make_plan(
    layout: Layout | None,
    settings: PruningSettings,
    statistics: CalibrationStatistics,
    *,
    scores: FloatArray | Sequence[Any] | None = None,
) -> PruningPlan:
    """Decide what to remove, from statistics with the parts that ``settings.needs()`` names.

    `scores` replace those that would be computed; without a layout nothing is removed.
    """
    if settings.ratio == 0 or layout is None:
        return PruningPlan(settings, Removal())
    if scores is None:
        criterion = find_criterion(settings.criterion, settings.unit)
        scores = criterion.score(layout, statistics, settings.seed)
    values = np.asarray(scores, dtype=np.float64)
    ratio, unit = settings.ratio, settings.unit
    if settings.allocation == "even":
        removal = select_evenly(values, ratio=ratio, unit=unit, layout=layout)
    else:
        removal = select(
            values, ratio=ratio, unit=unit, layout=layout, skip_first=settings.skip_first
        )
    replacement = None
    if settings.mean_compensation:
        assert statistics.outputs is not None
        replacement = statistics.outputs.mean
    return PruningPlan(settings, removal, values, replacement)

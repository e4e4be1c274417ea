"""The options of the ``prune`` commands; imports nothing heavy."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lm_eval_ext.checks import option, required
from lm_eval_ext.methods.sinks.choices import Allocation, Queries, Unit, Window


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The model, its calibration data, and how sink scores are averaged."""

    pretrained: str = option("Hub id, folder or shipped model", "tiny")
    model_args: str = option("more arguments, as for lm_eval --model sampled", "")
    calibration: str | None = option(
        "text or JSONL file, lm-eval tasks joined by +, or a Hub data set as "
        "ID[:CONFIGURATION[:SPLIT]]; by default WikiText-2, for a shipped model its own "
        "problems"
    )
    calibration_size: int = option("most sequences", 128)
    length: int = option("tokens of a segment of text", 512)
    queries: Queries = option("average over all queries, or leave out the first token's own", "all")
    window: Window = option(
        "queries of sliding layers too far to see the first token count zero, or only visible "
        "ones count",
        "zero",
    )

    def record(self) -> dict[str, Any]:
        """Return the options as the values that a JSON file of them has."""
        values = {k: value for k, value in dataclasses.asdict(self).items() if value is not None}
        record: dict[str, Any] = json.loads(json.dumps(values, default=str))
        return record


@dataclass(frozen=True, kw_only=True)
class MeasuredOptions(ModelOptions):
    """What is measured."""

    text: str | None = option(
        "what perplexity is measured on, as for --calibration; by default the test text of the "
        "default there"
    )
    text_size: int = option("most sequences of it", 128)
    limit: int | None = option("questions per task; by default all")


@dataclass(frozen=True, kw_only=True)
class ScoreOptions(ModelOptions):
    """Score heads and blocks, and draw the sink scores.

    Example: lm-eval-ext prune score --pretrained tiny-sink --lengths 16,32,64
    """

    lengths: tuple[int, ...] = option(
        "prompt lengths to score as well, for the coefficient of variation over lengths", ()
    )
    seed: int = option("of the random criterion", 0)
    output: Path = option("folder for JSON and heatmap", Path("sink_scores"))


@dataclass(frozen=True, kw_only=True)
class SweepOptions(MeasuredOptions):
    """Measure criteria and ratios of pruning on tasks and text.

    Example: lm-eval-ext prune sweep --pretrained tiny-sink --tasks tiny_gsm8k_calib --limit 100
    """

    unit: Unit = option("what is removed", "head")
    criteria: tuple[str, ...] | None = option("which criteria; by default all of the unit")
    ratios: tuple[float, ...] = option("shares to remove", (0.0625, 0.125, 0.25, 0.375, 0.5))
    seeds: tuple[int, ...] = option("of the random criterion", (0, 1, 2, 3, 4))
    skip_first: int = option("blocks after the first to spare", 0)
    allocation: Allocation = option("over the whole model, or evenly over the blocks", "global")
    mean_compensation: bool = option("add what the removed heads give on average", False)
    tasks: tuple[str, ...] = option("tasks of lm-eval to measure", ())
    metrics: tuple[str, ...] | None = option(
        "metrics to show, or all; by default perplexity and the first of each task"
    )
    output: Path = option("folder for cells and tables", Path("pruning_sweep"))


@dataclass(frozen=True, kw_only=True)
class AnalyseOptions(MeasuredOptions):
    """Set ablations of single heads against their sink scores.

    Example: lm-eval-ext prune analyse --pretrained tiny-sink --tasks tiny_gsm8k_calib
    """

    lengths: tuple[int, ...] | None = option(
        "prompt lengths to compare; by default powers of 2 that a quarter of the prompts have"
    )
    tasks: str = option("also ablate heads on this task of lm-eval", "")
    metrics: str = option("metric of the task", "accuracy")
    output: Path = option("folder for plot and JSON", Path("sink_analysis"))


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Write a pruned checkpoint that loads with transformers.

    Example: lm-eval-ext prune export --model-args ratio=0.25,unit=block --output pruned
    """

    pretrained: str = option("Hub id, folder or shipped model", "tiny")
    model_args: str = option(
        "more arguments, as for lm_eval --model sink-pruned",
        "ratio=0.25,unit=kv_group,allocation=even",
    )
    form: Literal["structural", "zeroed"] = option(
        "cut heads or blocks out, or set the heads' weights to zero", "structural"
    )
    output: Path = required("folder of the checkpoint")

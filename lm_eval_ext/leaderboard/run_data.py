"""A run as it is compared: metrics with intervals, and the values of every question."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lm_eval_ext.scoring.scores import Score

HASH_DIGITS = 16
"""Digits of a question's hash that are kept."""


class TaskDetails(NamedTuple):
    """How a task was run and what it cost; None where that is not known.

    Parameters
    ----------
    seconds
        Wall-clock time, model loading included. lm-eval times the run, not its tasks: known for
        runs of one task only.
    """

    attempts: int | None = None
    temperature: float | None = None
    num_fewshot: int | None = None
    truncated_rate: float | None = None
    invalid_rate: float | None = None
    tokens: int | None = None
    seconds: float | None = None
    tokens_per_second: float | None = None
    samples_sha256: str | None = None


@dataclass(frozen=True)
class TaskOutput:
    """One task of a run.

    Parameters
    ----------
    questions
        Hash of each question's record, by question number; empty where no samples were logged.
    values
        Per metric that is a mean over questions, the value of each question that has one.
    metrics
        Each metric with its interval, in the order of the table of results.
    replicates
        Per metric that pools attempts, its values on resamples of the questions in ascending order,
        the same resamples in all runs. Only of runs read from their samples.
    """

    questions: dict[int, str]
    values: dict[str, dict[int, float]]
    metrics: dict[str, Score] = field(default_factory=dict)
    replicates: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    details: TaskDetails = field(default_factory=TaskDetails)

    def direction(self, metric: str) -> bool | None:
        """Tell whether a metric is better when it is higher; None where that is not known."""
        return self.metrics[metric].higher_is_better if metric in self.metrics else None


@dataclass(frozen=True)
class RunOutput:
    """One run of lm_eval.

    Parameters
    ----------
    folder
        Where its samples are; None for a stored entry.
    """

    label: str
    results: dict[str, Any]
    tasks: dict[str, TaskOutput]
    folder: Path | None = None

    def __post_init__(self) -> None:
        """Refuse results of which the tables could not be made."""
        if not isinstance(self.results.get("config") or {}, dict):
            raise ValueError("config is not an object")

    def row_names(self, task: str) -> set[str]:
        """Return the rows that a task has in the results, whether or not they have been read."""
        keys = (self.results.get("results") or {}).get(task) or {}
        found = {key.rpartition(",")[0] for key in keys if "," in key}
        return {name for name in found if not name.endswith("_stderr")}

    @property
    def seconds(self) -> float:
        """Wall-clock time of the whole evaluation, model loading included; NaN if not known."""
        try:
            return float(self.results.get("total_evaluation_time_seconds", "nan"))
        except (TypeError, ValueError):
            return float("nan")

    @property
    def model(self) -> str:
        """Name of the model."""
        return str(self.results.get("model_name") or self.label)

    @property
    def wrapper(self) -> str:
        """lm-eval's ``--model``."""
        config = self.results.get("config") or {}
        return str(config.get("model") or self.results.get("model_source") or "")

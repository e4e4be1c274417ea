"""A run as it is compared: the values of every question, by task and metric."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval_ext.run_files import newest_run, read_samples


@dataclass(frozen=True)
class TaskOutput:
    """One task of a run.

    Parameters
    ----------
    questions
        Hash of each question's record, by question number.
    values
        Per metric, the value of each question that has one, by question number.
    higher_is_better
        Direction of each metric; None where there is none.
    """

    questions: dict[int, str]
    values: dict[str, dict[int, float]]
    higher_is_better: dict[str, bool | None]


@dataclass(frozen=True)
class RunOutput:
    """One run of lm_eval.

    Parameters
    ----------
    label
        Name of the run in tables.
    results
        The results file.
    tasks
        Its tasks, by name.
    """

    label: str
    results: dict[str, Any]
    tasks: dict[str, TaskOutput]

    @property
    def seconds(self) -> float:
        """Wall-clock time of the whole evaluation, model loading included."""
        return float(self.results.get("total_evaluation_time_seconds", "nan"))


def read_run(folder: Path, *, label: str | None = None) -> RunOutput:
    """Read the newest run below a folder.

    Parameters
    ----------
    folder
        What was given to lm_eval as ``--output_path``.
    label
        Name of the run; by default the folder's.

    Raises
    ------
    UserError
        If there is no run, or a file is damaged: one line with the file, the place and the remedy.
    """
    run = newest_run(folder)
    tasks = {
        task: _read_task(samples, run.results.get("higher_is_better", {}).get(task, {}))
        for task, samples in run.samples.items()
    }
    return RunOutput(label or folder.name, run.results, tasks)


def _read_task(path: Path, directions: dict[str, bool | None]) -> TaskOutput:
    task = TaskOutput({}, {}, {})
    samples = list(read_samples(path))
    several = len({sample["filter"] for sample in samples}) > 1
    for sample in samples:
        question = int(sample["doc_id"])
        task.questions[question] = sample["doc_hash"]
        for metric in sample["metrics"]:
            value = sample.get(metric)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                continue  # details of the attempts, or values that only make sense pooled
            name = f"{metric},{sample['filter']}" if several else metric
            task.values.setdefault(name, {})[question] = float(value)
            task.higher_is_better[name] = directions.get(metric)
    return task

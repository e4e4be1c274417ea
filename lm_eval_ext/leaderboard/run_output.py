"""Read what ``lm_eval --output_path FOLDER --log_samples`` wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval_ext.errors import UserError


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
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the --output_path of an lm_eval run")
    found = sorted(folder.rglob("results_*.json"), key=lambda path: path.name)
    if not found:
        raise UserError(
            f"{folder}: holds no results_*.json; run lm_eval with --output_path {folder} "
            "--log_samples"
        )
    newest = found[-1]
    results = _read_json(newest)
    stamp = newest.stem.removeprefix("results_")
    tasks = {}
    for task in results.get("n-samples", {}):
        samples = newest.with_name(f"samples_{task}_{stamp}.jsonl")
        if not samples.is_file():
            raise UserError(
                f"{newest.parent}: no {samples.name} beside {newest.name}; run lm_eval with "
                "--log_samples"
            )
        directions = results.get("higher_is_better", {}).get(task, {})
        tasks[task] = _read_task(samples, directions)
    return RunOutput(label or folder.name, results, tasks)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); run lm_eval again") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: not a results file of lm_eval; run lm_eval again")
    return value


def _read_task(path: Path, directions: dict[str, bool | None]) -> TaskOutput:
    task = TaskOutput({}, {}, {})
    samples = list(_samples(path))
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


def _samples(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                sample = json.loads(line)
                missing = {"doc_id", "doc_hash", "filter", "metrics"} - sample.keys()
            except (json.JSONDecodeError, AttributeError) as error:
                raise UserError(
                    f"{path}, line {number}: not a complete sample (cut off?); run lm_eval again"
                ) from error
            if missing:
                raise UserError(f"{path}, line {number}: no {sorted(missing)[0]} in this sample")
            yield sample

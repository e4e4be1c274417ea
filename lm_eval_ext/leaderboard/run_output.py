"""Read runs from lm_eval's output folders."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lm_eval_ext.checks import is_number
from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard.paired import NORMAL_95
from lm_eval_ext.leaderboard.run_data import RunOutput, TaskDetails, TaskOutput
from lm_eval_ext.leaderboard.run_files import RunFiles, newest_run, output_folder, run_folders
from lm_eval_ext.leaderboard.task_samples import TaskSamples, sha256_of
from lm_eval_ext.scoring.scores import Score

logger = logging.getLogger(__name__)

TOLERANCE = 1e-6
"""Largest difference between a metric in the results file and the same from the samples."""


def read_run(folder: Path, *, label: str | None = None, pooled: Sequence[str] = ()) -> RunOutput:
    """Read the newest run below a folder.

    Parameters
    ----------
    label
        Name of the run; by default that of the folder given to lm_eval.
    pooled
        Patterns of the metrics that pool attempts to compute, such as ``brier:*``.

    Raises
    ------
    UserError
        If there is no run, or a file is damaged: one line with the file, the place and the remedy.
    """
    files = newest_run(folder)
    n_folders = len(run_folders(folder))
    if n_folders > 1:
        logger.warning(
            "%s: holds %d folders with runs; only the newest run, %s, is read: give each folder",
            folder, n_folders, files.path.relative_to(folder),
        )  # fmt: skip
    named = output_folder(files) if folder == files.path.parent else folder
    label = label or named.resolve().name
    return run_of(files, label=label, pooled=pooled, folder=folder)


def run_of(
    files: RunFiles, *, label: str, pooled: Sequence[str] = (), folder: Path | None = None
) -> RunOutput:
    """Read the run of a results file.

    Parameters
    ----------
    files
        Its files; tasks without a sample file have the values and standard errors of the results.

    Raises
    ------
    UserError
        If a file is damaged, or samples and results are not of one run.
    """
    try:
        return _run_of(files, label, pooled, folder)
    except UserError:
        raise
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise UserError(
            f"{files.path}: damaged, or its samples are ({error!r}); run lm_eval again"
        ) from error


def _run_of(files: RunFiles, label: str, pooled: Sequence[str], folder: Path | None) -> RunOutput:
    run = RunOutput(label, files.results, {}, folder)
    tasks = files.results.get("n-samples") or {}
    for task in tasks:
        path = files.samples.get(task)
        found = _from_samples(files, task, path, pooled) if path else _from_results(files, task)
        # lm-eval times the run, not its tasks.
        seconds = run.seconds if len(tasks) == 1 and not math.isnan(run.seconds) else None
        tokens = found.details.tokens
        speed = tokens / seconds if tokens is not None and seconds else None
        details = found.details._replace(seconds=seconds, tokens_per_second=speed)
        run.tasks[task] = replace(found, details=details)
    return run


def _from_samples(files: RunFiles, task: str, path: Path, pooled: Sequence[str]) -> TaskOutput:
    config = files.results.get("configs", {}).get(task) or {}
    samples = TaskSamples(path, config.get("metadata") or {}, pooled)
    _check_complete(files, task, samples)
    directions = _directions(files, task)
    reported = _reported(files, task, directions)
    metrics = samples.means(directions)
    for name in [name for name in metrics if name in reported]:
        if not _agree(metrics[name].value, reported[name].value):
            if "attempts" in (config.get("metadata") or {}):
                raise UserError(
                    f"{path}: {name} is {metrics[name].value:.6g} in the samples and "
                    f"{reported[name].value:.6g} in {files.path.name}; they are not of one run"
                )
            # Not a mean over questions: a metric of lm-eval that pools them in its own way.
            metrics[name] = reported[name]
            del samples.values[name]
    found = samples.pooled()
    metrics |= {name: score for name, (score, _) in found.items()}
    for name, score in reported.items():
        if name not in metrics and ":" not in name:
            metrics[name] = score
    ordered = {name: metrics.pop(name) for name in reported if name in metrics} | metrics
    return TaskOutput(
        samples.questions,
        samples.values,
        ordered,
        {name: values for name, (_, values) in found.items() if values is not None},
        _details(files, task, ordered)._replace(
            tokens=samples.tokens, samples_sha256=sha256_of(path)
        ),
    )


def _from_results(files: RunFiles, task: str) -> TaskOutput:
    directions = _directions(files, task)
    metrics = _reported(files, task, directions)
    if not metrics:
        raise UserError(f"{files.path}: has neither metrics nor samples of {task}")
    return TaskOutput({}, {}, metrics, {}, _details(files, task, metrics))


def _directions(files: RunFiles, task: str) -> dict[str, bool | None]:
    stated = (files.results.get("higher_is_better") or {}).get(task) or {}
    return {name: value if isinstance(value, bool) else None for name, value in stated.items()}


def _check_complete(files: RunFiles, task: str, samples: TaskSamples) -> None:
    expected = (files.results["n-samples"].get(task) or {}).get("effective")
    found = {len(samples.questions), *samples.counts.values()} - {expected}
    if expected is not None and found:
        raise UserError(
            f"{samples.path}: holds {min(found)} of {expected} questions (cut off, or "
            "of another run); run lm_eval again"
        )


def _reported(
    files: RunFiles, task: str, directions: Mapping[str, bool | None]
) -> dict[str, Score]:
    """Return the metrics of the results file, by name and, of several filters, the filter's."""
    rows = files.results.get("results", {}).get(task) or {}
    n = int((files.results["n-samples"].get(task) or {}).get("effective") or 0)
    filters = {key.rpartition(",")[2] for key in rows if "," in key}
    found = {}
    for key, value in rows.items():
        name, comma, filter_name = key.rpartition(",")
        if not comma or name.endswith("_stderr") or name == "bypass" or not is_number(value):
            continue
        error = rows.get(f"{name}_stderr,{filter_name}")
        spread = float(error) if is_number(error) else math.nan
        bounds = (float(value) - NORMAL_95 * spread, float(value) + NORMAL_95 * spread)
        full = key if len(filters) > 1 else name
        found[full] = Score(float(value), spread, *bounds, n, directions.get(name))
    return found


def _details(files: RunFiles, task: str, metrics: Mapping[str, Score]) -> TaskDetails:
    config = files.results.get("configs", {}).get(task) or {}
    metadata = config.get("metadata") or {}
    shots = (files.results.get("n-shot") or {}).get(task, config.get("num_fewshot"))
    return TaskDetails(
        attempts=metadata.get("attempts", config.get("repeats")),
        temperature=_temperature(config.get("generation_kwargs") or {}),
        num_fewshot=shots,
        truncated_rate=_rate(metrics, "truncated_rate"),
        invalid_rate=_rate(metrics, "invalid_rate"),
    )


def _temperature(settings: Mapping[str, Any]) -> float | None:
    """Return the temperature: 0 for greedy decoding, None where the model's default counts."""
    stated = settings.get("temperature")
    if settings.get("do_sample") is False or (stated is None and "do_sample" not in settings):
        return 0.0 if settings else None
    return float(stated) if is_number(stated) else None


def _rate(metrics: Mapping[str, Score], name: str) -> float | None:
    values = [s.value for n, s in metrics.items() if n == name or n.startswith(name + ",")]
    return values[0] if values else None


def _agree(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or math.isclose(
        a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE
    )

"""``lm-eval-ext score``: the metrics of a finished run, from its samples and without a model."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard.comparison_rows import named
from lm_eval_ext.leaderboard.console import Column, print_json, print_table, table_console
from lm_eval_ext.leaderboard.entry import plain_json
from lm_eval_ext.leaderboard.options import ScoreOptions
from lm_eval_ext.leaderboard.paired import NORMAL_95
from lm_eval_ext.leaderboard.rescoring import (
    TaskScores,
    changed_settings,
    group_score,
    score_task,
)
from lm_eval_ext.leaderboard.run_files import RunFiles, chosen_tasks, newest_run
from lm_eval_ext.leaderboard.stored_sources import StoredSources
from lm_eval_ext.methods.calibrator import read_calibrator
from lm_eval_ext.metrics import UndefinedMetricWarning
from lm_eval_ext.scoring import headline
from lm_eval_ext.scoring.metric_suites import SINGLE_ANSWER
from lm_eval_ext.scoring.scores import Score

UNSAFE_GRADERS = frozenset({"mbpp"})
"""Graders that run what the model wrote."""

logger = logging.getLogger(__name__)


def run(options: ScoreOptions) -> int:
    """Score the newest run below the folder and print the table."""
    files = newest_run(options.run)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UndefinedMetricWarning)
        scored = score_run(files, options)
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        logger.warning("%s", message)
    if not scored:
        raise UserError(
            f"{files.path.parent}: the samples of {', '.join(files.samples)} hold no attempts; "
            "give a run of tasks such as gsm8k_passn"
        )
    groups = group_scores(files, scored)
    console = table_console()
    if options.json:
        print_json(as_json(scored, groups))
    elif n_left := print_scores(console, scored, groups, options.metrics):
        console.print(f"{n_left} more rows: --metrics '*'")
    if options.output is not None:
        options.output.write_text(
            json.dumps(plain_json(as_json(scored, groups)), indent=2) + "\n", encoding="utf-8"
        )
        logger.info("scores: %s", options.output)
    return 0


def score_run(files: RunFiles, options: ScoreOptions) -> dict[str, TaskScores]:
    """Score the tasks of a run that the options ask for, those with logged attempts."""
    tasks = chosen_tasks(files, options.tasks)
    changes = {
        "attempts": options.attempts,
        "ks": options.ks,
        "vote_ks": options.vote_ks,
        "tau": options.tau,
        "n_bins": options.bins,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    plans = [_plan(task, files, changes, options) for task in tasks]
    calibrator = None if options.calibrator is None else read_calibrator(options.calibrator)
    stored = None if options.store is None else StoredSources(options.store)
    scored = {}
    for task, plan in plans:
        found = score_task(files.samples[task], **plan, calibrator=calibrator, stored=stored)
        if found is None:
            logger.warning("%s: its samples hold no attempts, left out", task)
        else:
            scored[task] = found
    return scored


def _plan(
    task: str, files: RunFiles, changes: dict[str, Any], options: ScoreOptions
) -> tuple[str, dict[str, Any]]:
    """Return how a task is to be scored; what is impossible is refused before any work."""
    metadata = files.results.get("configs", {}).get(task, {}).get("metadata") or {}
    if metadata.get("metrics") in SINGLE_ANSWER:
        changes = {name: value for name, value in changes.items() if name not in _OF_ATTEMPTS}
    changed_settings(metadata, changes)
    judges = options.regrade or metadata.get("ungraded")  # annotated lines of another tool
    grader = _grader(task, metadata, options) if judges else None
    return task, {"metadata": metadata, "changes": changes, "grader": grader}


def group_scores(
    files: RunFiles, scored: dict[str, TaskScores]
) -> dict[str, dict[str, tuple[float, float]]]:
    """Return what lm-eval's groups average over their tasks: value and standard error."""
    groups = {}
    for group, reported in files.results.get("groups", {}).items():
        members = _tasks_below(group, files.results.get("group_subtasks", {}))
        if not members or not all(member in scored for member in members):
            continue
        averaged = {key.rpartition(",")[0] for key in reported}
        groups[group] = {
            name: group_score(
                (scored[m].scores[name], int(files.results["n-samples"][m]["effective"]))
                for m in members
            )
            for name in scored[members[0]].scores
            if name in averaged and all(name in scored[m].scores for m in members)
        }
    return groups


def print_scores(
    console: Console,
    scored: dict[str, TaskScores],
    groups: dict[str, dict[str, tuple[float, float]]],
    metrics: Sequence[str] | None = None,
) -> int:
    """Print the scores of each task and group.

    Parameters
    ----------
    metrics
        Names or patterns of the rows; None for the headline.

    Returns
    -------
    int
        How many rows were left out.
    """
    n_left = 0
    found = {task: scores.scores for task, scores in scored.items()}
    for group, averages in groups.items():
        of_task = next(s for s in found.values() if averages.keys() <= s.keys())
        found[group] = {
            name: Score(value, error, value - NORMAL_95 * error, value + NORMAL_95 * error, 0,
                        of_task[name].higher_is_better)
            for name, (value, error) in averages.items()
        }  # fmt: skip
    for task, scores in found.items():
        values = {name: score.value for name, score in scores.items()}
        directions = {name: score.higher_is_better for name, score in scores.items()}
        names = headline.rows(values, directions)
        if metrics is not None or not names:
            names = headline.select(list(values), metrics or ["*"])
        n_left += len(values) - len(names)
        shown = [scores[name] for name in names]
        columns = [
            Column("value", [f"{s.value:.4f}" for s in shown]),
            Column("95% interval", [f"{s.low:.4f} to {s.high:.4f}" for s in shown]),
            Column("stderr", [f"{s.standard_error:.4f}" for s in shown], is_optional=True),
        ]
        title = task
        if task in scored:
            counts = [str(s.n_questions) for s in shown]
            columns.append(Column("questions", counts, is_optional=True))
            title += f", attempts at each question: {scored[task].n_attempts}"
        labels = [named(name, directions[name]) for name in names]
        print_table(console, [Column("metric", labels, is_name=True)], [[columns]], title=title)
    return n_left


def as_json(
    scored: dict[str, TaskScores], groups: dict[str, dict[str, tuple[float, float]]]
) -> dict[str, Any]:
    """Return scores as plain JSON."""
    return {
        "tasks": {
            task: {
                "n_attempts": scores.n_attempts,
                "settings": scores.metadata,
                "metrics": {name: score._asdict() for name, score in scores.scores.items()},
            }
            for task, scores in scored.items()
        },
        "groups": {
            group: {name: {"value": v, "standard_error": e} for name, (v, e) in averages.items()}
            for group, averages in groups.items()
        },
    }


_OF_ATTEMPTS = ("attempts", "ks", "vote_ks")


def _grader(task: str, metadata: dict[str, Any], options: ScoreOptions) -> str:
    grader = metadata.get("grader")
    if grader is None:
        raise UserError(
            f"--regrade: {task} was judged by its own metric, not by a grader of this package; "
            "leave it out with --tasks"
        )
    if grader in UNSAFE_GRADERS and not options.confirm_run_unsafe_code:
        raise UserError(
            f"--regrade: judging {task} runs programs that a model wrote; add "
            "--confirm-run-unsafe-code"
        )
    return str(grader)


def _tasks_below(group: str, subtasks: dict[str, list[str]]) -> list[str]:
    """Return the tasks of a group, those of its groups included."""
    tasks = []
    for name in subtasks.get(group, []):
        tasks += _tasks_below(name, subtasks) if name in subtasks else [name]
    return tasks

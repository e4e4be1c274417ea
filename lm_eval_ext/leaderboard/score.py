"""``lm-eval-ext score``: the metrics of a finished run, from its samples and without a model."""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from pathlib import Path
from typing import Any

from rich.console import Console

from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard.comparison_rows import named
from lm_eval_ext.leaderboard.console import Column, print_table, table_console
from lm_eval_ext.leaderboard.entry import plain_json
from lm_eval_ext.leaderboard.paired import NORMAL_95
from lm_eval_ext.leaderboard.rescoring import (
    Score,
    TaskScores,
    changed_settings,
    group_score,
    score_task,
)
from lm_eval_ext.leaderboard.run_files import RunFiles, newest_run
from lm_eval_ext.methods.calibrator import read_calibrator
from lm_eval_ext.metrics import UndefinedMetricWarning
from lm_eval_ext.scoring import headline
from lm_eval_ext.scoring.metric_suites import SINGLE_ANSWER

UNSAFE_GRADERS = frozenset({"mbpp"})
"""Graders that run what the model wrote."""

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "folder", type=Path, help="--output_path of an lm_eval run with --log_samples"
    )
    parser.add_argument("--tasks", type=_names, help="only these tasks, separated by commas")
    parser.add_argument(
        "--metrics",
        type=_names,
        metavar="NAMES",
        help="rows to print, separated by commas, with * for anything: '*' are all, which --output "
        "always has (default: those that a run prints)",
    )
    parser.add_argument("--attempts", type=int, help="only the first so many of each question")
    parser.add_argument("--ks", type=_numbers, help="k of pass@k, as 1,8,64")
    parser.add_argument("--vote-ks", type=_numbers, help="k of the votes, likewise")
    parser.add_argument("--tau", type=float, help="temperature of the softmax vote")
    parser.add_argument("--bins", type=int, help="bins of the calibration error")
    parser.add_argument(
        "--regrade", action="store_true", help="judge every attempt again with the task's grader"
    )
    parser.add_argument(
        "--confirm_run_unsafe_code",
        action="store_true",
        help="let --regrade run programs that a model wrote",
    )
    parser.add_argument(
        "--calibrator",
        type=Path,
        metavar="FILE",
        help="add the probability of this file of lm-eval-ext train calibrator, as the source "
        "calibrated",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write JSON to this file")


def run(args: argparse.Namespace) -> int:
    """Score the newest run below the folder and print the table."""
    if args.output is not None and not args.output.absolute().parent.is_dir():
        raise UserError(f"--output={args.output}: no folder {args.output.parent}; make it first")
    files = newest_run(args.folder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UndefinedMetricWarning)
        scored = score_run(files, args)
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        logger.warning("%s", message)
    if not scored:
        raise UserError(
            f"{files.path.parent}: the samples of {', '.join(files.samples)} hold no attempts; "
            "give a run of tasks such as gsm8k_passn"
        )
    groups = group_scores(files, scored)
    console = table_console()
    n_left = print_scores(console, scored, groups, args.metrics)
    if n_left:
        console.print(f"{n_left} more rows: --metrics '*'")
    if args.output is not None:
        args.output.write_text(
            json.dumps(plain_json(as_json(scored, groups)), indent=2) + "\n", encoding="utf-8"
        )
        console.print(f"scores: {args.output}", soft_wrap=True)
    return 0


def score_run(files: RunFiles, args: argparse.Namespace) -> dict[str, TaskScores]:
    """Score the tasks of a run that the options ask for, those with logged attempts."""
    unknown = set(args.tasks or ()) - files.samples.keys()
    if unknown:
        raise UserError(
            f"--tasks={','.join(sorted(unknown))}: the run has {', '.join(files.samples)}"
        )
    changes = {
        "attempts": args.attempts,
        "ks": args.ks,
        "vote_ks": args.vote_ks,
        "tau": args.tau,
        "n_bins": args.bins,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    plans = [_plan(task, files, changes, args) for task in args.tasks or files.samples]
    calibrator = None if args.calibrator is None else read_calibrator(args.calibrator)
    scored = {}
    for task, plan in plans:
        found = score_task(files.samples[task], **plan, calibrator=calibrator)
        if found is None:
            logger.warning("%s: its samples hold no attempts, left out", task)
        else:
            scored[task] = found
    return scored


def _plan(
    task: str, files: RunFiles, changes: dict[str, Any], args: argparse.Namespace
) -> tuple[str, dict[str, Any]]:
    """Return how a task is to be scored; what is impossible is refused before any work."""
    metadata = files.results.get("configs", {}).get(task, {}).get("metadata") or {}
    if metadata.get("metrics") in SINGLE_ANSWER:
        changes = {name: value for name, value in changes.items() if name not in _OF_ATTEMPTS}
    changed_settings(metadata, changes)
    grader = _grader(task, metadata, args) if args.regrade else None
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
    metrics: list[str] | None = None,
) -> int:
    """Print the scores of each task and group.

    Parameters
    ----------
    console
        Where to.
    scored, groups
        What there is.
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


def _grader(task: str, metadata: dict[str, Any], args: argparse.Namespace) -> str:
    grader = metadata.get("grader")
    if grader is None:
        raise UserError(
            f"--regrade: {task} was judged by its own metric, not by a grader of this package; "
            "leave it out with --tasks"
        )
    if grader in UNSAFE_GRADERS and not args.confirm_run_unsafe_code:
        raise UserError(
            f"--regrade: judging {task} runs programs that a model wrote; add "
            "--confirm_run_unsafe_code"
        )
    return str(grader)


def _tasks_below(group: str, subtasks: dict[str, list[str]]) -> list[str]:
    """Return the tasks of a group, those of its groups included."""
    tasks = []
    for name in subtasks.get(group, []):
        tasks += _tasks_below(name, subtasks) if name in subtasks else [name]
    return tasks


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be whole numbers separated by commas"
        ) from None

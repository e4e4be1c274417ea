"""``lm-eval-ext leaderboard votes``: how many attempts a weighted vote saves."""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard.console import Column, print_json, print_table, table_console
from lm_eval_ext.leaderboard.formatting import printed_difference
from lm_eval_ext.leaderboard.line_plots import Panel, draw
from lm_eval_ext.leaderboard.options import VotesOptions
from lm_eval_ext.leaderboard.run_comparison import check_same_questions
from lm_eval_ext.leaderboard.run_output import read_run
from lm_eval_ext.leaderboard.vote_curves import (
    Vote,
    VoteCurve,
    read_questions,
    vote_curve,
    vote_scores,
)


class TaskVotes(NamedTuple):
    """The votes of a task.

    Parameters
    ----------
    task
        Its name.
    n_questions
        Questions compared.
    ks
        Attempts in a vote.
    target
        Mean score of the baseline's majority vote of all the attempts that count.
    curves
        The baseline's majority vote first, then the votes of the run.
    """

    task: str
    n_questions: int
    ks: list[int]
    target: float
    curves: dict[str, VoteCurve]


def run(options: VotesOptions) -> int:
    """Hold the votes and print the tables."""
    found = [compare_votes(task, options) for task in _shared_tasks(options)]
    markdown = options.markdown
    console = table_console(markdown=markdown)
    if options.json:
        print_json([as_json(votes) for votes in found])
    for votes in [] if options.json else found:
        title = _heading(votes, options)
        names, columns = savings_columns(votes, options.k, options.margin)
        print_table(console, [names], [[columns]], title=title, markdown=markdown)
        names, columns = curves_columns(votes, options.k)
        print_table(console, [names], [[[column] for column in columns]], markdown=markdown)
    if options.plot is not None:
        draw([_panel(votes) for votes in found], options.plot, title=f"votes of {options.run.name}")
        console.print(f"curves: {options.plot}")
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps([as_json(votes) for votes in found], indent=1) + "\n")
    return 0


def compare_votes(task: str, options: VotesOptions) -> TaskVotes:
    """Set the votes of the run beside the majority vote of the baseline.

    Raises
    ------
    UserError
        For other questions, a k that no question has, or votes without weights.
    """
    folders = options.run, options.baseline
    of_run, of_baseline = (read_questions(folder, task) for folder in folders)
    n_run, n_baseline = (len(next(iter(q.values()))) for q in (of_run, of_baseline))
    target_k = n_baseline if options.baseline_k is None else options.baseline_k
    ks = sorted(set(options.ks or range(1, min(n_run, target_k) + 1)) | {options.k})
    for name, k, n in (
        ("--baseline-k", target_k, n_baseline),
        ("--k", options.k, n_run),
        ("--ks", ks[-1], n_run),
        ("--ks", ks[0], n_run),
    ):
        if not 1 <= k <= n:
            raise UserError(f"{name}={k} must be from 1 to {n}, the attempts of {task}")
    majority = Vote("maj")
    own_ks = [k for k in ks if k <= n_baseline]
    target = vote_scores(of_baseline, majority, [target_k])[:, 0]
    scores = vote_scores(of_baseline, majority, own_ks)
    curves = {"baseline": vote_curve(majority, own_ks, scores, target, margin=options.margin)}
    for vote in map(Vote.parse, options.vote):
        scores = vote_scores(of_run, vote, ks, tau=options.tau)
        curves[vote.name()] = vote_curve(vote, ks, scores, target, margin=options.margin)
    return TaskVotes(task, len(target), ks, float(target.mean()), curves)


def _shared_tasks(options: VotesOptions) -> list[str]:
    runs = [read_run(options.run), read_run(options.baseline)]
    shared = [task for task in runs[0].tasks if task in runs[1].tasks]
    unknown = sorted(set(options.tasks or ()) - set(shared))
    if unknown or not shared:
        stated = f"--tasks={','.join(unknown)}" if unknown else "the runs"
        raise UserError(
            f"{stated}: no such task in both runs ("
            + "; ".join(f"{run.label} has {', '.join(run.tasks) or 'none'}" for run in runs)
            + ")"
        )
    chosen = options.tasks or [task for task in shared if "_passn" in task] or shared
    for task in chosen:
        check_same_questions(runs, task)
    return list(chosen)


def savings_columns(votes: TaskVotes, k: int, margin: float) -> tuple[Column, list[Column]]:
    """Return what a vote of k attempts scores, and how few attempts reach the target."""
    names = [_label(label, curve) for label, curve in votes.curves.items()]
    headings = (f"at k={k}", "minus target", "smallest k that reaches it", "resamples that do",
                f"smallest k not {margin:g} worse")  # fmt: skip
    columns: dict[str, list[str]] = {heading: [] for heading in headings}
    for curve in votes.curves.values():
        ks = votes.ks[: len(curve.points)]
        cells = ["n/a", "n/a"]
        if k in ks:
            i = ks.index(k)
            cells = [_interval(curve.points[i]), printed_difference(*curve.differences[i][:3])]
        few, most = curve.fewest, ks[-1]
        bounds = f"({_count(few.low, most)}, {_count(few.high, most)})"
        cells += [f"{_count(few.k, most)} {bounds}", f"{few.reached:.0%}"]
        cells.append(_count(few.not_inferior, most))
        for column, cell in zip(columns.values(), cells, strict=True):
            column.append(cell)
    optional = headings[3]
    return Column("vote", names, is_name=True), [
        Column(heading, cells, is_optional=heading == optional)
        for heading, cells in columns.items()
    ]


def curves_columns(votes: TaskVotes, k: int) -> tuple[Column, list[Column]]:
    """Return the curves at some k: powers of two, the k in question and the last."""
    wanted = {1, k, *votes.ks[-1:], *(2**i for i in range(votes.ks[-1].bit_length()))}
    shown = [i for i, one in enumerate(votes.ks) if one in wanted or len(votes.ks) <= 8]
    columns = []
    for label, curve in votes.curves.items():
        points = curve.points
        cells = [_interval(points[i]) if i < len(points) else "n/a" for i in shown]
        columns.append(Column(_label(label, curve), cells))
    return Column("k", [str(votes.ks[i]) for i in shown], is_name=True), columns


def as_json(votes: TaskVotes) -> dict[str, Any]:
    """Return everything as JSON has it; an infinite k is null."""
    curves = {
        label: {
            "vote": curve.vote.name(),
            "points": [
                {
                    "k": k,
                    "score": [p.estimate, p.low, p.high],
                    "minus_target": [d.difference, d.low, d.high],
                    "p_value": d.p_value,
                }
                for k, p, d in zip(votes.ks, curve.points, curve.differences, strict=False)
            ],
            "fewest": {
                name: value if math.isfinite(value) else None
                for name, value in curve.fewest._asdict().items()
            },
        }
        for label, curve in votes.curves.items()
    }
    return {
        "task": votes.task,
        "n_questions": votes.n_questions,
        "target": votes.target,
        "curves": curves,
    }


def _panel(votes: TaskVotes) -> Panel:
    curves = {
        _label(label, curve): [
            (k, point.estimate, point.low, point.high)
            for k, point in zip(votes.ks, curve.points, strict=False)
        ]
        for label, curve in votes.curves.items()
    }
    title = f"{votes.task}, {votes.n_questions} questions"
    return Panel(title, "attempts in a vote", "score", curves, attempts=True, target=votes.target)


def _heading(votes: TaskVotes, options: VotesOptions) -> str:
    target_k = f"maj@{options.baseline_k}" if options.baseline_k else "majority vote"
    return (
        f"{votes.task}, {votes.n_questions} questions. Target: {target_k} of the baseline, "
        f"{votes.target:.3f}. 95% intervals over questions; tau {options.tau:g}."
    )


def _label(label: str, curve: VoteCurve) -> str:
    return f"baseline's {curve.vote.name()}" if label == "baseline" else label


def _interval(point: Any) -> str:
    return f"{point.estimate:.3f} ({point.low:.3f}, {point.high:.3f})"


def _count(k: float, most: int) -> str:
    return f"{k:.0f}" if math.isfinite(k) else f"> {most}"

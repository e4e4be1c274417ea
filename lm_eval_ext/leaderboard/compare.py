"""``lm-eval-ext leaderboard compare``: two or more runs in one table, with paired tests."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from rich.box import MARKDOWN, ROUNDED
from rich.console import Console
from rich.table import Table

from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard.comparison import MetricComparison, compare_runs
from lm_eval_ext.leaderboard.pass_at_k_plot import plot_pass_at_k
from lm_eval_ext.leaderboard.run_output import RunOutput, read_run
from lm_eval_ext.metrics import MeanInterval, PairedDifference

ALPHA = 0.05


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="FOLDER",
        help="--output_path of an lm_eval run with --log_samples; the first is the baseline",
    )
    parser.add_argument(
        "--metrics",
        type=lambda text: text.split(","),
        default=["*"],
        metavar="NAMES",
        help="only these, separated by commas, with * for anything: 'pass@*,maj@*'; Holm's "
        "correction is over the differences shown (default: all with a value per question)",
    )
    parser.add_argument(
        "--format",
        choices=("text", "markdown"),
        default="text",
        help="form of the table (default: %(default)s)",
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="also draw pass@k over k into this picture"
    )


def run(args: argparse.Namespace) -> int:
    """Read the runs, compare them and print the table."""
    if len(args.runs) < 2:
        raise UserError(f"{args.runs[0]}: give at least two folders to compare")
    runs = [read_run(folder) for folder in args.runs]
    compared = compare_runs(runs, metrics=args.metrics)
    console = Console()
    if not console.is_terminal:
        console.width = 200  # a pipe has no width of its own: do not wrap cells
    console.print(comparison_table(runs, compared, markdown=args.format == "markdown"))
    console.print(footnote(runs, compared), soft_wrap=True)
    if args.plot is not None:
        plot_pass_at_k(runs, compared, args.plot)
        console.print(f"pass@k curves: {args.plot}", soft_wrap=True)
    return 0


def comparison_table(
    runs: list[RunOutput], compared: list[MetricComparison], *, markdown: bool = False
) -> Table:
    """Lay out a comparison.

    Parameters
    ----------
    runs
        The runs, the baseline first.
    compared
        What `compare_runs` returned for them.
    markdown
        Use Markdown's borders.
    """
    table = Table(box=MARKDOWN if markdown else ROUNDED)
    table.add_column("task")
    table.add_column("metric")
    for run in runs:
        table.add_column(run.label, justify="right")
    for run in runs[1:]:
        table.add_column(f"{run.label} - {runs[0].label}", justify="right")
        table.add_column("p (Holm)", justify="right")
    for comparison in compared:
        cells = [_value(value) for value in comparison.values]
        for difference, p_value in zip(comparison.differences, comparison.p_values, strict=True):
            cells += [_difference(difference), _p_value(p_value)]
        arrow = {True: " ↑", False: " ↓", None: ""}[comparison.higher_is_better]
        table.add_row(comparison.task, comparison.metric + arrow, *cells)
    return table


def footnote(runs: list[RunOutput], compared: list[MetricComparison]) -> str:
    """Say what the numbers are, how many questions they rest on, and what the runs cost."""
    counts = {
        c.task: next(v.n_questions for v in c.values if v is not None)
        for c in compared
        if any(c.values)
    }
    questions = ", ".join(f"{task} {n}" for task, n in counts.items())
    seconds = ", ".join(f"{run.label} {run.seconds:.0f} s" for run in runs)
    return (
        f"Mean over questions ± half the 95% interval; questions: {questions}. Differences with "
        f"95% paired-bootstrap interval; * significant at {ALPHA} after Holm's correction. "
        f"Whole run: {seconds}."
    )


def _value(interval: MeanInterval | None) -> str:
    if interval is None:
        return "n/a"
    half = (interval.high - interval.low) / 2
    digits = 3 if abs(interval.estimate) < 10 else 1
    return f"{interval.estimate:.{digits}f} ± {half:.{digits}f}"


def _difference(difference: PairedDifference | None) -> str:
    if difference is None:
        return "n/a"
    digits = 3 if max(abs(difference.estimate_a), abs(difference.estimate_b)) < 10 else 1
    low, high = (f"{bound:+.{digits}f}" for bound in (difference.low, difference.high))
    return f"{difference.difference:+.{digits}f} ({low}, {high})"


def _p_value(p_value: float | None) -> str:
    if p_value is None or math.isnan(p_value):
        return "n/a"
    return f"{p_value:.3f}{'*' if p_value < ALPHA else ''}"

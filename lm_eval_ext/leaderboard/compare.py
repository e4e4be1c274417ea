"""``lm-eval-ext leaderboard compare``: two or more runs in one table, with paired tests."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.box import MARKDOWN, ROUNDED
from rich.table import Table

from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard.console import name_cell, table_console
from lm_eval_ext.leaderboard.formatting import (
    NOT_KNOWN,
    digits_of,
    one_line,
    printed,
    printed_difference,
    printed_p,
)
from lm_eval_ext.leaderboard.paired import PairedTest
from lm_eval_ext.leaderboard.pass_at_k_plot import plot_pass_at_k
from lm_eval_ext.leaderboard.rescoring import Score
from lm_eval_ext.leaderboard.run_arguments import (
    add_format_argument,
    add_metrics_argument,
    add_store_argument,
    pooled_patterns,
    resolve,
)
from lm_eval_ext.leaderboard.run_comparison import MetricComparison, compare_runs
from lm_eval_ext.leaderboard.run_data import RunOutput

ALPHA = 0.05


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="--output_path of an lm_eval run with --log_samples, or a stored entry (its file, or "
        "its name in --store); the first is the baseline",
    )
    add_metrics_argument(
        parser, "Holm's correction is over the differences shown (default: all of questions, and "
        "the usual ones of confidence)",
    )  # fmt: skip
    add_store_argument(parser)
    add_format_argument(parser)
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="also draw pass@k over k into this picture"
    )


def run(args: argparse.Namespace) -> int:
    """Read the runs, compare them and print the table."""
    if len(args.runs) < 2:
        raise UserError(f"{args.runs[0]}: give at least two runs to compare")
    pooled = pooled_patterns(args.metrics)
    runs = [resolve(name, store=args.store, pooled=pooled) for name in args.runs]
    compared = compare_runs(runs, metrics=args.metrics or ["*"])
    console = table_console(markdown=args.format == "markdown")
    console.print(comparison_table(runs, compared, markdown=args.format == "markdown"))
    console.print(footnote(runs, compared), soft_wrap=True, markup=False, highlight=False)
    if args.plot is not None:
        plot_pass_at_k(runs, compared, args.plot)
        console.print(f"pass@k curves: {args.plot}", soft_wrap=True, markup=False)
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
    labels = [one_line(run.label) for run in runs]
    for label in labels:
        table.add_column(name_cell(label, markdown=markdown), justify="right")
    for label in labels[1:]:
        head = name_cell(f"{label} - {labels[0]}", markdown=markdown)
        table.add_column(head, justify="right")
        table.add_column("p (Holm)", justify="right")
        table.add_column("+/=/-", justify="right")
        table.add_column("MDE", justify="right")
    for comparison in compared:
        cells = [_value(value) for value in comparison.values]
        for difference, p_value in zip(comparison.differences, comparison.p_values, strict=True):
            cells += _difference(difference, p_value, comparison.values[0])
        arrow = {True: " ↑", False: " ↓", None: ""}[comparison.higher_is_better]
        names = (comparison.task, comparison.metric + arrow)
        table.add_row(*(name_cell(name, markdown=markdown) for name in names), *cells)
    return table


def footnote(runs: list[RunOutput], compared: list[MetricComparison]) -> str:
    """Say what the numbers are, how many questions they rest on, and what the runs cost."""
    counts = {
        c.task: max(v.n_questions for v in c.values if v is not None)
        for c in compared
        if any(c.values)
    }
    questions = ", ".join(f"{task} {n}" for task, n in counts.items())
    cost = ", ".join(f"{one_line(run.label)} {_cost(run, list(counts))}" for run in runs)
    left_out = max(
        (d.n_left_out for c in compared for d in c.differences if d is not None), default=0
    )
    unpaired = any(d is not None and not d.paired for c in compared for d in c.differences)
    return (
        f"Value ± half its 95% interval over questions; questions: {questions}. Differences with "
        f"95% interval of paired questions; * significant at {ALPHA} after Holm's correction. "
        "+/=/-: questions at which the run's value is larger, equal, smaller. MDE: smallest true "
        f"difference found with 80% probability at 5%, uncorrected. Whole runs: {cost}."
        + (f" Up to {left_out} questions have no value in a run and are left out." * bool(left_out))
        + (
            " ~ The values of single questions are not known in both runs, which are taken for "
            "independent."
        )
        * unpaired
    )


def _cost(run: RunOutput, tasks: list[str]) -> str:
    tokens = [run.tasks[task].details.tokens for task in tasks]
    known = sum(n for n in tokens if n is not None) if None not in tokens else None
    parts = [f"{run.seconds:.0f} s" if run.seconds == run.seconds else "time not known"]
    if known is not None and tasks:
        parts.append(f"{known:,} tokens")
        if list(run.tasks) == tasks and run.seconds > 0:
            parts.append(f"{known / run.seconds:,.0f} tokens/s")
    return ", ".join(parts)


def _value(score: Score | None) -> str:
    return NOT_KNOWN if score is None else printed(score.value, score.low, score.high)


def _difference(
    difference: PairedTest | None, p_value: float | None, baseline: Score | None
) -> list[str]:
    if difference is None or baseline is None:
        return [NOT_KNOWN] * 4
    digits = digits_of(max(abs(baseline.value), abs(baseline.value + difference.difference)))
    shown = printed_difference(
        difference.difference, difference.low, difference.high, digits=digits
    )
    questions = NOT_KNOWN
    if difference.wins is not None:
        questions = f"{difference.wins}/{difference.ties}/{difference.losses}"
    detectable = difference.detectable
    return [
        shown + ("" if difference.paired else " ~"),
        printed_p(p_value, alpha=ALPHA),
        questions,
        NOT_KNOWN if detectable != detectable else f"{detectable:.{digits}f}",
    ]

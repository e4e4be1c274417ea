"""``lm-eval-ext leaderboard check``: fail where a run is significantly worse than a stored one."""

from __future__ import annotations

import argparse
import math

from rich.box import MARKDOWN, ROUNDED
from rich.table import Table

from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard.console import name_cell, table_console
from lm_eval_ext.leaderboard.formatting import (
    digits_of,
    one_line,
    printed,
    printed_difference,
    printed_p,
)
from lm_eval_ext.leaderboard.run_arguments import (
    add_format_argument,
    add_metrics_argument,
    add_store_argument,
    pooled_patterns,
    resolve,
)
from lm_eval_ext.leaderboard.run_comparison import MetricComparison, compare_runs
from lm_eval_ext.leaderboard.run_data import RunOutput

WORSE, BETTER, UNDEFINED = "worse", "better", "undefined"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "run", metavar="RUN", help="--output_path of the lm_eval run to check, or a stored entry"
    )
    parser.add_argument(
        "--baseline",
        required=True,
        metavar="FILE",
        help="stored entry (its file, or its name in --store) or output folder to compare with",
    )
    add_store_argument(parser)
    add_metrics_argument(
        parser,
        "Holm's correction is over the metrics that are checked, so that fewer find more (default: "
        "all of questions, and the usual ones of confidence)",
    )
    parser.add_argument(
        "--alpha",
        type=float,
        default=0.05,
        help="level of the tests, corrected for their number (default: %(default)s)",
    )
    parser.add_argument(
        "--all", action="store_true", help="list all metrics, and not only those that moved"
    )
    add_format_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Compare the run with the baseline; return 1 if a metric is worse."""
    if not 0 < args.alpha < 1:
        raise UserError(f"--alpha={args.alpha:g}: must be between 0 and 1")
    pooled = pooled_patterns(args.metrics)
    baseline = resolve(args.baseline, store=args.store, pooled=pooled)
    checked = resolve(args.run, store=args.store, pooled=pooled)
    compared = compare_runs([baseline, checked], metrics=args.metrics or ["*"])
    compared = [c for c in compared if c.higher_is_better is not None and c.values[0] is not None]
    lacking = [f"{c.task}: {c.metric}" for c in compared if c.values[1] is None]
    compared = [c for c in compared if c.values[1] is not None]
    if not compared:
        raise UserError(
            f"{args.baseline} and {args.run}: there is no metric with a direction to check; see "
            "--metrics"
        )
    verdicts = [verdict(comparison, alpha=args.alpha) for comparison in compared]
    console = table_console(markdown=args.format == "markdown")
    shown = [(c, v) for c, v in zip(compared, verdicts, strict=True) if v or args.all]
    if shown:
        table = _table(baseline, checked, shown, alpha=args.alpha, markdown=args.format != "text")
        console.print(table)
    lacking += [task for task in baseline.tasks if task not in checked.tasks]
    untested = sum(
        v is None and (c.p_values[0] is None or math.isnan(c.p_values[0]))
        for c, v in zip(compared, verdicts, strict=True)
    )
    failed = sum(v in (WORSE, UNDEFINED) for v in verdicts)
    console.print(
        _summary(baseline, checked, verdicts, alpha=args.alpha)
        + f" For {untested} of them there is no test." * bool(untested)
        + f" Not checked, because the run lacks them: {one_line(', '.join(lacking))}."
        * bool(lacking),
        soft_wrap=True,
        markup=False,
        highlight=False,
    )
    return 1 if failed else 0


def verdict(comparison: MetricComparison, *, alpha: float) -> str | None:
    """Say how a metric of the second run stands to that of the first.

    Parameters
    ----------
    comparison
        A baseline and one further run.
    alpha
        Level of the test, of the corrected p-value.

    Returns
    -------
    str or None
        ``"worse"``, ``"better"``, None without a significant difference, and ``"undefined"`` where
        the baseline has a mean over questions and the run none.
    """
    baseline, value = comparison.values
    (difference,), (p_value,) = comparison.differences, comparison.p_values
    if baseline is None or difference is None:
        return None
    lost = value is not None and math.isnan(value.value) and not math.isnan(baseline.value)
    if lost and ":" not in comparison.metric:
        return UNDEFINED
    if p_value is None or not p_value < alpha:
        return None
    risen = difference.difference > 0
    return BETTER if risen == comparison.higher_is_better else WORSE


def _table(
    baseline: RunOutput,
    checked: RunOutput,
    rows: list[tuple[MetricComparison, str | None]],
    *,
    alpha: float,
    markdown: bool,
) -> Table:
    table = Table(box=MARKDOWN if markdown else ROUNDED)
    for name in ("task", "metric"):
        table.add_column(name)
    table.add_column("baseline", justify="right")
    for name in ("run", "run - baseline", "p (Holm)", "+/=/-"):
        table.add_column(name, justify="right")
    table.add_column("")
    for comparison, said in rows:
        first, second = comparison.values
        (difference,), (p_value,) = comparison.differences, comparison.p_values
        cells = ["n/a" if s is None else printed(s.value, s.low, s.high) for s in (first, second)]
        if first is None or difference is None:
            cells += ["n/a"] * 3
        else:
            digits = digits_of(max(abs(first.value), abs(first.value + difference.difference)))
            moved = printed_difference(
                difference.difference, difference.low, difference.high, digits=digits
            )
            cells += [moved + ("" if difference.paired else " ~"), printed_p(p_value, alpha=alpha)]
            cells.append(
                "n/a"
                if difference.wins is None
                else f"{difference.wins}/{difference.ties}/{difference.losses}"
            )
        arrow = " ↑" if comparison.higher_is_better else " ↓"
        names = (comparison.task, comparison.metric + arrow)
        table.add_row(*(name_cell(n, markdown=markdown) for n in names), *cells, said or "")
    return table


def _summary(
    baseline: RunOutput, checked: RunOutput, verdicts: list[str | None], *, alpha: float
) -> str:
    counts = {v: verdicts.count(v) for v in (WORSE, UNDEFINED, BETTER)}
    failed = counts[WORSE] + counts[UNDEFINED]
    undefined = f", {counts[UNDEFINED]} undefined" if counts[UNDEFINED] else ""
    return (
        f"{'FAILED' if failed else 'passed'}: {one_line(checked.label)} against "
        f"{one_line(baseline.label)}: of {len(verdicts)} metrics {counts[WORSE]} are significantly "
        f"worse{undefined}, {counts[BETTER]} better (level {alpha:g} after Holm's correction; "
        "+/=/-: questions with a larger, equal, smaller value; ~ not paired)."
    )

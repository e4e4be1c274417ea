"""``lm-eval-ext leaderboard sources``: which confidence of one run tells right from wrong best."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from rich.box import MARKDOWN, ROUNDED
from rich.table import Table

from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard.console import name_cell, table_console
from lm_eval_ext.leaderboard.formatting import printed, printed_difference, printed_p
from lm_eval_ext.leaderboard.run_arguments import add_format_argument
from lm_eval_ext.leaderboard.run_files import newest_run
from lm_eval_ext.leaderboard.source_tests import (
    ALIASES,
    SourceTest,
    compare_sources,
    corrected,
)

ALPHA = 0.05

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("run", type=Path, help="--output_path of an lm_eval run with --log_samples")
    parser.add_argument("--tasks", type=_names, help="only these tasks, separated by commas")
    parser.add_argument(
        "--metric",
        type=_names,
        default=["auroc"],
        help="metrics of a confidence, separated by commas: auroc, within_question_auroc, "
        "auprc, aurc, prr, and of probabilities ece, debiased_ece, brier, nll (default: auroc)",
    )
    parser.add_argument(
        "--against",
        default="mean_logprob",
        metavar="SOURCE",
        help="the source that the others are compared with (default: %(default)s)",
    )
    add_format_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Compare the sources and print the table."""
    files = newest_run(args.run)
    unknown = set(args.tasks or ()) - files.samples.keys()
    if unknown:
        raise UserError(
            f"--tasks={','.join(sorted(unknown))}: the run has {', '.join(files.samples)}"
        )
    metrics = [ALIASES.get(name, name) for name in args.metric]
    tests: list[SourceTest] = []
    for task in args.tasks or files.samples:
        metadata = files.results.get("configs", {}).get(task, {}).get("metadata") or {}
        found = compare_sources(
            task, files.samples[task], metadata, metrics=metrics, against=args.against
        )
        if not found:
            logger.warning("%s: has no two sources with %s", task, ", ".join(metrics))
        tests += found
    if not tests:
        raise UserError(f"{args.run}: there is nothing to compare with {args.against}")
    console = table_console(markdown=args.format == "markdown")
    console.print(_table(corrected(tests), markdown=args.format == "markdown"))
    console.print(
        f"Value ± half its 95% interval; difference from {args.against} with its 95% interval by "
        "paired bootstrap over questions, on the same attempts; * significant at "
        f"{ALPHA} after Holm's correction over all rows.",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )
    return 0


def _table(tests: list[SourceTest], *, markdown: bool) -> Table:
    table = Table(box=MARKDOWN if markdown else ROUNDED)
    for name in ("task", "metric", "source"):
        table.add_column(name)
    against = tests[0].against
    for name in ("value", against, f"difference from {against}", "p (Holm)", "questions"):
        table.add_column(name_cell(name, markdown=markdown), justify="right")
    for row in tests:
        arrow = {True: " ↑", False: " ↓", None: ""}[row.higher_is_better]
        questions = str(row.test.n_questions)
        table.add_row(
            *(name_cell(n, markdown=markdown) for n in (row.task, row.metric + arrow, row.source)),
            printed(row.value.value, row.value.low, row.value.high),
            printed(row.reference.value, row.reference.low, row.reference.high),
            printed_difference(row.test.difference, row.test.low, row.test.high),
            printed_p(row.p_value, alpha=ALPHA),
            questions + (f" of {row.test.n_questions + row.n_left_out}" * bool(row.n_left_out)),
        )
    return table


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]

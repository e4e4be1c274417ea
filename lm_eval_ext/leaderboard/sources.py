"""``lm-eval-ext leaderboard sources``: which confidence of one run tells right from wrong best."""

from __future__ import annotations

import logging
from itertools import groupby

from rich.console import Console

from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard.comparison_rows import (
    ALPHA,
    difference_columns,
    named,
    value_column,
)
from lm_eval_ext.leaderboard.console import Column, print_json, print_table, table_console
from lm_eval_ext.leaderboard.options import SourcesOptions
from lm_eval_ext.leaderboard.run_files import newest_run
from lm_eval_ext.leaderboard.source_tests import (
    ALIASES,
    SourceTest,
    compare_sources,
    corrected,
)

logger = logging.getLogger(__name__)


def run(options: SourcesOptions) -> int:
    """Compare the sources and print the table."""
    files = newest_run(options.run)
    unknown = set(options.tasks or ()) - files.samples.keys()
    if unknown:
        raise UserError(
            f"--tasks={','.join(sorted(unknown))}: the run has {', '.join(files.samples)}"
        )
    metrics = [ALIASES.get(name, name) for name in options.metrics]
    tests: list[SourceTest] = []
    for task in options.tasks or files.samples:
        metadata = files.results.get("configs", {}).get(task, {}).get("metadata") or {}
        found = compare_sources(
            task, files.samples[task], metadata, metrics=metrics, against=options.against
        )
        if not found:
            logger.warning("%s: has no two sources with %s", task, ", ".join(metrics))
        tests += found
    if not tests:
        raise UserError(f"{options.run}: there is nothing to compare with {options.against}")
    if options.json:
        print_json(corrected(tests))
        return 0
    markdown = options.markdown
    console = table_console(markdown=markdown)
    for (task, metric), rows in groupby(corrected(tests), key=lambda t: (t.task, t.metric)):
        _print(console, task, metric, list(rows), markdown=markdown)
    console.print(
        f"Values: ± half the 95% interval, or its ends; difference from {options.against} with "
        "its 95% interval by paired bootstrap over questions, on the same attempts; * below "
        f"{ALPHA} after Holm's correction over all {len(tests)} rows.",
        soft_wrap=markdown or not console.is_terminal,
    )
    return 0


def _print(
    console: Console, task: str, metric: str, rows: list[SourceTest], *, markdown: bool
) -> None:
    counts = [
        str(row.test.n_questions)
        + f" of {row.test.n_questions + row.n_left_out}" * bool(row.n_left_out)
        for row in rows
    ]
    against = rows[0].against
    difference = difference_columns(
        f"difference from {against}",
        [row.test for row in rows],
        [row.p_value for row in rows],
        [row.reference for row in rows],
        further=(),
    )
    values = [value_column("value", [row.value for row in rows])]
    reference = [value_column(against, [row.reference for row in rows])]
    print_table(
        console,
        [Column("source", [row.source for row in rows], is_name=True)],
        [[values, reference], [[*difference, Column("questions", counts, is_optional=True)]]],
        title=f"{task}, {named(metric, rows[0].higher_is_better)}",
        markdown=markdown,
    )

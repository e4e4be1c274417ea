"""``lm-eval-ext leaderboard check``: fail where a run is significantly worse than a stored one."""

from __future__ import annotations

import math
from itertools import groupby

from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard.compare import family, print_noise
from lm_eval_ext.leaderboard.comparison_rows import difference_columns, named, value_column
from lm_eval_ext.leaderboard.console import Column, print_json, print_table, table_console
from lm_eval_ext.leaderboard.formatting import one_line
from lm_eval_ext.leaderboard.noise import noise_of
from lm_eval_ext.leaderboard.options import CheckOptions
from lm_eval_ext.leaderboard.run_arguments import pooled_patterns, resolve
from lm_eval_ext.leaderboard.run_comparison import MetricComparison, compare_runs
from lm_eval_ext.leaderboard.run_data import RunOutput

WORSE, BETTER, UNDEFINED = "worse", "better", "undefined"


def run(options: CheckOptions) -> int:
    """Compare the run with the baseline; return 1 if a metric is worse."""
    pooled = pooled_patterns(options.metrics)
    baseline = resolve(options.baseline, results=options.results, pooled=pooled)
    checked = resolve(options.run, results=options.results, pooled=pooled)
    compared = compare_runs([baseline, checked], metrics=options.metrics)
    compared = [c for c in compared if c.higher_is_better is not None and None not in c.values]
    tested = [c for c in compared if c.p_values[0] is not None]
    if not tested:
        raise UserError(
            f"{options.baseline} and {options.run}: there is no metric with a direction to check; "
            "see --metrics"
        )
    verdicts = [verdict(comparison, alpha=options.alpha) for comparison in tested]
    status = 1 if any(v in (WORSE, UNDEFINED) for v in verdicts) else 0
    if options.json:
        rows = [{**c._asdict(), "verdict": v} for c, v in zip(tested, verdicts, strict=True)]
        record = {"runs": [baseline.label, checked.label], "metrics": rows}
        metrics = [(c.task, c.metric) for c in tested]
        print_json({**record, "noise": noise_of([baseline, checked], metrics)})
        return status
    markdown = options.markdown
    console = table_console(markdown=markdown)
    shown = {id(c): v or "" for c, v in zip(tested, verdicts, strict=True) if v or options.all}
    if options.all:
        shown = {id(c): shown.get(id(c), "not checked") for c in compared}
    listed = [c for c in compared if id(c) in shown]
    for task, group in groupby(listed, key=lambda c: c.task):
        of_task = list(group)
        names = [named(c.metric, c.higher_is_better) for c in of_task]
        values = [
            [value_column(heading, [c.values[i] for c in of_task])]
            for i, heading in enumerate(("baseline", "run"))
        ]
        difference = difference_columns(
            "run - baseline",
            [c.differences[0] for c in of_task],
            [c.p_values[0] for c in of_task],
            [c.values[0] for c in of_task],
            alpha=options.alpha,
        )
        difference.insert(2, Column("", [shown[id(c)] for c in of_task]))
        print_table(
            console,
            [Column("metric", names, is_name=True)],
            [values, [difference]],
            title=task,
            markdown=markdown,
        )
    print_noise(console, [baseline, checked], listed, markdown=markdown)
    untested = sum(math.isnan(c.p_values[0] or 0) for c in tested)
    console.print(
        f"{_summary(baseline, checked, verdicts, alpha=options.alpha)} {family(tested)}; +/=/-: "
        "questions with a larger, equal, smaller value; ~ not paired)."
        + f" For {untested} of them there is no test." * bool(untested)
        + lacking(baseline, checked),
        soft_wrap=True,
    )
    return status


def lacking(baseline: RunOutput, checked: RunOutput) -> str:
    """Say which rows of the results one of the runs lacks, and which tasks the checked one."""
    said = [
        f" {one_line(run.label)} lacks {one_line(', '.join(names))}."
        for run, other in ((baseline, checked), (checked, baseline))
        if (names := _missing_rows(run, other))
    ]
    tasks = [task for task in baseline.tasks if task not in checked.tasks]
    return "".join(said) + f" Not run: {one_line(', '.join(tasks))}." * bool(tasks)


def _missing_rows(run: RunOutput, other: RunOutput) -> list[str]:
    """Return what another run has of the same tasks and this one has not: rows, or a source."""
    missing = []
    for task in run.tasks.keys() & other.tasks.keys():
        own = run.row_names(task)
        sources = {name.partition(":")[2] for name in own}
        for name in sorted(other.row_names(task) - own):
            source = name.partition(":")[2]
            missing.append(name if source in sources else f"*:{source}")
    return sorted(set(missing))


def verdict(comparison: MetricComparison, *, alpha: float) -> str | None:
    """Say how a metric of the second run stands to that of the first.

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


def _summary(
    baseline: RunOutput, checked: RunOutput, verdicts: list[str | None], *, alpha: float
) -> str:
    counts = {v: verdicts.count(v) for v in (WORSE, UNDEFINED, BETTER)}
    failed = counts[WORSE] + counts[UNDEFINED]
    undefined = f", {counts[UNDEFINED]} undefined" if counts[UNDEFINED] else ""
    return (
        f"{'FAILED' if failed else 'passed'}: {one_line(checked.label)} against "
        f"{one_line(baseline.label)}: of {len(verdicts)} metrics {counts[WORSE]} are significantly "
        f"worse{undefined}, {counts[BETTER]} better (level {alpha:g} after Holm's correction over"
    )

"""``lm-eval-ext leaderboard compare``: two or more runs in tables, with paired tests."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from itertools import groupby

from rich.console import Console

from lm_eval_ext.leaderboard.comparison_rows import (
    ALPHA,
    difference_columns,
    named,
    value_column,
)
from lm_eval_ext.leaderboard.console import Column, print_json, print_table, table_console
from lm_eval_ext.leaderboard.formatting import one_line
from lm_eval_ext.leaderboard.line_plots import plot_pass_at_k
from lm_eval_ext.leaderboard.noise import NOISE, Noise, noise_columns, noise_of
from lm_eval_ext.leaderboard.options import CompareOptions
from lm_eval_ext.leaderboard.run_arguments import pooled_patterns, resolve
from lm_eval_ext.leaderboard.run_comparison import MetricComparison, compare_runs
from lm_eval_ext.leaderboard.run_data import RunOutput


def run(options: CompareOptions) -> int:
    """Read the runs, compare them and print the tables."""
    pooled = pooled_patterns(options.metrics)
    runs = [resolve(name, results=options.results, pooled=pooled) for name in options.runs]
    compared = compare_runs(runs, metrics=options.metrics)
    if options.json:
        record = {"runs": [run.label for run in runs], "metrics": compared}
        print_json({**record, "noise": _noise(runs, compared)})
        return 0
    markdown = options.markdown
    console = table_console(markdown=markdown)
    print_comparison(console, runs, compared, markdown=markdown)
    print_noise(console, runs, compared, markdown=markdown)
    console.print(footnote(runs, compared), soft_wrap=markdown or not console.is_terminal)
    if options.plot is not None:
        plot_pass_at_k(runs, options.plot)
        console.print(f"pass@k curves: {options.plot}", soft_wrap=True)
    console.print(f"Page of all attempts: {page_command(options.runs)}", soft_wrap=True)
    return 0


def print_comparison(
    console: Console,
    runs: list[RunOutput],
    compared: list[MetricComparison],
    *,
    markdown: bool = False,
) -> None:
    """Print the tables of a comparison, task by task.

    Parameters
    ----------
    console
        Where to; its width decides how the columns are divided.
    runs
        The runs, the baseline first.
    compared
        What `compare_runs` returned for them.
    markdown
        Use Markdown's borders.
    """
    labels = [one_line(run.label) for run in runs]
    for task, rows in groupby(compared, key=lambda comparison: comparison.task):
        of_task = list(rows)
        names = [named(c.metric, c.higher_is_better) for c in of_task]
        values = [
            [value_column(label, [c.values[i] for c in of_task])] for i, label in enumerate(labels)
        ]
        differences = [
            difference_columns(
                f"{label} - {labels[0]}",
                [c.differences[i] for c in of_task],
                [c.p_values[i] for c in of_task],
                [c.values[0] for c in of_task],
            )
            for i, label in enumerate(labels[1:])
        ]
        n = max((v.n_questions for c in of_task for v in c.values if v is not None), default=0)
        print_table(
            console,
            [Column("metric", names, is_name=True)],
            [values, differences],
            title=f"{task}, {n} questions",
            markdown=markdown,
        )


def print_noise(
    console: Console,
    runs: list[RunOutput],
    compared: list[MetricComparison],
    *,
    markdown: bool = False,
) -> None:
    """Print what the noise of the values and differences is made of; as `print_comparison`."""
    for task, rows in groupby(_noise(runs, compared), key=lambda one: one.task):
        columns = noise_columns(list(rows))
        title = f"{task}: {NOISE}"
        print_table(console, columns[:2], [[columns[2:]]], title=title, markdown=markdown)


def _noise(runs: list[RunOutput], compared: list[MetricComparison]) -> list[Noise]:
    return noise_of(runs, [(c.task, c.metric) for c in compared])


def page_command(runs: Sequence[str]) -> str:
    """Return the command that makes the page of some runs and opens it."""
    return f"lm-eval-ext leaderboard build {shlex.join(runs)} --output board --open"


def footnote(runs: list[RunOutput], compared: list[MetricComparison]) -> str:
    """Say what the numbers are, what was tested, and what the runs cost."""
    tasks = list(dict.fromkeys(c.task for c in compared))
    cost = ", ".join(f"{one_line(run.label)} {_cost(run, tasks)}" for run in runs)
    tests = [d for c in compared for d in c.differences if d is not None]
    left_out = max((d.n_left_out for d in tests), default=0)
    return (
        "Values: ± half the 95% interval over questions, or its ends. Differences: with the "
        f"95% interval of paired questions; * below {ALPHA} after Holm's correction over "
        f"{family(compared)}. +/=/-: questions with a larger, equal, smaller value than "
        f"{one_line(runs[0].label)}. MDE: smallest true difference found with 80% probability at "
        f"5%, uncorrected (of a value: from a known number). Whole runs: {cost}."
        + f" Up to {left_out} questions have no value in a run and are left out." * bool(left_out)
        + (
            " ~ Values of single questions are not known in both runs, which are taken for "
            "independent."
        )
        * any(not d.paired for d in tests)
    )


def family(compared: list[MetricComparison]) -> str:
    """Say which tests were corrected together."""
    tested = [c for c in compared if any(p is not None for p in c.p_values)]
    n_tests = sum(p is not None for c in tested for p in c.p_values)
    names = ", ".join(dict.fromkeys(one_line(c.metric) for c in tested))
    return f"{n_tests} test{'s' * (n_tests > 1)} ({names})" if n_tests else "no test"


def _cost(run: RunOutput, tasks: list[str]) -> str:
    tokens = [run.tasks[task].details.tokens for task in tasks]
    known = sum(n for n in tokens if n is not None) if None not in tokens else None
    parts = [f"{run.seconds:.0f} s" if run.seconds == run.seconds else "time not known"]
    if known is not None and tasks:
        parts.append(f"{known:,} tokens")
        if list(run.tasks) == tasks and run.seconds > 0:
            parts.append(f"{known / run.seconds:,.0f} tokens/s")
    return ", ".join(parts)

"""``lm-eval-ext leaderboard sources``: which confidence of one run tells right from wrong best."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
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
from lm_eval_ext.leaderboard.paired import FloatArray, PairedTest, paired_pooled
from lm_eval_ext.leaderboard.rescoring import changed_settings
from lm_eval_ext.leaderboard.run_files import chosen_tasks, newest_run, read_samples
from lm_eval_ext.metrics import UndefinedMetricWarning, holm
from lm_eval_ext.scoring.aggregations import Aggregation
from lm_eval_ext.scoring.confidence_sources import Source, confidence_sources
from lm_eval_ext.scoring.metric_suites import suite
from lm_eval_ext.scoring.question import SourceMetric
from lm_eval_ext.scoring.scores import Score, score_with_values

logger = logging.getLogger(__name__)

N_RESAMPLES = 1_000

ALIASES = {"auroc": "hallucination_auroc"}
"""Short names of metrics."""


class SourceTest(NamedTuple):
    """A source against another one.

    Parameters
    ----------
    value, reference
        The metric of the source and of the other one, on the attempts of the questions at which
        both have a confidence in every attempt.
    """

    task: str
    metric: str
    source: str
    against: str
    value: Score
    reference: Score
    test: PairedTest
    n_left_out: int
    p_value: float = float("nan")


def compare_sources(
    task: str,
    samples: Path,
    metadata: Mapping[str, Any],
    *,
    metrics: Sequence[str],
    against: str,
) -> list[SourceTest]:
    """Test every source of a task's attempts against one of them.

    Returns
    -------
    list of SourceTest
        Not yet corrected. A metric of probabilities has none for sources that are not
        probabilities, and nothing is compared with a source of questions such as ``vote_share``.

    Raises
    ------
    UserError
        If the task has no such metric, or its attempts no such source.
    """
    metric_suite = suite(metadata.get("metrics", "passn"), changed_settings(metadata, {}))
    chosen = {name: metric_suite.source_metrics.get(name) for name in metrics}
    usable = [n for n, m in metric_suite.source_metrics.items() if _pools(m)]
    for name, metric in chosen.items():
        if metric is None or not _pools(metric):
            raise UserError(
                f"--metrics={name}: {task} has {', '.join(usable) or 'none'} of sources"
            )
    questions = _read(samples)
    names = list(dict.fromkeys(source for sources in questions.values() for source in sources))
    if against not in names:
        raise UserError(
            f"--against={against}: the attempts of {task} have "
            f"{', '.join(names) or 'no confidence'}; choose one of these"
        )
    tests = []
    for metric_name, metric in chosen.items():
        assert metric is not None
        items = {source: _items(questions, source, metric) for source in names}
        for source in names:
            if source != against and items[source] and items[against]:
                found = _test(items[source], items[against], metric)
                left_out = len(questions) - found[2].n_questions
                tests.append(SourceTest(task, metric_name, source, against, *found, left_out))
    return tests


def corrected(tests: Sequence[SourceTest]) -> list[SourceTest]:
    """Return tests with their p-values corrected together, after Holm."""
    if not tests:
        return []
    p_values = holm([test.test.p_value for test in tests])
    return [test._replace(p_value=float(p)) for test, p in zip(tests, p_values, strict=True)]


def _pools(metric: SourceMetric) -> bool:
    return isinstance(metric.aggregation, Aggregation)


def _read(samples: Path) -> dict[int, dict[str, Source]]:
    """Return the sources of each question that speak of every attempt, questions in order."""
    found: dict[int, dict[str, Source]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        for sample in read_samples(samples):
            attempts = sample.get("attempts")
            if not attempts or "correct" not in attempts[0]:
                raise UserError(
                    f"{samples}: its samples hold no judged attempts; give a run of tasks such as "
                    "gsm8k_passn"
                )
            if int(sample["doc_id"]) in found:
                raise UserError(f"{samples}: has several filters; sources are compared for one")
            sources = confidence_sources(attempts)
            found[int(sample["doc_id"])] = {
                name: source
                for name, source in sources.items()
                if source.votes is not None and len(source.confidence) == len(attempts)
            }
    return dict(sorted(found.items()))


def _items(
    questions: Mapping[int, Mapping[str, Source]], source: str, metric: SourceMetric
) -> dict[int, Any]:
    items = {}
    for number, sources in questions.items():
        if source in sources:
            value = metric.value((), sources[source])
            if value is not None:
                items[number] = value
    return items


def _test(
    first: Mapping[int, Any], second: Mapping[int, Any], metric: SourceMetric
) -> tuple[Score, Score, PairedTest]:
    shared = sorted(first.keys() & second.keys())
    a, values_a = _score([first[i] for i in shared], metric)
    b, values_b = _score([second[i] for i in shared], metric)
    return a, b, paired_pooled(a, b, values_a, values_b)


def _score(items: list[Any], metric: SourceMetric) -> tuple[Score, FloatArray]:
    assert isinstance(metric.aggregation, Aggregation)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        found, values = score_with_values(
            items, metric.aggregation, metric.higher_is_better, N_RESAMPLES
        )
    return found, np.full(N_RESAMPLES, np.nan) if values is None else values


def run(options: SourcesOptions) -> int:
    """Compare the sources and print the table."""
    files = newest_run(options.run)
    metrics = [ALIASES.get(name, name) for name in options.metrics]
    tests: list[SourceTest] = []
    for task in chosen_tasks(files, options.tasks):
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
    console: Console,
    task: str,
    metric: str,
    rows: list[SourceTest],
    *,
    markdown: bool,
) -> None:
    against = rows[0].against
    counts = [
        str(row.test.n_questions)
        + f" of {row.test.n_questions + row.n_left_out}" * bool(row.n_left_out)
        for row in rows
    ]
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
        title=f"{task}, {named(metric, rows[0].value.higher_is_better)}",
        markdown=markdown,
    )

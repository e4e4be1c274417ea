"""What the noise of values and differences is made of, and what more attempts or questions see."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from lm_eval_ext.leaderboard.console import Column
from lm_eval_ext.leaderboard.formatting import one_line
from lm_eval_ext.leaderboard.run_data import RunOutput, TaskOutput
from lm_eval_ext.metrics import (
    VarianceParts,
    attempt_variance,
    minimum_detectable_effect,
    variance_parts,
)
from lm_eval_ext.metrics.checks import FloatArray

MANY_ATTEMPTS = 64
MANY_QUESTIONS = 4
"""Times as many questions."""

NOISE = (
    "variance from the draw of the attempts and from the choice of the questions, and the smallest "
    "detectable difference: at this size, at other numbers of attempts and questions"
)

_PASS = re.compile(r"pass([@^])(\d+)")
_SHARES = ("invalid_rate", "truncated_rate")


class Noise(NamedTuple):
    """The noise of a value, or of a difference of two runs on the same questions.

    Parameters
    ----------
    task, metric, of
        What it is the noise of; `of` names the run, or both.
    attempts, questions
        Squared standard error that the draw of the attempts makes, and the choice of questions.
    detectable
        Smallest true difference found with 80% probability at the 5% level; of a value that from
        a known number.
    detectable_at_64, detectable_at_4x
        The same with 64 attempts, and with four times the questions.
    """

    task: str
    metric: str
    of: str
    attempts: float
    questions: float
    detectable: float
    detectable_at_64: float
    detectable_at_4x: float


def noise_of(runs: Sequence[RunOutput], metrics: Iterable[tuple[str, str]]) -> list[Noise]:
    """Return the noise of every value and difference whose attempts are known.

    Those are pass@k and pass^k for at least 2k attempts, and the shares of attempts.

    Parameters
    ----------
    runs
        The runs, the baseline first; those without a task are left out of its rows.
    metrics
        Names of tasks and metrics.
    """
    found = []
    for task, metric in metrics:
        tasks = [(one_line(run.label), run.tasks[task]) for run in runs if task in run.tasks]
        pairs: list[tuple[str, TaskOutput, TaskOutput | None]]
        pairs = [(label, one, None) for label, one in tasks]
        first, baseline = tasks[0]
        pairs += [(f"{label} - {first}", one, baseline) for label, one in tasks[1:]]
        for label, one, other in pairs:
            now, at_64 = (parts_of(one, metric, other, at=at) for at in (None, MANY_ATTEMPTS))
            if now is not None and at_64 is not None:
                found.append(_noise(task, metric, label, now, at_64))
    return found


def _noise(task: str, metric: str, label: str, now: VarianceParts, at_64: VarianceParts) -> Noise:
    n = now.n_questions
    errors = (
        now.standard_error(),
        at_64.standard_error(),
        now.standard_error(MANY_QUESTIONS * n),
    )
    smallest = (float(minimum_detectable_effect(error)) for error in errors)
    return Noise(task, metric, label, now.attempts / n, now.questions / n, *smallest)


def parts_of(
    one: TaskOutput, metric: str, baseline: TaskOutput | None = None, *, at: int | None = None
) -> VarianceParts | None:
    """Split the variance of a value, or of its difference from a baseline.

    Parameters
    ----------
    one, baseline
        A task of one or of two runs on the same questions.
    metric
        Its name.
    at
        Attempts; None: as many as were made.

    Returns
    -------
    VarianceParts or None
        None where the attempts behind the values are not known, or too few.
    """
    tasks = [one] if baseline is None else [one, baseline]
    shared = sorted(set.intersection(*(set(task.values.get(metric, ())) for task in tasks)))
    if len(shared) < 2:
        return None
    values = np.array([[task.values[metric][i] for i in shared] for task in tasks])
    now = [_attempt_variances(task, metric, shared, None) for task in tasks]
    if any(noise is None or np.isnan(noise).any() for noise in now) or np.isnan(values).any():
        return None
    gaps = values[0] if baseline is None else values[0] - values[1]
    parts = variance_parts(gaps, sum(noise for noise in now if noise is not None))
    if at is None:
        return parts
    then = [_attempt_variances(task, metric, shared, at) for task in tasks]
    return parts._replace(attempts=float(sum(n.mean() for n in then if n is not None)))


def _attempt_variances(
    task: TaskOutput, metric: str, questions: Sequence[int], at: int | None
) -> FloatArray | None:
    n, matched = task.details.attempts, _PASS.fullmatch(metric)
    counted = metric if metric in _SHARES else "pass@1" if matched else None
    values = task.values.get(counted or "", {})
    if n is None or counted is None or not all(i in values for i in questions):
        return None
    counts = np.rint([values[i] * n for i in questions])
    kind, k = matched.groups() if matched else ("@", 1)
    return np.asarray(attempt_variance(counts, n, int(k), at=at, all_correct=kind == "^"))


def noise_columns(rows: Sequence[Noise]) -> list[Column]:
    """Return the columns of a table, the first two of them names."""
    totals = [one.attempts + one.questions for one in rows]
    return [
        Column("noise of", [one.metric for one in rows], is_name=True),
        Column("", [one.of for one in rows], is_name=True),
        Column("standard error", [f"{total**0.5:.4f}" for total in totals]),
        Column("attempts", _shares(rows, "attempts", totals)),
        Column("questions", _shares(rows, "questions", totals)),
        Column("MDE", [f"{one.detectable:.4f}" for one in rows]),
        Column(f"N={MANY_ATTEMPTS}", [f"{one.detectable_at_64:.4f}" for one in rows]),
        Column("4x questions", [f"{one.detectable_at_4x:.4f}" for one in rows]),
    ]


def _shares(rows: Sequence[Noise], part: str, totals: Sequence[float]) -> list[str]:
    values = (getattr(one, part) for one in rows)
    return [
        f"{value / total:.0%}" if total else "-"
        for value, total in zip(values, totals, strict=True)
    ]

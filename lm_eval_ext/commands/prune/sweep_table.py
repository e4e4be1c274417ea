"""The cells of a sweep as tables: values, and paired differences from the sink criterion."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard.line_plots import Panel
from lm_eval_ext.metrics import proportion_interval, t_interval
from lm_eval_ext.metrics.checks import FloatArray

Cells = list[dict[str, Any]]

DENSE = "dense"
REFERENCE = "sink"
PERPLEXITY = "perplexity"


class Entry(NamedTuple):
    """One number of a table.

    Parameters
    ----------
    estimate, low, high
        Value and 95% interval.
    values
        Values by seed and by question or sequence, shape (n_seeds, n_questions).
    """

    estimate: float
    low: float
    high: float
    values: FloatArray


def shown_metrics(measured: Iterable[str], names: Sequence[str] | None) -> list[str]:
    """Return which metrics get a table.

    Parameters
    ----------
    names
        Names, with or without the task; ``("all",)``; or None for perplexity and the first metric
        of each task.

    Raises
    ------
    UserError
        For a name that was not measured.

    Examples
    --------
    >>> shown_metrics(["perplexity", "t/acc", "t/acc_norm"], None)
    ['perplexity', 't/acc']
    >>> shown_metrics(["perplexity", "t/acc", "t/acc_norm"], ["acc_norm"])
    ['t/acc_norm']
    """
    known = list(measured)
    if names is not None and "all" in names:
        return known
    if names is None:
        return list({name.partition("/")[0]: name for name in reversed(known)}.values())[::-1]
    shown = []
    for name in names:
        found = [one for one in known if name in (one, one.rpartition("/")[2])]
        if not found:
            raise UserError(f"--metrics={name} was not measured; choose from {', '.join(known)}")
        shown += found
    return shown


def tables(cells: Cells, metrics: Sequence[str], *, title: str) -> str:
    """Return all tables of a sweep as Markdown."""
    by_criterion, dense = _grouped(cells)
    ratios = sorted({ratio for by_ratio in by_criterion.values() for ratio in by_ratio})
    parts = [f"# Pruning: {title}\n"]
    for metric in metrics:
        measured = dense["metrics"][metric]
        if measured["estimate"] is None:
            continue
        entries = _entries(by_criterion, metric)
        higher = measured["higher_is_better"]
        parts.append(_values_table(metric, measured, entries, ratios, higher))
        if REFERENCE in entries and len(entries) > 1:
            parts.append(_differences_table(metric, entries, ratios))
    return "\n".join(parts)


def panels(cells: Cells, metrics: Sequence[str]) -> list[Panel]:
    """Return the curves of each metric over the share removed, one per criterion."""
    by_criterion, dense = _grouped(cells)
    found = []
    for metric in metrics:
        estimate = dense["metrics"][metric]["estimate"]
        if estimate is None:
            continue
        curves = {
            criterion: [
                (ratio, entry.estimate, entry.low, entry.high)
                for ratio, entry in sorted(by_ratio.items())
            ]
            for criterion, by_ratio in _entries(by_criterion, metric).items()
        }
        found.append(Panel(metric, "share removed", metric, curves, target=estimate))
    return found


def _grouped(cells: Cells) -> tuple[dict[str, dict[float, Cells]], dict[str, Any]]:
    """Return cells by criterion and ratio, and that of the dense model."""
    by_criterion: dict[str, dict[float, Cells]] = {}
    for cell in cells:
        by_ratio = by_criterion.setdefault(cell["criterion"], {})
        by_ratio.setdefault(cell["ratio"], []).append(cell)
    return by_criterion, by_criterion.pop(DENSE)[0.0][0]


def _entries(
    by_criterion: dict[str, dict[float, Cells]], metric: str
) -> dict[str, dict[float, Entry]]:
    return {
        criterion: {ratio: _entry(group, metric) for ratio, group in by_ratio.items()}
        for criterion, by_ratio in by_criterion.items()
    }


def _entry(cells: Cells, metric: str) -> Entry:
    """Return a cell's number, or the mean over seeds with its interval over seeds."""
    measured = [cell["metrics"][metric] for cell in cells]
    values = np.array([m["values"] for m in measured], dtype=np.float64)
    numbers = np.array([_number(m["estimate"]) for m in measured])
    if len(cells) == 1:
        low, high = measured[0]["low"], measured[0]["high"]
        return Entry(float(numbers[0]), _number(low), _number(high), values)
    if metric == PERPLEXITY:
        interval = t_interval(np.log(numbers))
        estimate, low, high = np.exp([interval.estimate, interval.low, interval.high]).tolist()
        return Entry(estimate, low, high, values)
    share = bool((numbers >= 0).all() and (numbers <= 1).all())
    interval = proportion_interval(numbers) if share else t_interval(numbers)
    return Entry(interval.estimate, interval.low, interval.high, values)


def _number(value: float | None) -> float:
    return np.nan if value is None else value


def _values_table(
    metric: str,
    dense: dict[str, Any],
    entries: dict[str, dict[float, Entry]],
    ratios: list[float],
    higher_is_better: bool | None,
) -> str:
    lines = [
        f"## {metric}\n",
        f"Dense: {_cell(dense['estimate'], dense['low'], dense['high'])}. 95% intervals over "
        "questions or sequences; `random` is the mean over seeds (of perplexity, the geometric "
        "mean), its interval over seeds. Bold: best of the column.\n",
        "| criterion | " + " | ".join(f"{ratio:.2%}" for ratio in ratios) + " |",
        "|---" * (len(ratios) + 1) + "|",
    ]
    best = {}
    if higher_is_better is not None:
        for ratio in ratios:
            column = [e[ratio].estimate for e in entries.values() if ratio in e]
            best[ratio] = (np.nanmax if higher_is_better else np.nanmin)(column)
    for criterion, by_ratio in entries.items():
        row = []
        for ratio in ratios:
            entry = by_ratio.get(ratio)
            text = "-" if entry is None else _cell(entry.estimate, entry.low, entry.high)
            is_best = entry is not None and entry.estimate == best.get(ratio)
            row.append(f"**{text}**" if is_best else text)
        lines.append(f"| {criterion} | " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def _differences_table(
    metric: str, entries: dict[str, dict[float, Entry]], ratios: list[float]
) -> str:
    """Return `sink` minus each criterion, paired by question or sequence."""
    unit = "mean NLL of a sequence, nats" if metric == PERPLEXITY else metric
    lines = [
        f"`{REFERENCE}` minus the criterion, paired, in {unit}; `*` where the 95% interval "
        "excludes 0:\n",
        "| criterion | " + " | ".join(f"{ratio:.2%}" for ratio in ratios) + " |",
        "|---" * (len(ratios) + 1) + "|",
    ]
    for criterion, by_ratio in entries.items():
        if criterion == REFERENCE:
            continue
        row = []
        for ratio in ratios:
            ours, theirs = entries[REFERENCE].get(ratio), by_ratio.get(ratio)
            if ours is None or theirs is None:
                row.append("-")
                continue
            estimate, half = paired_difference(ours.values, theirs.values)
            row.append(f"{estimate:+.3f} ± {half:.3f}{' *' if abs(estimate) > half else ''}")
        lines.append(f"| {criterion} | " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def paired_difference(ours: FloatArray, theirs: FloatArray) -> tuple[float, float]:
    """Return the mean difference over questions and half the width of its 95% interval.

    Its variance is that over questions plus that of the mean over seeds; the t quantile has the
    degrees of freedom of the smaller of the two numbers.

    Parameters
    ----------
    ours, theirs
        Shape (n_seeds, n_questions); the numbers of seeds may differ. NaN is left out.

    Examples
    --------
    >>> ours, theirs = np.array([[1.0, 2.0, 3.0]]), np.array([[0.0, 1.0, 2.0]])
    >>> paired_difference(ours, theirs)
    (1.0, 0.0)
    """
    from scipy.special import stdtrit

    difference = ours.mean(axis=0) - theirs.mean(axis=0)
    known = ~np.isnan(difference)
    interval = t_interval(difference[known])
    variance, least = interval.standard_error**2, int(known.sum())
    for values in (ours, theirs):
        if len(values) > 1:
            variance += values[:, known].mean(axis=1).var(ddof=1) / len(values)
            least = min(least, len(values))
    half = float(stdtrit(least - 1, 0.975)) * float(np.sqrt(variance)) if least > 1 else np.nan
    return interval.estimate, half


def _cell(estimate: float, low: float, high: float) -> str:
    digits = 3 if abs(estimate) < 10 else 2
    return f"{estimate:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"

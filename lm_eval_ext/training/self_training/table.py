"""What a round did, in one line of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_COLUMNS = {
    "round": 5,
    "sampled": 8,
    "correct": 15,
    "invalid": 8,
    "truncated": 9,
    "boxed": 6,
    "reason": 8,
    "dropped": 8,
    "eval": 8,
    "yes": 7,
    "cut": 5,
    "loss": 16,
}
"""Columns and their widths; boxed: boxes completed, dropped: duplicates, cut: rows cut."""

HEADER = " ".join(f"{name:>{width}}" for name, width in _COLUMNS.items())


def round_line(number: int, report: Mapping[str, Any]) -> str:
    """Return the line of a round.

    Examples
    --------
    >>> counts = {"sampled": 80, "correct": 20, "invalid": 1, "truncated": 2, "box_completed": 0}
    >>> rows = {"reason": 15, "dropped": 5, "eval": 80, "yes": 20, "cut": 0}
    >>> line = round_line(1, {**counts, **rows, "loss_curve": [[5, 0.9], [10, 0.52]]})
    >>> line.split()
    ['1', '80', '20', '25.0%', '1', '2', '0', '15', '5', '80', '25.0%', '0', '0.900', '->', '0.520']
    """
    losses = report["loss_curve"]
    cells = {
        "round": number,
        **{name: report[name] for name in ("sampled", "invalid", "truncated")},
        "correct": f"{report['correct']} {report['correct'] / report['sampled']:.1%}",
        "boxed": report["box_completed"],
        "reason": report["reason"],
        "dropped": report["dropped"],
        "eval": report.get("eval", "-"),
        "yes": f"{report['yes'] / report['eval']:.1%}" if report.get("eval") else "-",
        "cut": report["cut"],
        "loss": f"{losses[0][1]:.3f} -> {losses[-1][1]:.3f}",
    }
    return " ".join(f"{cells[name]!s:>{width}}" for name, width in _COLUMNS.items())

"""A short table of our tasks in place of lm-eval's, which prints every row in the alphabet's order.

A task of ours puts the rows that speak for it, with their intervals, into its configuration in the
results (``headline``). Tasks without, others' all, keep lm-eval's table.
"""

from __future__ import annotations

import argparse
import inspect
import shlex
import sys
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

MakeTable = Callable[..., str]

ARROWS = {True: "↑", False: "↓"}
_NORMAL_95 = 1.959964


def with_headlines(make_table: MakeTable) -> MakeTable:
    """Wrap lm-eval's ``make_table``; one that takes other arguments is returned as it is."""
    if list(inspect.signature(make_table).parameters) != ["result_dict", "column", "sort_results"]:
        return make_table

    @wraps(make_table)
    def table(
        result_dict: Mapping[str, Any], column: str = "results", sort_results: bool = False
    ) -> str:
        try:
            tables, n_left = _tables(result_dict, column)
            others = {k: v for k, v in result_dict[column].items() if k not in tables}
            # What is a row of its own below is no row of the tasks' table.
            others = {k: v for k, v in others.items() if not tables or not _is_ours(k, result_dict)}
        except (AttributeError, KeyError, TypeError, ValueError):
            return make_table(result_dict, column, sort_results)
        if not tables:
            return make_table(result_dict, column, sort_results)
        texts = [text for text in tables.values() if text]
        if others:
            texts.insert(0, make_table({**result_dict, column: others}, column, sort_results))
        if column == "groups" or not result_dict.get("groups"):
            texts.append(_last_lines(n_left))
        return "\n".join(texts)

    return table


def _tables(result_dict: Mapping[str, Any], column: str) -> tuple[dict[str, str], int]:
    """Return a table per task or group of ours, by name, and how many rows they leave out."""
    tables, n_left = {}, 0
    for name, rows in result_dict[column].items():
        is_group = name in result_dict.get("group_subtasks", {})
        if is_group != (column == "groups"):
            continue
        shown = _of_group(name, rows, result_dict) if is_group else _headline(name, result_dict)
        if not shown:
            continue
        n = result_dict["n-samples"].get(name, {}).get("effective")
        title = name + (f", {n} questions" if n else "")
        tables[name] = _table(title, shown)
        n_rows = sum("," in key and "_stderr," not in key for key in rows)
        n_left += n_rows - len(shown)
    return tables, n_left


def _headline(task: str, result_dict: Mapping[str, Any]) -> list[dict[str, Any]]:
    config = result_dict.get("configs", {}).get(task) or {}
    return list(config.get("headline") or [])


def _is_ours(name: str, result_dict: Mapping[str, Any]) -> bool:
    """Tell whether a task has a headline, or all tasks of a group have."""
    members = result_dict.get("group_subtasks", {}).get(name)
    if members is None:
        return bool(_headline(name, result_dict))
    return bool(members) and all(_is_ours(member, result_dict) for member in members)


def _of_group(
    name: str, rows: Mapping[str, Any], result_dict: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return a group's averages of the rows that speak for its tasks."""
    if not _is_ours(name, result_dict):
        return []
    shown: dict[str, dict[str, Any]] = {}
    members = [name]
    while members:
        member = members.pop(0)
        members += result_dict["group_subtasks"].get(member, [])
        for row in _headline(member, result_dict):
            key = next((k for k in rows if k.startswith(f"{row['metric']},")), None)
            if key is not None and row["metric"] not in shown:
                error = rows.get(key.replace(",", "_stderr,", 1))
                half = _NORMAL_95 * error if isinstance(error, float) else float("nan")
                ends = {"low": rows[key] - half, "high": rows[key] + half}
                shown[row["metric"]] = {**row, "value": rows[key], **ends}
    return list(shown.values())


def _table(title: str, rows: list[dict[str, Any]]) -> str:
    cells = [(title, "", "value", "95% interval")]
    for row in rows:
        value, low, high = (_number(row[name]) for name in ("value", "low", "high"))
        ends = f"{low} to {high}" if "n/a" not in (low, high) else "n/a"
        cells.append((row["metric"], ARROWS.get(row["higher_is_better"], ""), value, ends))
    widths = [max(len(row[i]) for row in cells) for i in range(4)]
    lines = [
        f"|{a:<{widths[0]}}|{b:<{widths[1]}}|{c:>{widths[2]}}|{d:>{widths[3]}}|"
        for a, b, c, d in cells
    ]
    lines.insert(1, "|" + "|".join("-" * width for width in widths) + "|")
    return "\n".join(lines) + "\n"


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, (int, float)) and value == value else "n/a"


def _last_lines(n_left: int) -> str:
    """Return how to see more: the other rows, and the page of all attempts."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--output_path", "-o")
    parser.add_argument("--log_samples", "-s", action="store_true")
    known, _ = parser.parse_known_args(sys.argv[1:])
    folder = shlex.quote(known.output_path or "FOLDER")
    more = f'{n_left} more rows: --metadata \'{{"report": "all"}}\''
    if not (known.output_path and known.log_samples):
        return f"{more}. To keep the attempts: --output_path FOLDER --log_samples"
    return (
        f"{more}, or lm-eval-ext score {folder} --metrics '*'\n"
        f"Page of all attempts: lm-eval-ext leaderboard build {folder} --output board --open"
    )

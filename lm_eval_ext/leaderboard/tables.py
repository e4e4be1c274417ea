"""A board as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from typing import Any

from lm_eval_ext.leaderboard.formatting import NOT_KNOWN, csv_text, latex_text, markdown_text
from lm_eval_ext.scoring.headline import MAIN, select

Board = dict[str, Any]

COLUMNS = (*MAIN, "debiased_ece:*", "hallucination_auroc:*", "within_question_auroc:*")
"""Metrics with a column in Markdown and LaTeX; K is the largest there is. JSON and CSV have all."""

NOTE = (
    "Value ± half its 95% interval over questions. The rank in brackets is one more than the "
    "number of runs that are significantly better (paired tests on the same questions, 5%, Holm's "
    "correction over all pairs of the column); bold: significantly better than every other run."
)

_CSV_HEAD = (
    "run", "model", "wrapper", "task", "metric", "value", "low", "high", "printed", "n", "k",
    "rank", "best", "attempts", "temperature", "num_fewshot", "truncated_rate", "invalid_rate",
    "tokens", "seconds", "tokens_per_second", "samples_sha256",
)  # fmt: skip


def as_csv(board: Board) -> str:
    """Return the board as CSV, one line per run, task and metric; texts are not formulas."""
    runs = {run["id"]: run for run in board["runs"]}
    details = {(row["run"], row["task"]): row for row in board["details"]}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_CSV_HEAD)
    for cell in board["cells"]:
        run, row = runs[cell["run"]], details[cell["run"], cell["task"]]
        named = re.search(r"@(\d+)", cell["metric"])
        known = {**row, **cell, "run": run["label"], "model": run["model"]}
        known |= {"wrapper": run["wrapper"], "k": named[1] if named else None}
        # What is printed is this package's own and a number, whatever sign it begins with.
        cells = [known[n] if n == "printed" else _csv_cell(known[n]) for n in _CSV_HEAD]
        writer.writerow(cells)
    return out.getvalue()


def as_markdown(board: Board, *, columns: Sequence[str] = COLUMNS) -> str:
    """Return the board as Markdown: models x tasks, then a table of each task."""
    blocks = ["# Leaderboard", NOTE]
    if len(board["tasks"]) > 1:
        blocks += [
            "## All tasks",
            _markdown(*_overview(board, columns, markdown_text, _bold_markdown)),
        ]
    for task in board["tasks"]:
        table = _task_table(board, task, columns, markdown_text, _bold_markdown)
        blocks += [f"## {markdown_text(task['name'])}", _caption(task), _markdown(*table)]
    return "\n\n".join(blocks) + "\n"


def as_latex(board: Board, *, columns: Sequence[str] = COLUMNS) -> str:
    """Return the board as LaTeX tables that need the package booktabs."""
    blocks = ["% Needs \\usepackage{booktabs}.", f"% {NOTE}"]
    if len(board["tasks"]) > 1:
        blocks.append(_latex(*_overview(board, columns, latex_text, _bold_latex), "All tasks"))
    for task in board["tasks"]:
        table = _task_table(board, task, columns, latex_text, _bold_latex)
        blocks.append(_latex(*table, f"{latex_text(task['name'])}. {latex_text(_caption(task))}"))
    return "\n\n".join(blocks) + "\n"


def chosen_metrics(task: dict[str, Any], columns: Sequence[str]) -> list[str]:
    """Return the metrics of a task with a column, in its order.

    Parameters
    ----------
    columns
        Names or patterns; K stands for the largest k of that metric.
    """
    names = [metric["name"] for metric in task["metrics"]]
    return select(names, columns) or names[:1]


Escape = Callable[[str], str]
Table = tuple[list[str], list[list[str]]]


def _overview(board: Board, columns: Sequence[str], escape: Escape, bold: Escape) -> Table:
    """Lay out models x tasks by the first metric of each task."""
    first = {task["name"]: chosen_metrics(task, columns)[0] for task in board["tasks"]}
    cells = {(c["run"], c["task"], c["metric"]): c for c in board["cells"]}
    head = ["run", "model"] + [escape(f"{task}: {metric}") for task, metric in first.items()]
    head += ["tokens", "seconds", "tokens/s"]
    rows = []
    for run in board["runs"]:
        shown = [
            _cell(cells.get((run["id"], task, metric)), bold) for task, metric in first.items()
        ]
        counts = [row["tokens"] for row in board["details"] if row["run"] == run["id"]]
        tokens = None if None in counts else sum(counts)
        speed = tokens / run["seconds"] if tokens is not None and run["seconds"] else None
        cost = [_decimals(tokens, 0), _decimals(run["seconds"], 1), _decimals(speed, 0)]
        rows.append([escape(run["label"]), escape(run["model"]), *shown, *cost])
    return head, rows


def _task_table(
    board: Board, task: dict[str, Any], columns: Sequence[str], escape: Escape, bold: Escape
) -> Table:
    """Lay out a task: runs by its first metric, metrics, settings and cost."""
    metrics = chosen_metrics(task, columns)
    directions = {metric["name"]: metric["higher_is_better"] for metric in task["metrics"]}
    cells = {(c["run"], c["metric"]): c for c in board["cells"] if c["task"] == task["name"]}
    details = {row["run"]: row for row in board["details"] if row["task"] == task["name"]}
    runs = [run for run in board["runs"] if run["id"] in details]
    sign = -1 if directions[metrics[0]] is not False else 1

    def order(run: dict[str, Any]) -> tuple[bool, float]:
        value = cells.get((run["id"], metrics[0]), {}).get("value")
        return value is None, sign * (value or 0.0)

    arrows = {True: " ↑", False: " ↓", None: ""}
    head = ["run", "model", "wrapper"]
    head += [escape(name + arrows[directions[name]]) for name in metrics]
    head += ["N", "attempts", "temperature", "shots", "truncated", "invalid"]
    head += ["tokens", "seconds", "tokens/s"]
    rows = []
    for run in sorted(runs, key=order):
        row = details[run["id"]]
        shown = [_cell(cells.get((run["id"], name)), bold) for name in metrics]
        counts = [c["n"] for (name, _), c in cells.items() if name == run["id"]]
        settings = [max(counts, default=None), row["attempts"], row["temperature"]]
        settings += [row["num_fewshot"]]
        rates = [_decimals(row[name], 3) for name in ("truncated_rate", "invalid_rate")]
        cost = [_decimals(row["tokens"], 0), _decimals(row["seconds"], 1)]
        cost += [_decimals(row["tokens_per_second"], 0)]
        names = [escape(run[key]) for key in ("label", "model", "wrapper")]
        rows.append([*names, *shown, *(_plain(s) for s in settings), *rates, *cost])
    return head, rows


def _cell(cell: dict[str, Any] | None, bold: Escape) -> str:
    if cell is None:
        return NOT_KNOWN
    shown = bold(cell["printed"]) if cell["best"] else cell["printed"]
    return shown if cell["rank"] is None else f"{shown} ({cell['rank']})"


def _caption(task: dict[str, Any]) -> str:
    return f"{task['n_questions']} questions."


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _latex(head: list[str], rows: list[list[str]], caption: str) -> str:
    head, *rows = [[_latex_signs(cell) for cell in row] for row in (head, *rows)]
    body = [" & ".join(row) + r" \\" for row in rows]
    lines = [
        r"\begin{table}",
        f"\\caption{{{caption}}}",
        f"\\begin{{tabular}}{{{'l' * len(head)}}}",
        r"\toprule",
        " & ".join(head) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines)


def _latex_signs(text: str) -> str:
    signs = {"±": r"$\pm$", "↑": r"$\uparrow$", "↓": r"$\downarrow$"}
    return "".join(signs.get(character, character) for character in text)


def _bold_markdown(text: str) -> str:
    return f"**{text}**"


def _bold_latex(text: str) -> str:
    return f"\\textbf{{{text}}}"


def _csv_cell(value: Any) -> str:
    if value is None:
        return ""
    return csv_text(value) if isinstance(value, str) else str(value)


def _plain(value: Any) -> str:
    return NOT_KNOWN if value is None else str(value)


def _decimals(value: float | None, digits: int) -> str:
    return NOT_KNOWN if value is None else f"{value:,.{digits}f}"

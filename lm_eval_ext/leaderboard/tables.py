"""A board as Markdown, CSV and LaTeX, by way of pandas."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from lm_eval_ext.leaderboard.formatting import (
    ARROWS,
    NOT_KNOWN,
    csv_text,
    latex_text,
    markdown_table,
    markdown_text,
)
from lm_eval_ext.scoring.headline import MAIN, select

if TYPE_CHECKING:
    import pandas as pd

Board = dict[str, Any]

COLUMNS = (*MAIN, "debiased_ece:*", "hallucination_auroc:*", "within_question_auroc:*")
"""Metrics with a column in Markdown and LaTeX; K is the largest there is. JSON and CSV have all."""

NOTE = (
    "Value ± half its 95% interval over questions. The rank in brackets is one more than the "
    "number of runs that are significantly better (paired tests on the same questions, 5%, Holm's "
    "correction over all pairs of the column); bold: significantly better than every other run."
)

_CSV_HEAD = [
    "run", "model", "wrapper", "task", "metric", "value", "low", "high", "printed", "n", "k",
    "rank", "best", "attempts", "temperature", "num_fewshot", "truncated_rate", "invalid_rate",
    "tokens", "seconds", "tokens_per_second", "samples_sha256",
]  # fmt: skip


class _Form(NamedTuple):
    """How texts, the best value and a table are written."""

    escape: Callable[[str], str]
    best: str
    write: Callable[[pd.DataFrame, str], str]

    def cell(self, cell: dict[str, Any]) -> str:
        shown = self.best.replace("VALUE", cell["printed"]) if cell["best"] else cell["printed"]
        return shown if cell["rank"] is None else f"{shown} ({cell['rank']})"


def as_csv(board: Board) -> str:
    """Return the board as CSV, one line per run, task and metric; texts are not formulas."""
    import pandas as pd

    runs = pd.DataFrame(board["runs"])[["id", "label", "model", "wrapper"]]
    runs = runs.rename(columns={"id": "run"})
    # Objects: a count beside one that is not known stays a whole number.
    cells, details = (pd.DataFrame(board[name], dtype=object) for name in ("cells", "details"))
    table = cells.merge(runs, on="run").merge(details, on=["run", "task"])
    table["k"] = table["metric"].str.extract(r"@(\d+)", expand=False)
    table["run"] = table["label"]
    for name in ("run", "model", "wrapper", "task", "metric"):
        table[name] = table[name].map(csv_text)
    return str(table[_CSV_HEAD].to_csv(index=False, lineterminator="\n"))


def as_markdown(board: Board, *, columns: Sequence[str] = COLUMNS) -> str:
    """Return the board as Markdown: models x tasks, then a table of each task."""
    tables = _tables(board, columns, _Form(markdown_text, "**VALUE**", _markdown))
    blocks = [
        f"## {markdown_text(title)}\n\n{note}{table}{_noise(board, title)}"
        for title, note, table in tables
    ]
    return "\n\n".join(["# Leaderboard", NOTE, *blocks]) + "\n"


def _noise(board: Board, task: str) -> str:
    """Return the table of what the noise of a task is made of, where that is known."""
    # It imports what the options of the commands, which are read for --help, must not.
    from lm_eval_ext.leaderboard.noise import NOISE, Noise, noise_columns

    rows = [Noise(**row) for row in board["noise"] if row["task"] == task]
    if not rows:
        return ""
    columns = noise_columns(rows)
    cells = [list(row) for row in zip(*(one.cells for one in columns), strict=True)]
    table = markdown_table([one.heading for one in columns], cells)
    return f"\n\n{NOISE[0].upper()}{NOISE[1:]}.\n\n{table}"


def as_latex(board: Board, *, columns: Sequence[str] = COLUMNS) -> str:
    """Return the board as LaTeX tables that need the package booktabs."""
    tables = _tables(board, columns, _Form(latex_text, r"\textbf{VALUE}", _latex))
    head = ["% Needs \\usepackage{booktabs}.", f"% {NOTE}"]
    return "\n\n".join([*head, *(table for *_, table in tables)]) + "\n"


def chosen_metrics(task: dict[str, Any], columns: Sequence[str]) -> list[str]:
    """Return the metrics of a task with a column, in its order."""
    names = [metric["name"] for metric in task["metrics"]]
    return select(names, columns) or names[:1]


def _tables(board: Board, columns: Sequence[str], form: _Form) -> Iterator[tuple[str, str, str]]:
    """Yield title, note and text: models x tasks by their first metrics, then each task."""
    import pandas as pd

    runs = pd.DataFrame(board["runs"]).set_index("id")
    names = runs[["label", "model", "wrapper"]].map(form.escape)
    names = names.rename(columns={"label": "run"})
    cells = pd.DataFrame(board["cells"]).set_index(["task", "metric", "run"])
    cells["shown"] = [form.cell(cell) for cell in board["cells"]]
    cells = cells.sort_index()
    details = pd.DataFrame(board["details"], dtype=object).set_index(["task", "run"])
    chosen = {task["name"]: chosen_metrics(task, columns) for task in board["tasks"]}
    if len(chosen) > 1:
        first = {f"{task}: {m[0]}": cells["shown"].loc[(task, m[0])] for task, m in chosen.items()}
        # A sum with one that is not known is not known.
        tokens = details["tokens"].groupby("run").apply(lambda n: n.astype(float).sum(skipna=False))
        cost = pd.DataFrame({"tokens": tokens, "seconds": runs["seconds"].astype(float)})
        cost["tokens_per_second"] = cost["tokens"] / cost["seconds"]
        shown = pd.DataFrame(first, index=runs.index).rename(columns=form.escape)
        whole = pd.concat([names[["run", "model"]], shown, _cost(cost)], axis=1)
        yield "All tasks", "", form.write(whole.fillna(NOT_KNOWN), form.escape("All tasks"))
    for task in board["tasks"]:
        metrics = chosen[task["name"]]
        directions = {metric["name"]: metric["higher_is_better"] for metric in task["metrics"]}
        of_task, row = cells.loc[task["name"]], details.loc[task["name"]]
        shown = of_task["shown"].unstack("metric").reindex(columns=metrics)
        shown.columns = [form.escape(name + ARROWS[directions[name]]) for name in metrics]
        settings = pd.DataFrame({"N": of_task["n"].groupby("run").max().astype(object)})
        settings = settings.join(row[["attempts", "temperature", "num_fewshot"]])
        settings = settings.rename(columns={"num_fewshot": "shots"}).map(_plain)
        rates = row[["truncated_rate", "invalid_rate"]].map(partial(_decimals, digits=3))
        rates = rates.rename(columns=lambda name: name.removesuffix("_rate"))
        parts = [names, shown, settings, rates, _cost(row)]
        value = of_task["value"].loc[metrics[0]].reindex(runs.index).astype(float).dropna()
        order = value.sort_values(ascending=directions[metrics[0]] is False, kind="stable").index
        index = [*order, *(run for run in runs.index if run in row.index and run not in order)]
        table = pd.concat(parts, axis=1).reindex(index).fillna(NOT_KNOWN)
        note = f"{task['n_questions']} questions."
        caption = f"{form.escape(task['name'])}. {note}"
        yield task["name"], f"{note}\n\n", form.write(table, caption)


def _cost(table: pd.DataFrame) -> pd.DataFrame:
    digits = {"tokens": 0, "seconds": 1, "tokens_per_second": 0}
    shown = {name: table[name].map(partial(_decimals, digits=n)) for name, n in digits.items()}
    return table.assign(**shown)[list(digits)].rename(columns={"tokens_per_second": "tokens/s"})


def _markdown(table: pd.DataFrame, caption: str) -> str:
    # to_markdown pads every cell to the widest of its column, and so changes all lines at once.
    lines = [list(table.columns), ["---"] * table.shape[1], *table.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _latex(table: pd.DataFrame, caption: str) -> str:
    text = str(table.to_latex(index=False, caption=caption, column_format="l" * table.shape[1]))
    for sign, written in (("±", r"$\pm$"), ("↑", r"$\uparrow$"), ("↓", r"$\downarrow$")):
        text = text.replace(sign, written)
    return text.rstrip()


def _plain(value: Any) -> str:
    return NOT_KNOWN if value is None or value != value else str(value)


def _decimals(value: float | None, *, digits: int) -> str:
    return NOT_KNOWN if value is None or value != value else f"{value:,.{digits}f}"

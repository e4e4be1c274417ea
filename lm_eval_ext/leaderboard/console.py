"""Tables on the terminal, in a pipe and as Markdown; no number is ever shortened."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.box import ROUNDED
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lm_eval_ext.leaderboard.entry import plain_json
from lm_eval_ext.leaderboard.formatting import markdown_table, markdown_text, one_line

UNBOUNDED = 100_000
"""Characters: wider than any table."""

_HEADING = 9
_NAME = 40
"""Characters: a heading is not folded below the first, a column of names may be above the other."""


def print_json(value: Any) -> None:
    """Print a value as JSON; what is no number is null, and named tuples are objects."""
    print(json.dumps(plain_json(value), indent=1, ensure_ascii=False))


class Column(NamedTuple):
    """A column of a table.

    Parameters
    ----------
    is_name
        Whether the cells are names, which stand left and may be folded, or numbers.
    is_optional
        Whether it is left out of a terminal that is too narrow.
    """

    heading: str
    cells: Sequence[str]
    is_name: bool = False
    is_optional: bool = False


Columns = list[Column]


def table_console(*, markdown: bool = False) -> Console:
    """Return a console as wide as the terminal; a pipe has no width, and Markdown needs none."""
    console = Console(emoji=False, markup=False, highlight=False)
    if markdown or not console.is_terminal:
        console.width = UNBOUNDED
    return console


def print_table(
    console: Console,
    names: Columns,
    sections: Sequence[Sequence[Columns]],
    *,
    title: str = "",
    markdown: bool = False,
) -> None:
    """Print a table, or as many below each other as the width needs.

    Parameters
    ----------
    sections
        Parts that are divided first, such as values and differences. Each is a list of groups:
        columns that stay together.
    """
    if title:
        console.print(f"\n**{markdown_text(title)}**\n" if markdown else f"\n{one_line(title)}")
    for columns in folded(names, sections, width=console.width):
        rows = list(zip(*(column.cells for column in columns), strict=True))
        if markdown:
            console.print(markdown_table([column.heading for column in columns], rows))
            continue
        table = Table(box=ROUNDED)
        for column in columns:
            table.add_column(
                Text("\n".join(_heading(column))),
                justify="left" if column.is_name else "right",
                no_wrap=not column.is_name,
                overflow="fold",
            )
        for row in rows:
            table.add_row(*(Text(one_line(cell)) for cell in row))
        console.print(table)


def folded(names: Columns, sections: Sequence[Sequence[Columns]], *, width: int) -> list[Columns]:
    """Return the columns of each table that fits a width.

    All in one where there is room; else a section in each, without its optional columns if need be;
    else as many groups in each as fit.

    Examples
    --------
    >>> names, values = [Column("metric", ["pass@1"], is_name=True)], Column("run", ["0.6 ± 0.05"])
    >>> [len(table) for table in folded(names, [[[values], [values]], [[values]]], width=40)]
    [3, 2]
    """
    everything = [*names, *(c for section in sections for group in section for c in group)]
    if _width(everything) <= width:
        return [everything]
    tables: list[Columns] = []
    for section in sections:
        needed = [[column for column in group if not column.is_optional] for group in section]
        fitting = [
            whole
            for groups in (section, needed)
            if _width(whole := [*names, *(c for group in groups for c in group)]) <= width
        ]
        if fitting:
            tables.append(fitting[0])
            continue
        first = len(tables)
        for group, least in zip(section, needed, strict=True):
            shown = group if _width([*names, *group]) <= width else least
            if len(tables) > first and _width([*tables[-1], *shown]) <= width:
                tables[-1] += shown
            else:
                tables.append([*names, *shown])
    return tables


def _width(columns: Columns) -> int:
    """Return the characters that a table takes, borders included; long names can be folded."""
    widths = [
        min(_NAME, _cells(c)) if c.is_name else max(_cells(c), *map(cell_len, _heading(c)))
        for c in columns
    ]
    return sum(widths) + 3 * len(widths) + 1


def _cells(column: Column) -> int:
    return max((cell_len(one_line(cell)) for cell in column.cells), default=0)


def _heading(column: Column) -> list[str]:
    """Return the lines of a heading no wider than the cells."""
    width = max(_HEADING, _cells(column))
    return textwrap.wrap(one_line(column.heading), width) or [""]

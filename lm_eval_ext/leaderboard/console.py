"""Tables on the terminal, in a pipe and as Markdown; names from files are shown as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lm_eval_ext.leaderboard.formatting import markdown_text, one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

UNBOUNDED = 100_000
"""Characters: wider than any table."""


def table_console(*, markdown: bool) -> Console:
    """Return a console that wraps cells only to fit a table of text into a terminal.

    Parameters
    ----------
    markdown
        The table is Markdown, of which a wrapped cell would make two rows.
    """
    from rich.console import Console

    console = Console(emoji=False)
    if markdown or not console.is_terminal:  # a pipe has no width of its own
        console.width = UNBOUNDED
    return console


def name_cell(text: str, *, markdown: bool) -> Text:
    r"""Return a cell or a heading with a name that may be anybody's.

    Examples
    --------
    >>> str(name_cell("[/b] a|b", markdown=False)), str(name_cell("[/b] a|b", markdown=True))
    ('[/b] a|b', '\\[/b\\] a\\|b')
    """
    from rich.text import Text

    return Text(markdown_text(text) if markdown else one_line(text))

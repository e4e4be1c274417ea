"""How numbers and foreign texts are shown, the same in every form of a table."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

NOT_KNOWN, NOT_TESTED = "n/a", "-"
ARROWS = {True: " ↑", False: " ↓", None: ""}

_ROUNDING = 1e-9

# An underscore between letters means nothing.
_MARKDOWN = re.compile(r"([\\`*\[\]<>!|~$&]|(?<![^\W_])_|_(?![^\W_]))")
# Some spreadsheets read the full-width forms alike.
_FORMULA = tuple("=+-@") + tuple(chr(ord(sign) + 0xFEE0) for sign in "=+-@")
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    # After the end of a row these two would be read as arguments of it.
    "[": "{[}",
    "*": "{*}",
}


def digits_of(value: float) -> int:
    """Return how many decimals a value is shown with: three, and one from 10 on."""
    return 3 if abs(value) < 10 else 1


def printed(value: float, low: float = math.nan, high: float = math.nan) -> str:
    """Show a metric with half its interval, or with both ends where half would leave its range.

    Parameters
    ----------
    low, high
        Ends of its interval; NaN where there is none.

    Examples
    --------
    >>> printed(0.6109, 0.5541, 0.6651), printed(75.36, 73.1, 77.6), printed(float("nan"))
    ('0.611 ± 0.055', '75.4 ± 2.2', 'n/a')
    >>> printed(0.0, 0.0, 0.717), printed(0.98, 0.9, 1.0)
    ('0.000 (0.000, 0.717)', '0.980 (0.900, 1.000)')
    """
    if not math.isfinite(value):
        return NOT_KNOWN
    digits = digits_of(value)
    shown = f"{value:.{digits}f}"
    half = (high - low) / 2
    if not math.isfinite(half):
        return shown
    # The range of a metric is not known here. Where its interval ends at or before -1, 0 or 1,
    # half of it must do so, too.
    if any(
        (low >= bound > value - half + _ROUNDING) or (high <= bound < value + half - _ROUNDING)
        for bound in (-1.0, 0.0, 1.0)
    ):
        return f"{shown} ({low:.{digits}f}, {high:.{digits}f})"
    return f"{shown} ± {half:.{digits}f}"


def printed_difference(difference: float, low: float, high: float, *, digits: int = 3) -> str:
    """Show a difference with its interval.

    Examples
    --------
    >>> printed_difference(-0.0331, -0.057, -0.0123)
    '-0.033 (-0.057, -0.012)'
    """
    if not math.isfinite(difference):
        return NOT_KNOWN
    if not math.isfinite(low) or not math.isfinite(high):
        return f"{difference:+.{digits}f}"
    return f"{difference:+.{digits}f} ({low:+.{digits}f}, {high:+.{digits}f})"


def printed_p(p_value: float | None, *, alpha: float) -> str:
    """Show a p-value, with a star where it is below `alpha`; None is one of nothing tested."""
    if p_value is None:
        return NOT_TESTED
    if math.isnan(p_value):
        return NOT_KNOWN
    shown = "<0.001" if p_value < 0.0005 else f"{p_value:.3f}"
    return f"{shown}{'*' if p_value < alpha else ''}"


def one_line(text: str) -> str:
    r"""Return a text without line breaks and other control characters.

    Examples
    --------
    >>> one_line("two\nlines\x1b[0m")
    'two lines [0m'
    """
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def markdown_text(text: str) -> str:
    r"""Return a text as Markdown that shows it and means nothing else, in a cell of a table too.

    Examples
    --------
    >>> print(markdown_text("a|b <b>[x](y) _z_ tiny_gsm8k"))
    a\|b \<b\>\[x\](y) \_z\_ tiny_gsm8k
    """
    return _MARKDOWN.sub(r"\\\1", one_line(text))


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    r"""Return a table whose texts are not Markdown yet.

    Examples
    --------
    >>> print(markdown_table(["run", "pass@1"], [["a|b", "0.500"]]))
    | run | pass@1 |
    | --- | --- |
    | a\|b | 0.500 |
    """
    cells = [[markdown_text(cell) for cell in row] for row in (head, *rows)]
    cells.insert(1, ["---"] * len(head))
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)


def latex_text(text: str) -> str:
    r"""Return a text as LaTeX that shows it and means nothing else.

    Examples
    --------
    >>> print(latex_text("50% of $a_1"))
    50\% of \$a\_1
    """
    return "".join(_LATEX.get(character, character) for character in one_line(text))


def csv_text(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula.

    Examples
    --------
    >>> csv_text("=1+1"), csv_text("model")
    ("'=1+1", 'model')
    """
    plain = one_line(text)
    # A tab or a line break at the start, which one_line has removed, would not have saved it.
    return "'" + plain if plain.startswith(_FORMULA) else plain

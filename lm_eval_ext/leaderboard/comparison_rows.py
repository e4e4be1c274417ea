"""The cells of a comparison, the same wherever two runs (or two confidences) stand side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lm_eval_ext.leaderboard.console import Column
from lm_eval_ext.leaderboard.formatting import (
    ARROWS,
    NOT_KNOWN,
    digits_of,
    printed,
    printed_difference,
    printed_p,
)
from lm_eval_ext.leaderboard.paired import PairedTest
from lm_eval_ext.scoring.scores import Score

ALPHA = 0.05


def questions_cell(test: PairedTest, digits: int) -> str:
    """Return at how many questions the value is larger, equal, smaller."""
    return NOT_KNOWN if test.wins is None else f"{test.wins}/{test.ties}/{test.losses}"


def detectable_cell(test: PairedTest, digits: int) -> str:
    """Return the smallest true difference that the test finds."""
    found = test.detectable
    return NOT_KNOWN if found != found else f"{found:.{digits}f}"


FURTHER: dict[str, Callable[[PairedTest, int], str]] = {
    "+/=/-": questions_cell,
    "MDE": detectable_cell,
}
"""What else a difference tells, where there is room: a column each, by heading."""


def named(metric: str, higher_is_better: bool | None) -> str:
    """Return a metric's name with an arrow towards its better end."""
    return metric + ARROWS[higher_is_better]


def value_column(heading: str, scores: Sequence[Score | None]) -> Column:
    """Return the values of a run with their intervals, one per metric."""
    cells = [NOT_KNOWN if s is None else printed(s.value, s.low, s.high) for s in scores]
    return Column(heading, cells)


def difference_columns(
    heading: str,
    tests: Sequence[PairedTest | None],
    p_values: Sequence[float | None],
    baselines: Sequence[Score | None],
    *,
    alpha: float = ALPHA,
    further: Sequence[str] = tuple(FURTHER),
) -> list[Column]:
    """Return the columns of a run against its baseline, one cell per metric.

    Parameters
    ----------
    tests
        The differences; None where one of the two has no such metric.
    p_values
        Corrected; None for a difference that is not tested.
    """
    columns: dict[str, list[str]] = {name: [] for name in (heading, "p (Holm)", *further)}
    for test, p_value, baseline in zip(tests, p_values, baselines, strict=True):
        if test is None or baseline is None:
            cells = [NOT_KNOWN] * len(columns)
        else:
            digits = digits_of(max(abs(baseline.value), abs(baseline.value + test.difference)))
            shown = printed_difference(test.difference, test.low, test.high, digits=digits)
            cells = [shown + ("" if test.paired else " ~"), printed_p(p_value, alpha=alpha)]
            cells += [FURTHER[name](test, digits) for name in further]
        for column, cell in zip(columns.values(), cells, strict=True):
            column.append(cell)
    return [Column(name, cells, is_optional=name in FURTHER) for name, cells in columns.items()]

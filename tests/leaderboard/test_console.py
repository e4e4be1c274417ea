"""Tables in terminals of several widths: every number whole, nothing wider than the terminal."""

import io
import re

import pytest
from rich.console import Console

from lm_eval_ext.leaderboard.compare import print_comparison
from lm_eval_ext.leaderboard.console import Column, folded, print_table
from lm_eval_ext.leaderboard.run_comparison import compare_runs
from lm_eval_ext.leaderboard.run_output import read_run


@pytest.fixture(scope="module")
def runs(made_up_runs):
    return [read_run(folder) for folder in made_up_runs.values()]


def terminal(width):
    return Console(file=io.StringIO(), width=width, emoji=False, markup=False, highlight=False)


@pytest.mark.parametrize("metrics", [None, ["*"]])
@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_every_number_of_a_comparison_is_whole(runs, width, metrics):
    compared = compare_runs(runs, metrics=metrics)
    console, unbounded = terminal(width), terminal(100_000)
    print_comparison(console, runs, compared)
    print_comparison(unbounded, runs, compared)
    shown, whole = (c.file.getvalue() for c in (console, unbounded))
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width
    number = r"[-+]?\d+\.\d+(?: ± \d+\.\d+| \([-+]?\d+\.\d+, [-+]?\d+\.\d+\))?"
    needed = re.findall(number + r"|<0\.001\*?", whole)
    if width < 200:  # without room for MDE: the last number of a difference's columns
        needed = [one for one in needed if "(" in one or "±" in one]
    found = re.findall(number + r"|<0\.001\*?", shown)
    assert needed
    assert not [one for one in needed if one not in found]


def test_values_come_first_and_differences_below():
    names = [Column("metric", ["pass@1 ↑"], is_name=True)]
    values = [[Column(f"run {i}", ["0.611 ± 0.055"])] for i in range(3)]
    difference = Column("run 1 - run 0", ["-0.033 (-0.057, -0.012)"])
    extra = Column("MDE", ["0.031"], is_optional=True)
    p_value = Column("p (Holm)", ["0.032*"])
    sections = [values, [[difference, p_value, extra]] * 2]

    def heads(width):
        return [[c.heading for c in table] for table in folded(names, sections, width=width)]

    labels = ["run 0", "run 1", "run 2"]
    group = ["run 1 - run 0", "p (Holm)", "MDE"]
    assert heads(170) == [["metric", *labels, *group, *group]]
    assert heads(110) == [["metric", *labels], ["metric", *group, *group]]
    assert heads(95) == [["metric", *labels], ["metric", *group[:2], *group[:2]]]
    assert heads(60) == [["metric", *labels], ["metric", *group], ["metric", *group]]
    assert heads(50) == [
        *(["metric", *labels[:2]], ["metric", labels[2]]),
        *(["metric", *group[:2]], ["metric", *group[:2]]),
    ]


def test_long_names_fold_and_numbers_do_not():
    console = terminal(40)
    names = [Column("metric", ["within_question_auroc:self_certainty ↑"], is_name=True)]
    print_table(console, names, [[[Column("a long heading of a run", ["0.611 ± 0.055"])]]])
    shown = console.file.getvalue()
    assert "0.611 ± 0.055" in shown
    assert max(map(len, shown.splitlines())) <= 40

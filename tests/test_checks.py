"""Checks of arguments: what passes, and the line that names what does not."""

from types import SimpleNamespace

import pytest

from lm_eval_ext.checks import check_at_least, check_choice, check_flag, is_number, whole_number
from lm_eval_ext.errors import UserError


@pytest.mark.parametrize("value", [7, "7", 7.0, " 7 "])
def test_whole_numbers_are_read(value):
    assert whole_number("seed", value) == 7


@pytest.mark.parametrize("value", [7.5, "7.5", True, None, "x", float("nan"), float("inf")])
def test_other_values_are_not_whole_numbers(value):
    with pytest.raises(UserError, match="seed=.* must be a whole number"):
        whole_number("seed", value)


def test_numbers_are_told_from_flags_and_texts():
    assert [is_number(value) for value in (0, 1.5, True, "1", None)] == [1, 1, 0, 0, 0]


def test_flags():
    check_flag("on", False)
    with pytest.raises(UserError, match="on='yes' must be true or false"):
        check_flag("on", "yes")


@pytest.mark.parametrize("value", ["c", "", None, 1, ["a"]])
def test_choices(value):
    check_choice("kind", "a", iter(("a", "b")))
    with pytest.raises(UserError, match="is unknown: use one of a, b$"):
        check_choice("kind", value, ("a", "b"))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1, "--steps=1 must be at least 2"),
        (float("nan"), "--steps=nan must be at least 2"),
        (float("inf"), "--steps=inf must be at least 2 and finite"),
    ],
)
def test_lower_bounds(value, message):
    check_at_least(SimpleNamespace(steps=2, rate=None), steps=2, rate=0)
    with pytest.raises(UserError, match=message):
        check_at_least(SimpleNamespace(steps=value), prefix="--", steps=2)

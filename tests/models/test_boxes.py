"""Boxes are found from the last to the first, with the brace that closes each."""

from hypothesis import given
from hypothesis import strategies as st

from lm_eval_ext.models.boxes import MAX_BOXES, box_end, find_boxes

MAX_LENGTH = 400


def insides(text):
    return [box.inside for box in find_boxes(text, MAX_LENGTH)]


def test_boxes_come_from_the_last_to_the_first():
    assert insides(r"\boxed{1} \fbox{2}") == ["2", "1"]


def test_braces_are_matched():
    assert insides(r"\boxed{\frac{1}{\text{a\}b}}}") == [r"\frac{1}{\text{a\}b}}"]
    assert insides(r"\boxed{1 \boxed{2}}") == ["2", r"1 \boxed{2}"]
    assert insides(r"\boxed{1") == []


def test_a_box_knows_its_place():
    text = r"so \boxed{\frac12} it is"
    (box,) = find_boxes(text, MAX_LENGTH)
    assert text[box.start : box.end] == r"\boxed{\frac12}"


@given(
    st.text(alphabet="abc {}\\", max_size=30).filter(lambda s: s.count("{") == s.count("}") == 0)
)
def test_what_is_boxed_comes_out(inside):
    # A backslash before the closing brace would escape it.
    assert insides(f"so \\boxed{{{inside}}} it is") == ([] if inside.endswith("\\") else [inside])


def test_the_end_of_a_box_is_after_its_brace():
    assert box_end(r"3} and more}") == 2
    assert box_end(r"\frac{1}{2}}") == len(r"\frac{1}{2}}")
    assert box_end(r"a\}b}") == 5
    assert box_end(r"\frac{1}{2}") is None
    assert box_end("") is None


def test_boxes_are_counted_from_the_end():
    found = insides("".join(rf"\boxed{{{n}}}" for n in range(1000)))
    assert [int(inside) for inside in found] == list(range(999, 999 - MAX_BOXES, -1))


def test_a_box_that_is_too_long_is_no_box():
    longest = "1" * (MAX_LENGTH - 2)  # both braces count
    assert insides(f"\\boxed{{{longest}}}") == [longest]
    assert insides(f"\\boxed{{{longest}1}}") == []

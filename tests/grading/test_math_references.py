"""The reference answers of MATH that are several values, or either of two, or not boxed."""

import json
from hashlib import blake2b

import pytest

from lm_eval_ext.grading import grade, grade_many
from lm_eval_ext.grading.math_extraction import references

# By the place of the record in MATH's test split: an answer that is right, and one that is wrong.
CORRECTED = {
    333: ("d = -3", "-2"),
    414: ("1, -2", "1"),
    2152: ("11, 5-10i, 6i-3", "-3+6i"),
    2549: (r"-\frac{3}{4}, -\frac{3}{2}", r"-\frac{3}{4}"),
    2656: (r"\pm 10879", "10879"),
    2703: ("0.4, 3", r"\frac{2}{5}"),
    2716: ("(10,0)", "(5,0)"),
    2912: ("(1.5, -2.5)", "(-0.5, -2.5)"),
    2936: ("(3, -5)", "(-3, 5)"),
    4060: ("6", "12"),
    4559: ("2, -1", "2"),
    4562: (r"45^\circ, 30^\circ, 105^\circ", r"105^\circ"),
    4860: (r"\frac{5\pi}{4}, \frac{\pi}{4}", r"\frac{5\pi}{4}"),
}
EITHER = {333: "3", 2716: "(0,0)", 2912: r"\left(-\frac52,-\frac52\right)", 2936: "(0,0)"}
UNCHANGED = "6f12d97cd7eabae2"


@pytest.fixture(scope="module")
def math_test(published_data):
    with (published_data / "math_test.jsonl").open(encoding="utf-8") as lines:
        return {record["idx"]: record for record in map(json.loads, lines)}


@pytest.mark.parametrize("place", CORRECTED)
def test_corrected_references(math_test, place):
    right, wrong = CORRECTED[place]
    completions = [rf"\boxed{{{right}}}", rf"\boxed{{{wrong}}}"]
    assert [a.correct for a in grade_many("math", completions, math_test[place])] == [True, False]


@pytest.mark.parametrize("place", EITHER)
def test_either_reference_is_right_and_votes_are_one(math_test, place):
    completions = [rf"\boxed{{{answer}}}" for answer in (CORRECTED[place][0], EITHER[place])]
    attempts = grade_many("math", completions, math_test[place])
    assert [attempt.correct for attempt in attempts] == [True, True]
    assert len({attempt.answer for attempt in attempts}) == 1


def test_all_other_references_are_unchanged(math_test):
    assert {place for place, r in math_test.items() if len(references(r)) > 1} == set(EITHER)
    others = [references(r)[0] for place, r in math_test.items() if place not in CORRECTED]
    assert len(others) == 4987
    assert blake2b("\n".join(others).encode(), digest_size=8).hexdigest() == UNCHANGED


LIST = "Enter all values, separated by commas."


@pytest.mark.parametrize(
    ("problem", "solution", "expected"),
    [
        (LIST, r"So $b=\boxed{-7}.$ If $r=-1,$ then $b=\boxed{7}.$", ("-7, 7",)),
        (LIST, r"They are $\boxed{1}$, $\boxed{2}$.", ("1, 2",)),
        (LIST, r"It is $\boxed{1,2}$. Alternatively, $\boxed{1,2}$", ("1,2",)),
        ("", r"They are $\boxed{1}$ and $\boxed{2}$.", ("1, 2",)),
        ("", r"We get $\boxed{1}$. (Either point is a correct answer: $\boxed{2}$.)", ("1", "2")),
        ("", r"We get $\boxed{1}$. Also, $\boxed{2}$ is also acceptable.", ("1", "2")),
        ("", r"Hence $\boxed{1}.$ Then $1+1=\boxed{2}$.", ("2",)),
        ("", r"$=-\boxed{2}$", ("2",)),
        ("", r"$\boxed{12x -34}$, or $\boxed{-34 + 12x}$", ("-34 + 12x",)),
        ("", r"$\boxed{10\sqrt{2}}$. - OR - It is $\boxed{10\sqrt 2}$", (r"10\sqrt 2",)),
        ("", r"$x\equiv\boxed{159}.$ Also $x\equiv\boxed{159} \pmod{180}.$", ("159",)),
    ],
)
def test_references(problem, solution, expected):
    assert references({"problem": problem, "solution": solution}) == expected


def test_listing_all_accepted_answers_is_right():
    doc = {
        "solution": r"$\boxed{(1,0)}$ and $\boxed{(2,0)}$ (Either point is an acceptable answer.)"
    }
    assert references(doc) == ("(1,0)", "(2,0)")
    assert grade("math", r"$\boxed{(2,0)}$ and $\boxed{(1,0)}$", doc).correct
    assert not grade("math", r"$\boxed{(2,0)}$ and $\boxed{(3,0)}$", doc).correct

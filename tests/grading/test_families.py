"""The entrance to every grader."""

import subprocess
import sys

import pytest

from lm_eval_ext.grading import FAMILIES, grade, grade_many, grade_questions


@pytest.mark.parametrize("function", [grade, grade_many])
def test_an_unknown_family_names_the_known_ones(function):
    with pytest.raises(ValueError, match="family='chess' is unknown: use one of") as error:
        function("chess", "e4", {})
    assert all(family in str(error.value) for family in FAMILIES)


QUESTIONS = {
    "gsm8k": ({"answer": "#### 4"}, ["#### 4", "#### 5", "nothing"]),
    "math": ({"answer": "4"}, [r"\boxed{4}", r"\boxed{5}", "nothing"]),
    "mbpp": (
        {"test_list": ["assert double(2) == 4"], "test_setup_code": ""},
        ["def double(x):\n    return 2 * x", "def double(x):\n    return x", ""],
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_grade_is_grade_many_of_one(family):
    doc, completions = QUESTIONS[family]
    verdicts = grade_many(family, completions, doc)
    assert verdicts == [grade(family, c, doc) for c in completions]
    assert [verdict.correct for verdict in verdicts] == [True, False, False]
    assert grade_many(family, [], doc) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_many_questions_come_back_in_their_order(family):
    doc, completions = QUESTIONS[family]
    questions = [(completions[i:], doc) for i in (0, 1, 2, 0)]
    verdicts = list(grade_questions(family, questions))
    assert verdicts == [grade_many(family, texts, doc) for texts, doc in questions]


def test_importing_the_graders_is_cheap():
    code = (
        "import sys, lm_eval_ext.grading;"
        "print([m for m in ('torch', 'lm_eval', 'sympy', 'datasets') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"

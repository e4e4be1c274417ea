"""The entrance to every grader."""

import subprocess
import sys

import pytest

from lm_eval_ext.grading import FAMILIES, grade, grade_many


@pytest.mark.parametrize("function", [grade, grade_many])
def test_an_unknown_family_names_the_known_ones(function):
    with pytest.raises(ValueError, match="family='chess' is unknown: use one of") as error:
        function("chess", "e4", {})
    assert all(family in str(error.value) for family in FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_grade_is_grade_many_of_one(family):
    doc = {"answer": "#### 4"}
    completions = ["#### 4", "#### 5", "nothing"]
    assert grade_many(family, completions, doc) == [grade(family, c, doc) for c in completions]
    assert grade_many(family, [], doc) == []


def test_importing_the_graders_is_cheap():
    code = (
        "import sys, lm_eval_ext.grading;"
        "print([m for m in ('torch', 'lm_eval', 'sympy', 'datasets') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"

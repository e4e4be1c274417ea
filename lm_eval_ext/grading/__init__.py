"""Verdicts on attempts: `grade` and `grade_many` are the one entrance to every grader."""

from lm_eval_ext.grading.attempt import UNFINISHED_THOUGHT, Attempt
from lm_eval_ext.grading.families import (
    FAMILIES,
    check_family,
    grade,
    grade_many,
    grade_questions,
)

__all__ = [
    "FAMILIES",
    "UNFINISHED_THOUGHT",
    "Attempt",
    "check_family",
    "grade",
    "grade_many",
    "grade_questions",
]

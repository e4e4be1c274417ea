"""Rewards of rollouts: the verdict of the question's grader, and the soft overlong penalty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trl.rewards import get_soft_overlong_punishment

from lm_eval_ext.grading import grade_questions
from lm_eval_ext.grading.families import Question
from lm_eval_ext.training.dapo.rollouts import Rollout
from lm_eval_ext.training.dapo.settings import check_overlong_buffer
from lm_eval_ext.training.prompts import Problem


@dataclass(frozen=True, eq=False)
class Group:
    """The rollouts of one question and what they earned.

    Parameters
    ----------
    verdicts
        1.0 where the answer is right, 0.0 elsewhere.
    """

    question: Problem
    rollouts: tuple[Rollout, ...]
    verdicts: tuple[float, ...]
    penalties: tuple[float, ...]

    @property
    def varies(self) -> bool:
        """Whether there is something to learn: verdicts differ, and so do whole rewards.

        Right and wrong decide, so a group that is all right or all wrong is dropped though its
        lengths, and with them its penalties, may differ. The second condition is for the rare
        group in which penalties cancel what the verdicts tell apart.
        """
        totals = [v + p for v, p in zip(self.verdicts, self.penalties, strict=True)]
        return _differ(self.verdicts) and _differ(totals)


def _differ(values: Sequence[float]) -> bool:
    return max(values) > min(values)


class Rewards:
    """Grades groups.

    Parameters
    ----------
    overlong_buffer
        The penalty falls from 0 to -1 over this many tokens before the end; 0 switches it off.

    Raises
    ------
    UserError
        For a buffer outside 0 to ``max_new_tokens``.
    """

    def __init__(self, max_new_tokens: int, overlong_buffer: int) -> None:
        check_overlong_buffer(max_new_tokens, overlong_buffer)
        self._penalty = get_soft_overlong_punishment(max_new_tokens, overlong_buffer)

    def grade(
        self, questions: Sequence[Problem], rollouts: Sequence[Sequence[Rollout]]
    ) -> list[Group]:
        """Return the groups of questions of any families, in order."""
        verdicts: dict[int, tuple[float, ...]] = {}
        for family in dict.fromkeys(question.family for question in questions):
            assert family is not None
            places = [i for i, question in enumerate(questions) if question.family == family]
            asked = [_to_grade(questions[i], rollouts[i]) for i in places]
            for i, attempts in zip(places, grade_questions(family, asked), strict=True):
                verdicts[i] = tuple(float(attempt.correct) for attempt in attempts)
        return [
            Group(question, tuple(group), verdicts[i], self._penalties(group))
            for i, (question, group) in enumerate(zip(questions, rollouts, strict=True))
        ]

    def _penalties(self, rollouts: Sequence[Rollout]) -> tuple[float, ...]:
        return tuple(self._penalty(completion_ids=[list(r.completion_ids) for r in rollouts]))


def _to_grade(question: Problem, rollouts: Sequence[Rollout]) -> Question:
    """Return what a grader is given."""
    texts = [rollout.graded_text for rollout in rollouts]
    return texts, question.record or {}, [rollout.finish_reason for rollout in rollouts]


def verdict(verdict: list[float], **others: Any) -> list[float]:
    """Return the grader's verdicts, found before the update, as TRL's reward function."""
    return verdict


def overlong_penalty(overlong_penalty: list[float], **others: Any) -> list[float]:
    """Return the overlong penalties, found before the update, as TRL's reward function."""
    return overlong_penalty

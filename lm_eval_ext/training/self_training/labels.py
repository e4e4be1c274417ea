"""Phase ``label``: the graders say which attempts are correct."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from tqdm import tqdm

from lm_eval_ext.errors import UserError
from lm_eval_ext.grading import grade_questions
from lm_eval_ext.grading.attempt_details import verdict_details
from lm_eval_ext.grading.families import Question
from lm_eval_ext.models.generation import Thought
from lm_eval_ext.training.run import write_json
from lm_eval_ext.training.self_training.folders import LABELLED, Stage, read_attempts, write_lines
from lm_eval_ext.training.self_training.problems import TrainingProblem, read_problems


def label(stage: Stage) -> None:
    """Grade the attempts of a stage and write them with their verdicts, in order.

    Raises
    ------
    UserError
        If a record cannot be graded, see `lm_eval_ext.grading.grade_questions`, or attempts are
        missing.
    """
    of_problem: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for line in read_attempts(stage):
        of_problem[line["problem"]].append(line)
    by_family: dict[str, list[TrainingProblem]] = defaultdict(list)
    for problem in read_problems(stage.output, held_out=stage.held_out):
        of_problem[problem.number].sort(key=lambda line: int(line["attempt"]))
        by_family[problem.family].append(problem)
    _check_complete(stage, sum(map(len, of_problem.values())))
    for family, problems in by_family.items():
        questions = [_to_grade(problem, of_problem[problem.number]) for problem in problems]
        graded = tqdm(
            grade_questions(family, questions),
            total=len(questions),
            desc=f"Grading, {stage.name}",
            unit="question",
            disable=None,
        )
        for problem, verdicts in zip(problems, graded, strict=True):
            for line, verdict in zip(of_problem[problem.number], verdicts, strict=True):
                line.update(verdict_details(verdict))
    lines = [line for number in sorted(of_problem) for line in of_problem[number]]
    write_lines(stage.folder / LABELLED, lines)
    counts = {
        "correct": sum(line["correct"] for line in lines),
        "invalid": sum(line["answer"] is None for line in lines),
    }
    write_json(stage.report("label"), counts)


def _to_grade(problem: TrainingProblem, lines: list[dict[str, Any]]) -> Question:
    """Return what a grader is given."""
    texts = [
        Thought(**line["thought"]).answer_in(line["text"]) if "thought" in line else line["text"]
        for line in lines
    ]
    return texts, problem.record, [line["finish_reason"] for line in lines]


def _check_complete(stage: Stage, n_attempts: int) -> None:
    """See that nobody took attempts out of the files after they were made."""
    n_sampled = stage.counts("generate")["sampled"]
    if n_attempts != n_sampled:
        raise UserError(
            f"{stage.folder} has {n_attempts} attempts, and {n_sampled} were made: delete "
            f"{stage.report('generate')}, and the same command makes the missing ones again"
        )

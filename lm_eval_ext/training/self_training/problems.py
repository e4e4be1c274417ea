"""The training problems of a run, in a file that all phases read."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval_ext.data.question_text import question_text
from lm_eval_ext.errors import UserError
from lm_eval_ext.harness.requests import parse_model_args
from lm_eval_ext.training.drafts.shards import prompt_hash
from lm_eval_ext.training.prompts import REFERENCE, Problem, Renderer, load_problems
from lm_eval_ext.training.self_training.folders import read_lines, write_lines
from lm_eval_ext.training.self_training.settings import SelfTraining

logger = logging.getLogger(__name__)

FILE_NAME = "problems.jsonl"


@dataclass(frozen=True)
class TrainingProblem:
    """A problem of a run.

    Parameters
    ----------
    number
        Its place in the file, from 0.
    """

    number: int
    prompt: str
    record: Mapping[str, Any]
    family: str
    stop: tuple[str, ...]
    max_new_tokens: int
    completes_boxes: bool
    held_out: bool


def is_held_out(prompt: str, share: float) -> bool:
    """Return whether a problem belongs to the held-out share, by a hash of its prompt alone.

    Parameters
    ----------
    share
        In [0, 1); a larger share contains a smaller one.

    Examples
    --------
    >>> is_held_out("2+2=", 0.0), is_held_out("2+2=", 0.2)
    (False, True)
    """
    return int(prompt_hash(prompt), 16) / 16**16 < share


def load_training_problems(
    run: SelfTraining, *, trust_remote_code: bool = False
) -> list[TrainingProblem]:
    """Read the problems of a run from their source.

    Raises
    ------
    UserError
        As `lm_eval_ext.training.prompts.load_problems`, and if the share leaves no problem on one
        of its sides.
    """
    arguments = parse_model_args(run.sampling.generator_args)
    thinking = arguments.get("enable_thinking")
    renderer = Renderer(
        run.prompts,
        run.pretrained,
        trust_remote_code=trust_remote_code,
        **({} if thinking is None else {"enable_thinking": thinking}),
    )
    source = load_problems(
        run.problems, limit=run.num_problems, grader=run.grader, renderer=renderer
    )
    held_out: dict[str, bool] = {}
    problems = []
    for number, problem in enumerate(source):
        # A question that two sources ask in different words around it stays on one side.
        side = held_out.setdefault(
            _question(problem), is_held_out(problem.prompt, run.held_out_share)
        )
        problems.append(_prepared(number, problem, run, held_out=side))
    n_held_out = sum(problem.held_out for problem in problems)
    if n_held_out == len(problems) or (run.held_out_share and not n_held_out):
        raise UserError(
            f"held_out_share={run.held_out_share} of {len(problems)} problems holds out "
            f"{n_held_out}: give more problems, or another share (0: none are held out)"
        )
    return problems


def _question(problem: Problem) -> str:
    return f"{problem.family}:{question_text(problem.record or {}, otherwise=problem.prompt)}"


def same_reference(one: Mapping[str, Any], other: Mapping[str, Any], family: str) -> bool:
    """Tell whether two records are graded alike, by the fields that both have.

    Examples
    --------
    >>> same_reference({"answer": "#### 4"}, {"answer": "#### 5"}, "gsm8k")
    False
    """
    shared = [name for name in REFERENCE[family] if name in one and name in other]
    return bool(shared) and all(one[name] == other[name] for name in shared)


def _prepared(
    number: int, problem: Problem, run: SelfTraining, *, held_out: bool
) -> TrainingProblem:
    assert problem.record is not None
    assert problem.family is not None
    sampling = run.sampling
    completes = sampling.box_completion == "on" or (
        sampling.box_completion == "auto" and problem.family == "math"
    )
    return TrainingProblem(
        number=number,
        prompt=problem.prompt,
        record=problem.record,
        family=problem.family,
        stop=problem.stop if sampling.stop is None else sampling.stop,
        max_new_tokens=sampling.max_new_tokens or problem.max_new_tokens,
        completes_boxes=completes,
        held_out=held_out,
    )


def problems_hash(problems: list[TrainingProblem]) -> str:
    """Return a hash of all that a file of problems holds: one may change under its name."""
    return prompt_hash("\n".join(json.dumps(vars(problem)) for problem in problems))


def write_problems(output: Path, problems: list[TrainingProblem]) -> None:
    """Write the problems, unless they are there."""
    if not (output / FILE_NAME).exists():
        write_lines(output / FILE_NAME, (vars(problem) for problem in problems))


def read_problems(output: Path, *, held_out: bool) -> Iterator[TrainingProblem]:
    """Yield the problems that are trained on, or those that are held out."""
    for line in read_lines(output / FILE_NAME):
        if line["held_out"] == held_out:
            yield TrainingProblem(**{**line, "stop": tuple(line["stop"])})

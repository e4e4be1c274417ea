"""What a run has to do: questions, lengths of prompts and responses, grading."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lm_eval_ext.errors import UserError
from lm_eval_ext.tiny import SHIPPED, model_path

logger = logging.getLogger(__name__)

# Prompts that are tokenized for the mean length: their spread is small beside that of responses.
_TOKENIZED_PROMPTS = 200
_CHARACTERS_PER_TOKEN = 3.5


class Lengths(NamedTuple):
    """Tokens of a response: a favourable, an expected and an unfavourable mean."""

    best: float
    expected: float
    worst: float


class GradingSeconds(NamedTuple):
    """Seconds to grade an attempt and to compute its metrics, per process that grades."""

    best: float
    expected: float
    worst: float


# A number is compared in microseconds and the metrics of a question take longer; answers of MATH
# and programs as their benchmarks print them, with a slow machine for the worst case:
# benchmarks/plan_accuracy.py, benchmarks/math_grader.py, benchmarks/code_grader.py.
GRADING = {
    "gsm8k": GradingSeconds(20e-6, 100e-6, 1e-3),
    "math": GradingSeconds(100e-6, 500e-6, 5e-3),
    "mbpp": GradingSeconds(4e-3, 10e-3, 50e-3),
}
"""By grader; others are taken for the first."""


@dataclass(frozen=True)
class Workload:
    """The attempts of a run.

    Parameters
    ----------
    questions
        Number of questions, at least 1.
    prompt_tokens
        Mean tokens of a prompt.
    max_new_tokens
        Most tokens of a response.
    attempts
        Attempts per question.
    response_tokens
        Mean tokens of a response.
    grader
        Name of the grader.
    notes
        What was assumed.
    """

    questions: int
    prompt_tokens: float
    max_new_tokens: int
    attempts: int
    response_tokens: Lengths
    grader: str = "gsm8k"
    notes: tuple[str, ...] = ()


def response_lengths(stated: float | None, max_new_tokens: int) -> tuple[Lengths, str]:
    """Return the mean length of responses in three cases, and a line that says why.

    Examples
    --------
    >>> response_lengths(None, 512)[0]
    Lengths(best=128.0, expected=256.0, worst=512.0)
    >>> response_lengths(100, 512)[0]
    Lengths(best=100.0, expected=100.0, worst=100.0)
    """
    if stated is not None:
        length = min(float(stated), float(max_new_tokens))
        return Lengths(
            length, length, length
        ), f"responses: {length:g} tokens in the mean, as given"
    lengths = Lengths(max_new_tokens / 4, max_new_tokens / 2, float(max_new_tokens))
    return lengths, (
        f"responses: nobody knows yet; {lengths.best:g} to {lengths.worst:g} tokens in the mean "
        "(--response-tokens narrows the range; a run with --limit 10 tells)"
    )


class Stated(NamedTuple):
    """What the command line says of a run; None where it does not.

    Parameters
    ----------
    attempts
        Attempts per question.
    questions, prompt_tokens, max_new_tokens, response_tokens
        As in `Workload`; ``response_tokens`` is one mean.
    """

    attempts: int = 16
    questions: int | None = None
    prompt_tokens: float | None = None
    max_new_tokens: int | None = None
    response_tokens: float | None = None


def stated_workload(stated: Stated) -> Workload:
    """Return a run that is described by numbers alone.

    Raises
    ------
    UserError
        If a number is missing or is not above 0.

    Examples
    --------
    >>> stated_workload(Stated(64, questions=10, prompt_tokens=90, response_tokens=200)).attempts
    64
    """
    given = {"--questions": stated.questions, "--prompt-tokens": stated.prompt_tokens}
    missing = [option for option, value in given.items() if value is None]
    if missing:
        raise UserError(f"--task is not given, nor {', '.join(missing)}: give the one or the other")
    length = stated.response_tokens
    limit = stated.max_new_tokens or (int(2 * length) if length else None)
    if limit is None:
        raise UserError("--max-gen-toks and --response-tokens are not given: give one of them")
    lengths, note = response_lengths(length, limit)
    assert stated.questions is not None
    assert stated.prompt_tokens is not None
    workload = Workload(
        stated.questions, stated.prompt_tokens, limit, stated.attempts, lengths, notes=(note,)
    )
    check(workload)
    return workload


def check(workload: Workload) -> None:
    """Raise a `UserError` where a number of a run is not above 0."""
    given = {
        "--questions": workload.questions,
        "--prompt-tokens": workload.prompt_tokens,
        "--max-gen-toks": workload.max_new_tokens,
        "--attempts": workload.attempts,
        "--response-tokens": workload.response_tokens.best,
    }
    for option, value in given.items():
        if not 0 < value < float("inf"):
            raise UserError(f"{option}={value:g} must be above 0")


def task_workload(task: str, model: str, stated: Stated) -> Workload:
    """Return a run of a task: its questions, and its prompts in tokens of the model.

    Parameters
    ----------
    task
        Name of a generation task, group or tag of lm-eval.
    model
        Hub id, folder or shipped name, for its tokenizer.
    stated
        What replaces the task's own numbers.

    Raises
    ------
    UserError
        If lm-eval knows no such task, or its data cannot be loaded here.
    """
    loaded = _loaded(task)
    tokens = stated.prompt_tokens
    notes: tuple[str, ...] = ()
    if tokens is None:
        tokens, notes = _mean_tokens(_spread(loaded.prompts, _TOKENIZED_PROMPTS), model)
    limit = stated.max_new_tokens or loaded.max_new_tokens
    lengths, note = response_lengths(stated.response_tokens, limit)
    workload = Workload(
        questions=loaded.questions if stated.questions is None else stated.questions,
        prompt_tokens=tokens,
        max_new_tokens=limit,
        attempts=stated.attempts,
        response_tokens=lengths,
        grader=loaded.grader,
        notes=(*notes, note),
    )
    check(workload)
    return workload


class _Task(NamedTuple):
    """What a task says of a run."""

    questions: int
    prompts: list[str]  # of some of the questions
    max_new_tokens: int
    grader: str


def _loaded(task: str) -> _Task:
    """Load a task; for a group, the token limit and the grader are those of its last task."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager()
    if task not in manager.all_tasks:
        raise UserError(f"--task={task} is not a task; see lm_eval ls tasks")
    questions = 0
    prompts: list[str] = []
    limit, grader = 256, "gsm8k"  # lm-eval's own limit where a task says none
    try:
        tasks = list(manager.load([task])["tasks"].values())
    except (OSError, UserError) as error:
        raise UserError(_without_data(task, str(error))) from error
    for loaded in tasks:
        if loaded.OUTPUT_TYPE != "generate_until":
            raise UserError(f"--task={task} generates nothing: only sampled runs are planned")
        questions += len(loaded.eval_docs)
        loaded.build_all_requests(limit=_TOKENIZED_PROMPTS)
        # One instance per question: lm-eval repeats it later.
        prompts += [instance.args[0] for instance in loaded.instances]
        limit = int((loaded.config.generation_kwargs or {}).get("max_gen_toks", limit))
        grader = (loaded.config.metadata or {}).get("grader") or grader
    return _Task(questions, prompts, limit, grader)


def _without_data(task: str, reason: str) -> str:
    first = reason.strip().partition("\n")[0]
    return (
        f"--task={task}: {first}; or leave --task out and give --questions, --prompt-tokens and "
        "--response-tokens"
    )


def _spread(items: Sequence[str], most: int) -> list[str]:
    """Return at most so many items, evenly spaced."""
    step = max(1, -(-len(items) // most))
    return list(items[::step])


def _mean_tokens(prompts: Sequence[str], model: str) -> tuple[float, tuple[str, ...]]:
    """Return the mean tokens of a prompt, and a note where they are estimated from characters."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model_path(model) if model in SHIPPED else model)
        total = sum(len(ids) for ids in tokenizer(list(prompts))["input_ids"])
    except (OSError, ValueError, KeyError, TypeError):
        logger.warning("no tokenizer of %s here: prompt tokens are estimated", model)
        characters = sum(map(len, prompts)) / len(prompts)
        note = (
            f"prompts: {_CHARACTERS_PER_TOKEN} characters per token, no tokenizer of {model} here"
        )
        return characters / _CHARACTERS_PER_TOKEN, (note,)
    return total / len(prompts), (f"prompts: mean of {len(prompts)}, without a chat template",)

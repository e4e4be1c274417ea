"""What a run has to do: questions, lengths of prompts and responses, grading."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lm_eval_ext.attempt_settings import DEFAULT_ATTEMPTS
from lm_eval_ext.errors import UserError
from lm_eval_ext.tiny import SHIPPED, model_path

logger = logging.getLogger(__name__)

# Prompts that are tokenized for the mean length: their spread is small beside that of responses.
_TOKENIZED_PROMPTS = 200
_CHARACTERS_PER_TOKEN = 3.5
_MAX_GEN_TOKS = 256  # lm-eval's own limit where a task says none


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
        Attempts per question; of several tasks, the mean over all questions.
    response_tokens
        Mean tokens of a response.
    grader
        Name of the grader, or of several.
    grading
        What it takes, or the mean of several.
    notes
        What was assumed.
    """

    questions: int
    prompt_tokens: float
    max_new_tokens: int
    attempts: float
    response_tokens: Lengths
    grader: str = "gsm8k"
    grading: GradingSeconds = GRADING["gsm8k"]
    notes: tuple[str, ...] = ()

    @property
    def all_attempts(self) -> int:
        """Attempts of the run."""
        return round(self.questions * self.attempts)


def response_lengths(stated: float | None, max_new_tokens: int) -> tuple[Lengths, str]:
    """Return the mean length of responses in three cases, and a line that says why.

    Examples
    --------
    >>> response_lengths(None, 512)[0]
    Lengths(best=128.0, expected=256.0, worst=512.0)
    >>> response_lengths(100, 512)
    (Lengths(best=100.0, expected=100.0, worst=100.0), 'responses: 100 tokens in the mean, as given')
    """
    if stated is None:
        lengths = Lengths(max_new_tokens / 4, max_new_tokens / 2, float(max_new_tokens))
    else:
        lengths = Lengths(*[min(float(stated), float(max_new_tokens))] * 3)
    return lengths, response_note(stated, lengths)


def response_note(stated: float | None, lengths: Lengths) -> str:
    """Return why responses are taken to be so long."""
    if stated is None:
        return (
            f"responses: nobody knows yet; {lengths.best:g} to {lengths.worst:g} tokens in the "
            "mean (--response-tokens narrows the range; a run with --limit 10 tells)"
        )
    reason = (
        "as given"
        if lengths.expected == stated
        else f"not the {stated:g} of --response-tokens: an attempt ends at the token limit"
    )
    return f"responses: {lengths.expected:g} tokens in the mean, {reason}"


class Stated(NamedTuple):
    """What the command line says of a run; None where it does not.

    Parameters
    ----------
    attempts
        Attempts per question; without a task, 16 where it is None.
    questions, prompt_tokens, max_new_tokens, response_tokens
        As in `Workload`; ``response_tokens`` is one mean.
    """

    attempts: int | None = None
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
    check(stated)
    if stated.questions is None or stated.prompt_tokens is None:
        given = {"--questions": stated.questions, "--prompt-tokens": stated.prompt_tokens}
        missing = ", ".join(option for option, value in given.items() if value is None)
        raise UserError(f"--task is not given, nor {missing}: give the one or the other")
    length, limit = stated.response_tokens, stated.max_new_tokens
    if limit is None:
        if length is None:
            raise UserError("--max-gen-toks and --response-tokens are not given: give one of them")
        limit = math.ceil(2 * length)
    lengths, note = response_lengths(length, limit)
    attempts = DEFAULT_ATTEMPTS if stated.attempts is None else stated.attempts
    return Workload(stated.questions, stated.prompt_tokens, limit, attempts, lengths, notes=(note,))


def check(stated: Stated) -> None:
    """Raise a `UserError` where a number of the command line is not above 0."""
    given = {
        "--questions": stated.questions,
        "--prompt-tokens": stated.prompt_tokens,
        "--max-gen-toks": stated.max_new_tokens,
        "--attempts": stated.attempts,
        "--response-tokens": stated.response_tokens,
    }
    for option, value in given.items():
        if value is not None and not 0 < value < float("inf"):
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
    check(stated)
    tasks = loaded_tasks(task, stated.attempts)
    questions = sum(one.questions for one in tasks)
    tokens = stated.prompt_tokens
    notes = attempts_notes(tasks, stated.attempts)
    if tokens is None:
        measured = [_mean_tokens(one.prompts, model) for one in tasks]
        tokens = mean([one.questions for one in tasks], [found for found, _ in measured])
        notes = (*notes, *dict.fromkeys(note for _, note in measured))
    limits = [
        one.max_new_tokens if stated.max_new_tokens is None else stated.max_new_tokens
        for one in tasks
    ]
    attempts = [one.questions * one.attempts for one in tasks]
    each = [response_lengths(stated.response_tokens, limit)[0] for limit in limits]
    lengths = Lengths(*(mean(attempts, values) for values in zip(*each, strict=True)))
    grading = [GRADING.get(one.grader, GRADING["gsm8k"]) for one in tasks]
    return Workload(
        questions=questions if stated.questions is None else stated.questions,
        prompt_tokens=tokens,
        max_new_tokens=max(limits),
        attempts=sum(attempts) / questions,
        response_tokens=lengths,
        grader=", ".join(sorted({one.grader for one in tasks})),
        grading=GradingSeconds(*(mean(attempts, values) for values in zip(*grading, strict=True))),
        notes=(*notes, response_note(stated.response_tokens, lengths)),
    )


def mean(weights: Sequence[float], values: Sequence[float]) -> float:
    """Return the weighted mean, exactly that of equal values.

    Examples
    --------
    >>> mean([1, 3], [8, 4])
    5.0
    """
    if len(set(values)) == 1:
        return values[0]
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)


class TaskNumbers(NamedTuple):
    """What a task says of a run.

    Parameters
    ----------
    name
        Its name.
    questions, attempts, max_new_tokens, grader
        As in `Workload`.
    prompts
        Rendered prompts of some of the questions.
    """

    name: str
    questions: int
    attempts: int
    prompts: list[str]
    max_new_tokens: int
    grader: str


def loaded_tasks(task: str, attempts: int | None) -> list[TaskNumbers]:
    """Load a task, or all tasks of a group or tag, with so many attempts where they take that."""
    from lm_eval.tasks import TaskManager

    # As of ``--metadata`` on lm-eval's command line: tasks with a single answer ignore it.
    manager = TaskManager(metadata=None if attempts is None else {"attempts": attempts})
    if task not in manager.all_tasks:
        raise UserError(f"--task={task} is not a task; see lm_eval ls tasks")
    try:
        tasks = manager.load([task])["tasks"]
    except (OSError, UserError) as error:
        raise UserError(_without_data(task, str(error))) from error
    return [_numbers_of(task, name, loaded, attempts) for name, loaded in tasks.items()]


def _numbers_of(asked: str, name: str, loaded: Any, attempts: int | None) -> TaskNumbers:
    if loaded.OUTPUT_TYPE != "generate_until":
        what = "" if name == asked else f"{name} of "
        raise UserError(f"{what}--task={asked} generates nothing: only sampled runs are planned")
    loaded.build_all_requests(limit=_TOKENIZED_PROMPTS)
    # One instance per question: lm-eval repeats it later.
    repeats = loaded.instances[0].repeats
    if attempts is not None and not hasattr(loaded, "settings"):
        repeats = attempts  # lm-eval's own class: a group around it gives it attempts
    return TaskNumbers(
        name=name,
        questions=len(loaded.eval_docs),
        attempts=int(repeats),
        prompts=[instance.args[0] for instance in loaded.instances],
        max_new_tokens=int(
            (loaded.config.generation_kwargs or {}).get("max_gen_toks", _MAX_GEN_TOKS)
        ),
        grader=(loaded.config.metadata or {}).get("grader") or "gsm8k",
    )


def attempts_notes(tasks: Sequence[TaskNumbers], asked: int | None) -> tuple[str, ...]:
    """Return a line where tasks differ in attempts, or make another number than was asked for."""
    if {one.attempts for one in tasks} == {tasks[0].attempts if asked is None else asked}:
        return ()
    made = ", ".join(f"{one.name} {one.questions:,} x {one.attempts}" for one in tasks)
    return (f"attempts: of the tasks themselves ({made})",)


def _without_data(task: str, reason: str) -> str:
    first = reason.strip().partition("\n")[0]
    return (
        f"--task={task}: {first}; or leave --task out and give --questions, --prompt-tokens and "
        "--response-tokens"
    )


def _mean_tokens(prompts: Sequence[str], model: str) -> tuple[float, str]:
    """Return the mean tokens of a prompt, and a note that says how it was found."""
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
        return characters / _CHARACTERS_PER_TOKEN, note
    return total / len(prompts), f"prompts: mean of {len(prompts)}, without a chat template"

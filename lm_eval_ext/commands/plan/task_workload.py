"""What a run of a task has to do, from the task itself and the model's tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from lm_eval_ext.commands.plan.workload import RunNumbers, Workload, response_note
from lm_eval_ext.errors import UserError
from lm_eval_ext.models.model_loading import model_location

# Prompts that are tokenized for the mean length: their spread is small beside that of responses.
_TOKENIZED_PROMPTS = 200
_MAX_GEN_TOKS = 256  # lm-eval's own limit where a task says none


def task_workload(task: str, model: str, numbers: RunNumbers) -> Workload:
    """Return a run of a generation task, group or tag, its prompts in tokens of the model.

    Raises
    ------
    UserError
        If lm-eval knows no such task, or its data or the tokenizer cannot be loaded here.
    """
    tasks = task_numbers(task, numbers.attempts)
    questions = sum(one.questions for one in tasks)
    tokens = numbers.prompt_tokens
    notes = attempts_notes(tasks, numbers.attempts)
    if tokens is None:
        means = [_mean_tokens(one.prompts, model) for one in tasks]
        tokens = mean([one.questions for one in tasks], means)
        n_read = sum(len(one.prompts) for one in tasks)
        notes = (*notes, f"prompts: mean of {n_read}, without a chat template")
    limits = [
        one.max_new_tokens if numbers.max_new_tokens is None else numbers.max_new_tokens
        for one in tasks
    ]
    attempts = [one.questions * one.attempts for one in tasks]
    response = mean(attempts, [numbers.response_length(limit) for limit in limits])
    return Workload(
        questions=questions if numbers.questions is None else numbers.questions,
        prompt_tokens=tokens,
        max_new_tokens=max(limits),
        attempts=sum(attempts) / questions,
        response_tokens=response,
        notes=(*notes, response_note(numbers.response_tokens, response)),
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
    """What a task says of a run: numbers as in `Workload`, and the prompts of some questions."""

    name: str
    questions: int
    attempts: int
    prompts: list[str]
    max_new_tokens: int


def task_numbers(task: str, attempts: int | None) -> list[TaskNumbers]:
    """Read a task, or all tasks of a group or tag, at a number of attempts where they take one."""
    return [
        _numbers_of(name, loaded, attempts) for name, loaded in load_tasks(task, attempts).items()
    ]


def load_tasks(task: str, attempts: int | None) -> dict[str, Any]:
    """Load the tasks of lm-eval that a run is made of, by name.

    Raises
    ------
    UserError
        If lm-eval knows no such task, its data cannot be loaded here, or it generates nothing.
    """
    from lm_eval.tasks import TaskManager

    # As of ``--metadata`` on lm-eval's command line: tasks with a single answer ignore it.
    manager = TaskManager(metadata=None if attempts is None else {"attempts": attempts})
    if task not in manager.all_tasks:
        raise UserError(f"--tasks={task} is not a task; see lm_eval ls tasks")
    try:
        tasks = manager.load([task])["tasks"]
    except (OSError, UserError) as error:
        raise UserError(_without_data(task, str(error))) from error
    for name, loaded in tasks.items():
        if loaded.OUTPUT_TYPE != "generate_until":
            what = "" if name == task else f"{name} of "
            raise UserError(
                f"{what}--tasks={task} generates nothing: only sampled runs are planned"
            )
    return tasks


def repeats(loaded: Any, attempts: int | None) -> int:
    """Return the attempts per question of a task whose requests are built."""
    if attempts is not None and not hasattr(loaded, "settings"):
        return attempts  # lm-eval's own class: a group around it gives it attempts
    return int(loaded.instances[0].repeats)


def _numbers_of(name: str, loaded: Any, attempts: int | None) -> TaskNumbers:
    loaded.build_all_requests(limit=_TOKENIZED_PROMPTS)
    return TaskNumbers(
        name=name,
        questions=len(loaded.eval_docs),
        attempts=repeats(loaded, attempts),
        prompts=[instance.args[0] for instance in loaded.instances],
        max_new_tokens=int(
            (loaded.config.generation_kwargs or {}).get("max_gen_toks", _MAX_GEN_TOKS)
        ),
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
        f"--tasks={task}: {first}; or leave --tasks out and give --questions, --prompt-tokens and "
        "--response-tokens"
    )


def _mean_tokens(prompts: Sequence[str], model: str) -> float:
    from transformers import AutoTokenizer

    location = model_location(model, argument="--pretrained")
    try:
        tokenizer = AutoTokenizer.from_pretrained(location)
        return sum(len(ids) for ids in tokenizer(list(prompts))["input_ids"]) / len(prompts)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{model} has no tokenizer here: give --prompt-tokens") from error

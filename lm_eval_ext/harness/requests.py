"""Everything the model wrappers need to know of lm-eval's internals, in one place.

A wrapper sees prompts, attempts and `Generation` strings; how lm-eval repeats requests, spells
generation settings and cleans up text stays here.
"""

from __future__ import annotations

import copy
import inspect
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.models.utils import (
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from lm_eval.utils import simple_parse_args_string

from lm_eval_ext.errors import UserError

if TYPE_CHECKING:
    from lm_eval.models.huggingface import HFLM


def info_logger(name: str) -> logging.Logger:
    """Return a logger whose messages lm-eval's command shows under its own verbosity, INFO on.

    Of loggers that do not descend from its own it shows warnings only.
    """
    return logging.getLogger(f"lm_eval.{name}")


class GenerationRequest(NamedTuple):
    """One attempt as lm-eval asks for it.

    Parameters
    ----------
    prompt
        The rendered prompt.
    attempt
        Number of the attempt among the repeats of its question, from 0.
    settings
        Generation settings without stop strings and token limit.
    stop
        Stop strings, the text of the end-of-sequence token among them.
    max_new_tokens
        Most tokens to generate, those of a thinking budget included.
    thinking_budget
        Most tokens of a thought, or None.
    """

    prompt: str
    attempt: int
    settings: Mapping[str, Any]
    stop: tuple[str, ...]
    max_new_tokens: int
    thinking_budget: int | None = None


def generation_requests(lm: HFLM, requests: Sequence[Instance]) -> list[GenerationRequest]:
    """Read lm-eval's request list.

    lm-eval asks for N attempts by putting the same `Instance` N times into the list, without a
    number; padding for even ranks repeats it further. Counting occurrences numbers them rightly
    under repeats, limits, several tasks and padding.

    Parameters
    ----------
    lm
        The model, for its default token limit and end-of-sequence text.
    requests
        What lm-eval passes to ``generate_until``.
    """
    seen: Counter[int] = Counter()
    eos = lm.tokenizer.decode(lm.eot_token_id, skip_special_tokens=False)
    result = []
    for instance in requests:
        prompt, generation_kwargs = instance.args
        settings: dict[str, Any] = dict(normalize_gen_kwargs(generation_kwargs, lm.max_gen_toks))
        stop = handle_stop_sequences(settings.pop("until", None), eos=eos)
        max_new_tokens = int(settings.pop("max_gen_toks"))
        result.append(
            GenerationRequest(prompt, seen[id(instance)], settings, tuple(stop), max_new_tokens)
        )
        seen[id(instance)] += 1
    return result


def by_settings(requests: Sequence[GenerationRequest]) -> list[list[int]]:
    """Return the indices of requests, those of equal settings together."""
    found: dict[str, list[int]] = defaultdict(list)
    for i, request in enumerate(requests):
        found[repr((*request,)[2:])].append(i)
    return list(found.values())


def with_seed(request: Instance, seed: int) -> Instance:
    """Return a request that asks for a seed of its own; the original stays as it is."""
    context, settings, *others = request.args
    other = copy.copy(request)
    other.arguments = (context, {**settings, "seed": seed}, *others)
    return other


def complete(lm: HFLM, prompts: Sequence[str], **generation_kwargs: Any) -> list[Any]:
    """Complete prompts outside of a task; equal neighbors are attempts at one question."""
    requests: list[Instance] = []
    for prompt in prompts:
        if requests and requests[-1].args[0] == prompt:
            requests.append(requests[-1])
        else:
            requests.append(Instance("generate_until", {}, (prompt, generation_kwargs), 0))
    return lm.generate_until(requests, disable_tqdm=True)


def parse_model_args(text: str) -> dict[str, Any]:
    """Read ``--model_args`` as lm-eval does.

    Examples
    --------
    >>> parse_model_args("pretrained=tiny,length=8")
    {'pretrained': 'tiny', 'length': 8}
    """
    return dict(simple_parse_args_string(text))


def model_arguments() -> frozenset[str]:
    """Return the arguments of every model class of lm-eval that is loaded in this process.

    A task is not told its model, whose arguments are among its metadata; but the model's class has
    been loaded by then.
    """
    found: set[str] = set()
    classes: list[type] = [LM]
    while classes:
        kind = classes.pop()
        classes += kind.__subclasses__()
        # A base that is none of lm-eval's may take arguments too.
        inits = (vars(base).get("__init__") for base in kind.__mro__[:-1])
        found.update(*(inspect.signature(init).parameters for init in inits if init))
    return frozenset(found) - {"self"}


class UnknownTaskError(UserError):
    """A name that lm-eval knows no task by."""


def _load_task(task: str) -> Any:
    """Load one task, or raise an `UnknownTaskError`."""
    from lm_eval.tasks import TaskManager

    import lm_eval_ext.tasks

    # Reading lm-eval's own 14,000 files takes longer than all else.
    ours = str(next(iter(lm_eval_ext.tasks.__path__)))
    manager = TaskManager(include_path=ours, include_defaults=False)
    if task not in manager.all_subtasks:
        manager = TaskManager()
    if task not in manager.all_subtasks:
        raise UnknownTaskError(f"--tasks={task} is not a task; see lm_eval ls subtasks")
    (loaded,) = manager.load([task])["tasks"].values()
    return loaded


class TaskQuestion(NamedTuple):
    """A question of a task: its rendered prompt, how it is to be answered, and its record."""

    prompt: str
    generation_kwargs: dict[str, Any]
    doc: dict[str, Any]


def task_questions(
    task: str,
    *,
    limit: int | None,
    chat_template: Callable[..., str] | None = None,
    system_instruction: str | None = None,
    num_fewshot: int | None = None,
    fewshot_as_multiturn: bool = False,
) -> tuple[Any, list[TaskQuestion]]:
    """Return a task and its first questions, rendered as lm_eval does with these options.

    Parameters
    ----------
    task
        Its name.
    limit
        Most questions, or None for all.
    chat_template
        Renders messages, as from `chat_renderer`; None renders plain text.
    system_instruction, num_fewshot, fewshot_as_multiturn
        As lm_eval has them.

    Raises
    ------
    UserError
        If lm-eval knows no such task.
    """
    loaded = _load_task(task)
    if num_fewshot is not None:
        loaded.set_config("num_fewshot", num_fewshot)
    loaded.build_all_requests(
        limit=limit,
        system_instruction=system_instruction,
        apply_chat_template=chat_template is not None,
        chat_template=chat_template,
        fewshot_as_multiturn=fewshot_as_multiturn,
    )
    return loaded, [
        TaskQuestion(one.args[0], dict(one.args[1]), dict(one.doc)) for one in loaded.instances
    ]


def chat_renderer(tokenizer: Any, **template_args: Any) -> Callable[..., str]:
    """Return what renders messages by a tokenizer's chat template as lm-eval's models do."""
    from lm_eval.models.huggingface import HFLM

    model = SimpleNamespace(tokenizer=tokenizer, chat_template_args=template_args)
    return partial(HFLM.apply_chat_template, model)


def task_docs(task: str) -> list[dict[str, Any]]:
    """Return the questions that a task evaluates on, in the order of ``--samples``.

    Parameters
    ----------
    task
        Its name.

    Raises
    ------
    UserError
        If lm-eval knows no such task.
    """
    return [dict(doc) for doc in _load_task(task).eval_docs]


def task_requests(
    task: str, lm: HFLM, *, limit: int, apply_chat_template: bool
) -> list[tuple[str, dict[str, Any]]]:
    """Return the rendered prompts of a task's first questions, and how they are to be answered.

    Raises
    ------
    UserError
        If lm-eval knows no such task.
    """
    template = lm.apply_chat_template if apply_chat_template else None
    _, found = task_questions(task, limit=limit, chat_template=template)
    return [(one.prompt, one.generation_kwargs) for one in found]


def task_prompts(task: str, lm: HFLM, *, limit: int, apply_chat_template: bool) -> list[str]:
    """Return the prompts of `task_requests`."""
    found = task_requests(task, lm, limit=limit, apply_chat_template=apply_chat_template)
    return [prompt for prompt, _ in found]


def prompt_tokens(lm: HFLM, prompt: str) -> list[int]:
    """Tokenize a prompt as lm-eval's Hugging Face models do, with BOS exactly once."""
    from lm_eval.models.huggingface import HFLM

    # Whichever class of lm-eval loaded the model: only `HFLM` cuts prompts where asked to.
    cut = bool(getattr(lm, "truncation", False))
    token_ids, _ = HFLM.tok_batch_encode(lm, [prompt], truncation=cut)
    return [int(token) for token in token_ids[0]]


def prompt_room(lm: HFLM, *, max_new_tokens: int, length: int = 0) -> int:
    """Return how many prompt tokens fit beside the tokens to generate.

    Parameters
    ----------
    lm
        The model.
    max_new_tokens
        Most tokens to generate.
    length
        Injected vectors that need room too.

    Raises
    ------
    UserError
        If nothing is left for the prompt.
    """
    room = int(lm.max_length) - max_new_tokens - length
    if room <= 0:
        injected = f" and {length} injected positions" if length else ""
        raise UserError(
            f"max_gen_toks={max_new_tokens}{injected} leave no room for a prompt in the model's "
            f"{lm.max_length} positions; lower max_gen_toks (--gen_kwargs max_gen_toks=...)"
        )
    return room


def cut_at_stops(text: str, stop: Sequence[str]) -> str:
    """Return a text up to the first stop string, as lm-eval cuts it.

    Parameters
    ----------
    text
        Generated text.
    stop
        Stop strings; empty ones are ignored.
    """
    return postprocess_generated_text(text, list(stop), None)


def autocast(lm: HFLM) -> AbstractContextManager[Any]:
    """Return the mixed precision that a model was asked to compute in, if any."""
    if lm.mixed_precision_dtype is None:
        return nullcontext()
    return torch.autocast(device_type=lm.device.type, dtype=lm.mixed_precision_dtype)


def tokens_from(lm: HFLM, prompt: str, start: int) -> int:
    """Return how many tokens of a prompt begin at or after an offset in characters."""
    if not lm.tokenizer.is_fast:
        # No offsets: what follows a turn usually begins with a special token, and is then
        # tokenized alike by itself.
        return len(lm.tokenizer(prompt[start:], add_special_tokens=False)["input_ids"])
    encoded = lm.tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)
    return sum(first >= start for first, _ in encoded["offset_mapping"])


def end_of_user_turn(lm: HFLM, prompt: str) -> int | None:
    """Return where the last user message ends in a rendered chat prompt.

    The chat template is rendered around a marker to learn what it writes after a user message;
    the last occurrence of that text in the prompt is the end of the user's turn.

    Returns
    -------
    int or None
        Offset in characters, or None where the prompt holds no such turn (a plain prompt).
    """
    if not getattr(lm.tokenizer, "chat_template", None):
        return None
    marker = "user-message-marker"
    rendered = lm.apply_chat_template([{"role": "user", "content": marker}])
    after = rendered.rpartition(marker)[2]
    if not after.strip():
        return None
    found = prompt.rfind(after)
    return found if found >= 0 else None

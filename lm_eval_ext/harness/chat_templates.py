"""One line before a run whose tasks and chat template do not fit each other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import Any

logger = logging.getLogger(__name__)


def with_chat_check(evaluate: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap lm-eval's ``evaluate``, which knows the model and the tasks, to say so first."""

    @wraps(evaluate)
    def checked(*positional: Any, **named: Any) -> Any:
        known = {**dict(zip(("lm", "task_dict"), positional, strict=False)), **named}
        lm, tasks = known.get("lm"), known.get("task_dict")
        line = about_chat(lm, tasks, bool(known.get("apply_chat_template")))
        if line and not getattr(lm, "rank", 0):
            logger.warning("%s", line)
        return evaluate(*positional, **named)

    return checked


def about_chat(lm: Any, tasks: Any, is_applied: bool) -> str | None:
    """Return a line where the tasks want what is not done with the chat template, or the reverse.

    Parameters
    ----------
    lm
        The model. Nothing is known of one without a tokenizer, such as one behind an API.
    tasks
        What lm-eval's ``evaluate`` takes as ``task_dict``. Of tasks that do not say whether they
        are for chat (``chat``), nothing is said.
    is_applied
        Whether ``--apply_chat_template`` is given.
    """
    has_template = bool(getattr(getattr(lm, "tokenizer", None), "chat_template", None))
    if not has_template:
        return None
    names = ", ".join(name for name, is_chat in _tasks(tasks) if is_chat != is_applied)
    if not names:
        return None
    if is_applied:
        return (
            f"{names}: written for plain completion, and the chat template is applied; leave out "
            "--apply_chat_template, or take the form of the task that ends in _chat"
        )
    return (
        f"{names}: written for a chat template, which the model has and which is not applied: add "
        "--apply_chat_template, or answers may be empty"
    )


def _tasks(tasks: Any) -> Iterator[tuple[str, bool]]:
    """Yield the names of tasks that say whether they are for chat, and what they say."""
    if not isinstance(tasks, Mapping):
        return
    for name, task in tasks.items():
        if isinstance(task, Mapping):
            yield from _tasks(task)
        elif isinstance(is_chat := getattr(task, "chat", None), bool):
            yield str(name), is_chat

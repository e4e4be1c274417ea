"""Let what was kept answer the requests of a task, whatever the model.

lm-eval hands a model all requests at once and takes all answers at once. Requests that a task has
given a keeper go to that first: it answers those it can, asks the model for the others, and sees
each answer as soon as the model reports it to lm-eval's response cache.

`lm_eval_ext.harness.bridge` puts `with_keepers` around lm-eval's ``evaluate``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

_MARK = "keeper"

Generate = Callable[[list["Instance"]], Sequence[Any]]
"""A model's ``generate_until``."""
Note = Callable[[Any, "int | None", Any], None]
"""Takes the context of a request, the number of the attempt where it is known, and the answer."""


class Keeper(Protocol):
    """Answers the requests of a run; those with an equal `folder` are one."""

    folder: str

    def answer(self, lm: Any, requests: Sequence[Instance], generate: Generate) -> list[Any]:
        """Return an answer for each request, from what is kept or from the model."""


def keep_with(instance: Instance, keeper: Keeper) -> None:
    """Let a keeper answer a request, of which lm-eval's lists hold one object several times."""
    setattr(instance, _MARK, keeper)


def with_keepers(evaluate: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap lm-eval's ``evaluate``."""

    @wraps(evaluate)
    def wrapped(lm: Any, *rest: Any, **named: Any) -> Any:
        generate = lm.generate_until

        def generate_until(requests: list[Instance], *more: Any, **options: Any) -> list[Any]:
            keepers: dict[str | None, tuple[Keeper | None, list[int]]] = {}
            for place, request in enumerate(requests):
                keeper: Keeper | None = getattr(request, _MARK, None)
                folder = None if keeper is None else keeper.folder
                keepers.setdefault(folder, (keeper, []))[1].append(place)
            answers: list[Any] = [""] * len(requests)
            for keeper, places in keepers.values():
                asked = [requests[i] for i in places]

                def ask(some: list[Instance]) -> Sequence[Any]:
                    found: Sequence[Any] = generate(some, *more, **options)
                    return found

                found = ask(asked) if keeper is None else keeper.answer(lm, asked, ask)
                for place, answer in zip(places, found, strict=True):
                    answers[place] = answer
            return answers

        lm.generate_until = generate_until
        try:
            return evaluate(lm, *rest, **named)
        finally:
            del lm.generate_until

    return wrapped


@contextmanager
def reporting(lm: Any, note: Note) -> Iterator[None]:
    """Return a context in which a model's finished answers are noted as they come."""
    model = model_itself(lm)
    hook = model.cache_hook
    model.cache_hook = _NotingHook(hook, note)
    try:
        yield
    finally:
        model.cache_hook = hook


def model_itself(lm: Any) -> Any:
    """Return the model in lm-eval's wrapper for ``--use_cache``, or the model."""
    from lm_eval.api.model import CachingLM

    return lm.lm if isinstance(lm, CachingLM) else lm


class _NotingHook:
    """Stands where a model has lm-eval's ``CacheHook``."""

    def __init__(self, hook: Any, note: Note, number: int | None = None) -> None:
        self._hook, self._note, self._number = hook, note, number

    def add_partial(self, attribute: str, arguments: Any, answer: Any) -> None:
        self._hook.add_partial(attribute, arguments, answer)
        if attribute == "generate_until":
            self._note(next(iter(arguments)), self._number, answer)

    def of_attempt(self, number: int) -> _NotingHook:
        """Return the hook of a model that answers attempts of one number only."""
        return _NotingHook(self._hook, self._note, number)

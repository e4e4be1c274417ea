"""Seeds of their own for the repeats of a request to an API.

lm-eval's models behind an API send one seed with every request, so a server that honours it
answers N repeats with N equal texts. Here the seed that a model sends is raised by the number of
the attempt among the repeats of its prompt, or by the one it was given; the first attempt has
lm-eval's own. A model that sends none, greedy requests, and those of tasks that are not
`lm_eval_ext.task.AttemptsTask` are left as they are.

`lm_eval_ext.harness.bridge` puts `with_own_seeds` around lm-eval's class as that is imported.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, NamedTuple

from lm_eval_ext.harness.task_config import is_greedy

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

_MARK = "has_own_seeds"


def with_own_seeds(generate_until: Callable[..., list[str]]) -> Callable[..., list[str]]:
    """Wrap ``TemplateAPI.generate_until``.

    Parameters
    ----------
    generate_until
        lm-eval's own.
    """

    @wraps(generate_until)
    def wrapped(self: Any, requests: Sequence[Any], *rest: Any, **named: Any) -> list[str]:
        ours = [i for i, request in enumerate(requests) if hasattr(request, _MARK)]
        numbers = _numbers([requests[i] for i in ours])
        if not any(numbers):
            return generate_until(self, requests, *rest, **named)
        parts = [(self, sorted(set(range(len(requests))) - set(ours)))]
        if self._concurrent > 1:  # all attempts at once
            by_arguments: dict[str, list[int]] = {}
            for i, number in zip(ours, numbers, strict=True):
                by_arguments.setdefault(_name(requests[i].args), []).append(number)
            parts.append((_concurrent(self, by_arguments), ours))
        else:
            for number in sorted(set(numbers)):
                places = [i for i, one in zip(ours, numbers, strict=True) if one == number]
                parts.append((_numbered(self, number), places))
        responses = [""] * len(requests)
        for lm, places in parts:
            asked = [requests[i] for i in places]
            answers = generate_until(lm, asked, *rest, **named) if asked else []
            for place, answer in zip(places, answers, strict=True):
                responses[place] = answer
        return responses

    return wrapped


def ask_with_own_seeds(instance: Instance, numbers: Sequence[int] | None = None) -> None:
    """Mark a request, so that its repeats get seeds of their own.

    Parameters
    ----------
    instance
        The request, of which lm-eval's lists hold one object several times.
    numbers
        The number of each of its repeats among the attempts; 0, 1, 2 and so on by default.
    """
    setattr(instance, _MARK, numbers)


def _numbers(requests: Sequence[Instance]) -> list[int]:
    """Return the number of each request: the stated, or that among the same arguments, from 0."""
    seen: Counter[str] = Counter()
    found = []
    for request in requests:
        name, stated = _name(request.args), getattr(request, _MARK)
        number = seen[name] if stated is None else stated[seen[name]]
        found.append(0 if is_greedy(request.args[1]) else number)
        seen[name] += 1
    return found


def _name(arguments: Sequence[Any]) -> str:
    return repr(tuple(arguments[:2]))


def _numbered(lm: Any, number: int) -> Any:
    """Return the same model, which raises the seed it sends."""
    if number == 0:
        return lm
    other, create = copy.copy(lm), lm._create_payload
    if hasattr(lm.cache_hook, "of_attempt"):
        other.cache_hook = lm.cache_hook.of_attempt(number)

    def create_payload(*arguments: Any, **named: Any) -> Any:
        payload = create(*arguments, **named)
        seed = payload.get("seed") if isinstance(payload, dict) else None
        return payload if seed is None else {**payload, "seed": int(seed) + number}

    other._create_payload = create_payload
    return other


class _Batch(NamedTuple):
    """Prompts that are sent together: of one attempt, as there is one seed for all."""

    number: int
    places: list[int]
    messages: list[Any]
    cache_keys: list[Any]


def _concurrent(lm: Any, numbers: Mapping[str, Sequence[int]]) -> Any:
    """Return the same model, which sends the attempts at a prompt side by side."""
    other = copy.copy(lm)
    left = {name: iter(of_repeats) for name, of_repeats in numbers.items()}
    other.get_batched_requests = partial(_get_batched_requests, lm, left)
    return other


async def _get_batched_requests(
    lm: Any,
    left: Mapping[str, Iterator[int]],
    requests: list[Any],
    cache_keys: list[Any],
    **named: Any,
) -> list[list[Any]]:
    """Do as lm-eval's method of this name, with batches of one attempt each."""
    by_number: dict[int, list[int]] = {}
    for place, key in enumerate(cache_keys):
        by_number.setdefault(next(left[_name(key)]), []).append(place)
    batches = []
    for number, places in by_number.items():
        for start in range(0, len(places), lm._batch_size):
            some = places[start : start + lm._batch_size]
            messages = [requests[i] for i in some]
            batches.append(_Batch(number, some, messages, [cache_keys[i] for i in some]))

    async def send(*, messages: list[_Batch], cache_keys: Any, ctxlens: Any, **more: Any) -> Any:
        (batch,) = messages
        return await _numbered(lm, batch.number).amodel_call(
            messages=batch.messages, cache_keys=batch.cache_keys, **more
        )

    other = copy.copy(lm)
    other._batch_size, other.amodel_call = 1, send
    method = type(lm).get_batched_requests
    answers = await method(other, batches, [None] * len(batches), **named)
    found: dict[int, Any] = {}
    for batch, texts in zip(batches, answers, strict=True):
        found.update(zip(batch.places, texts, strict=True))
    return [[found[place]] for place in range(len(requests))]

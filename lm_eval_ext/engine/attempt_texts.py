"""The texts of attempts, and the thoughts in them, read from the tokens that a model generated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from lm_eval_ext.checks import whole_number
from lm_eval_ext.engine.thinking_budget import ThinkingBudget, n_tokens_until
from lm_eval_ext.errors import UserError
from lm_eval_ext.harness.requests import GenerationRequest, cut_at_stops, end_of_user_turn
from lm_eval_ext.models.generation import Generation, GenerationRecord, Thought
from lm_eval_ext.models.thoughts import ThoughtFormats, ThoughtTags

if TYPE_CHECKING:
    from lm_eval.models.huggingface import HFLM


def thought_formats(lm: HFLM) -> ThoughtFormats:
    """Return the tags of a model's thoughts: those of its arguments, and the known ones."""
    tags = (getattr(lm, "think_start_token", None), getattr(lm, "think_end_token", None))
    return ThoughtFormats(*(_tag_text(lm, tag) for tag in tags))


def _tag_text(lm: HFLM, tag: str | int | None) -> str | None:
    return lm.tokenizer.decode([tag], skip_special_tokens=False) if isinstance(tag, int) else tag


def open_thought(lm: HFLM, prompt: str) -> ThoughtTags | None:
    """Return the tags of the thought that a prompt leaves open, or None."""
    formats = thought_formats(lm)
    # Rendering the template to find the assistant's turn is slow: only where there is a tag.
    if not any(tags.opening and tags.opening in prompt for tags in formats.all):
        return None
    return formats.opened_by(prompt, turn=end_of_user_turn(lm, prompt))


def read_thinking_budget(budget: int | None) -> int | None:
    """Read the argument ``thinking_budget`` of a model: a whole number from 1 up, or None."""
    if budget is None:
        return None
    if whole_number("thinking_budget", budget) < 1:
        raise UserError(f"thinking_budget={budget} must be at least 1, or left out")
    return whole_number("thinking_budget", budget)


def read_tag(tag: str | int | None) -> str | int | None:
    """Return a tag as its text, or as the number of its token where that was given.

    Examples
    --------
    >>> read_tag("151667"), read_tag("<think>")
    (151667, '<think>')
    """
    return int(tag) if tag is not None and str(tag).isdigit() else tag


class _Reading(NamedTuple):
    """Tokens as text: without special tokens, the thought, and where the answer begins."""

    text: str
    thought: Thought | None
    answer: int


def _read(lm: HFLM, token_ids: Sequence[int], opened: ThoughtTags | None) -> _Reading:
    formats, ids = thought_formats(lm), list(token_ids)
    text = lm.tokenizer.decode(ids, skip_special_tokens=True)
    span = formats.find(lm.tokenizer.decode(ids, skip_special_tokens=False), opened)
    if span is None:
        return _Reading(text, None, 0)
    if not span.finished:
        return _Reading(text, Thought(finished=False, n_tokens=len(ids)), len(text))
    n_tokens = n_tokens_until(lm.tokenizer, ids, span.end)
    # The tag, where it is in the text, may end in the middle of a token.
    seen = formats.find(text, opened)
    end = (
        seen.end
        if seen and seen.finished
        else len(lm.tokenizer.decode(ids[:n_tokens], skip_special_tokens=True))
    )
    return _Reading(text, Thought(finished=True, n_tokens=n_tokens), end)


def stopped_inside_thought(lm: HFLM, record: GenerationRecord, opened: ThoughtTags | None) -> bool:
    """Return whether a stop string ended an attempt inside its thought, as in version 0.1."""
    if record.finish_reason != "stop":
        return False
    thought = _read(lm, record.token_ids, opened).thought
    return thought is not None and not thought.finished


def visible_text(
    lm: HFLM, token_ids: Sequence[int], stop: Sequence[str], opened: ThoughtTags | None = None
) -> str:
    """Return the text lm-eval scores: no special tokens, cut at the stop strings of the answer.

    The thought is part of it, unless the model has a ``think_end_token``.
    """
    if lm.think_end_token is None:
        return response_text(lm, token_ids, stop, opened)
    reading = _read(lm, token_ids, opened)
    if reading.thought is None:
        return cut_at_stops(reading.text.lstrip(), stop)
    if not reading.thought.finished:
        return reading.text.lstrip()
    return cut_at_stops(reading.text[reading.answer :].lstrip(), stop)


def response_text(
    lm: HFLM, token_ids: Sequence[int], stop: Sequence[str], opened: ThoughtTags | None = None
) -> str:
    """Return the text a model wrote: as `visible_text`, but always with the thought."""
    reading = _read(lm, token_ids, opened)
    before, answer = reading.text[: reading.answer], reading.text[reading.answer :]
    return before + cut_at_stops(answer, stop)


def with_thought(lm: HFLM, generation: Generation, opened: ThoughtTags | None) -> Generation:
    """Return an attempt whose record has its thought."""
    reading = _read(lm, generation.record.token_ids, opened)
    thought = reading.thought
    if thought is None:
        return generation
    if thought.finished:  # and, with a think_end_token, not in the text
        before = reading.text[: reading.answer]
        thought = thought._replace(n_characters=len(before) * generation.startswith(before))
    return Generation(str(generation), replace(generation.record, thought=thought))


def with_thinking_budget(
    lm: HFLM, requests: Sequence[GenerationRequest], budget: int | None
) -> list[GenerationRequest]:
    """Return requests with room for a thought of up to `budget` tokens before the answer.

    A prompt that ends with a closed thought stays as it is.
    """
    if budget is None:
        return list(requests)
    formats = thought_formats(lm)
    return [
        request
        if formats.switched_off_by(request.prompt)
        else request._replace(
            max_new_tokens=request.max_new_tokens + budget, thinking_budget=budget
        )
        for request in requests
    ]


def budget_of_thoughts(lm: HFLM, n_tokens: int | None) -> ThinkingBudget | None:
    """Return what ends the thoughts of a model after a number of tokens, or None."""
    if n_tokens is None:
        return None
    return ThinkingBudget(lm.tokenizer, thought_formats(lm), n_tokens)

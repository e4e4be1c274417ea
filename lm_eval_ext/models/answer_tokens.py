"""Which tokens of a response write its answer: the last box, or else the last number."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import replace
from itertools import accumulate

from lm_eval_ext.models.boxes import find_boxes
from lm_eval_ext.models.generation import AnswerTokens, Generation
from lm_eval_ext.models.token_texts import TokenTexts

_MAX_LENGTH = 400
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def with_answer_tokens(texts: TokenTexts, generations: Iterable[Generation]) -> list[Generation]:
    """Note in the record of each attempt which tokens write its answer.

    Parameters
    ----------
    texts
        Texts of the tokens of the model.
    generations
        Finished attempts.
    """
    return [
        Generation(str(one), replace(one.record, answer=answer_tokens(texts, one)))
        for one in generations
    ]


def answer_tokens(texts: TokenTexts, generation: Generation) -> AnswerTokens | None:
    """Return the tokens of the last box of an attempt, or else of its last number.

    Parameters
    ----------
    texts
        Texts of the tokens of the model.
    generation
        The attempt.

    Returns
    -------
    AnswerTokens or None
        None without a box or number after the thought, and where the text from there on is not
        that of the tokens, such as for a character that is spread over several of them.
    """
    record, thought = generation.record, generation.record.thought
    text = str(generation) if thought is None else thought.answer_in(str(generation))
    found = None if text is None else _last_answer(text)
    if text is None or found is None:
        return None
    start, end, in_box = found
    tokens = texts.of(record.token_ids)
    ends = list(accumulate(map(len, tokens)))
    begin = sum(map(len, tokens[: thought.n_tokens])) if thought and thought.n_tokens else 0
    joined = "".join(tokens)
    place = joined.find(text, begin) + start
    if place < start:  # a character spread over several tokens: look for what follows it
        place = joined.rfind(text[start:], begin)
    if place < 0:
        return None
    first, last = bisect_right(ends, place), bisect_left(ends, place + end - start)
    return AnswerTokens(text[start:end], first, last + 1, in_box)


def _last_answer(text: str) -> tuple[int, int, bool] | None:
    """Return where the last box's inside, or else the last number, is, and whether it is a box."""
    for box in find_boxes(text, _MAX_LENGTH):
        return box.end - 1 - len(box.inside), box.end - 1, True
    numbers = [match.span() for match in _NUMBER.finditer(text, max(0, len(text) - _MAX_LENGTH))]
    if not numbers:
        return None
    start, end = numbers[-1]
    return start, start + len(text[start:end].rstrip(",")), False

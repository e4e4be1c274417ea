r"""Give attempts that end without a closed ``\boxed{}`` one more chance to give their answer.

A short lead-in that ends in ``\boxed{`` is appended, and a few more tokens are decoded: a practical
form of the adaptive injection decoding that EpiCaR (arXiv:2601.06786) uses. It keeps a slip of
format from counting as a wrong answer, in evaluation and in training labels.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lm_eval_ext.engine.request import AttemptRequest, AttemptResult
from lm_eval_ext.engine.sampling_settings import SamplingSettings
from lm_eval_ext.engine.stop_strings import StopStrings
from lm_eval_ext.methods.self_evaluation.layout import cut_from_left
from lm_eval_ext.models.boxes import box_end, find_boxes
from lm_eval_ext.models.generation import TokenStatistics
from lm_eval_ext.models.thoughts import ThoughtTags

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

LEAD_IN = "\nThe final answer is \\boxed{"
MAX_NEW_TOKENS = 32
MAX_LENGTH = 400
"""Characters in which a box has to be closed."""


class BoxCompletion:
    """Completes attempts that have no closed box.

    Attributes
    ----------
    stop
        Ends a completion at the brace that closes its box.
    counts
        Attempts so far: ``attempts``, ``completed`` (a lead-in was appended) and ``closed`` (of
        these, the box was closed then).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, max_length: int) -> None:
        self.stop = ClosingBrace(tokenizer)
        self.counts: Counter[str] = Counter(attempts=0, completed=0, closed=0)
        self._tokenizer = tokenizer
        self._max_length = max_length

    def request(self, asked: AttemptRequest, response: str) -> AttemptRequest:
        """Return what the model reads before the content of the box.

        The attempt's random stream continues, so the completion belongs to the attempt like the
        rest of its text. Too long a context is cut from the left.
        """
        ids = self._tokenizer(response + LEAD_IN, add_special_tokens=False)["input_ids"]
        whole = replace(asked, private_ids=(*asked.private_ids, *map(int, ids)))
        n_positions = len(whole.shared_ids) + whole.private_length + MAX_NEW_TOKENS
        return cut_from_left(whole, max(0, n_positions - self._max_length))

    def added_text(self, token_ids: Sequence[int]) -> str:
        """Return the lead-in and a completion's text up to the closing brace."""
        inside = self._tokenizer.decode(list(token_ids), skip_special_tokens=True)
        return LEAD_IN + inside[: box_end(inside)]

    def report(self) -> None:
        """Say how often there was something to complete."""
        # A warning is what lm-eval's command line shows of other packages.
        logger.warning(
            "box completion: %(completed)d of %(attempts)d attempts so far ended without a closed "
            "box; %(closed)d of these have one now",
            self.counts,
        )

    def settings(self, sampling: SamplingSettings) -> SamplingSettings:
        """Return how a completion is sampled, given how the attempt was."""
        return replace(sampling, max_new_tokens=MAX_NEW_TOKENS, stop=("}",), thinking_budget=None)

    def key_settings(self) -> dict[str, Any]:
        """Return what decides a completion, for the keys of a store."""
        return {"lead_in": LEAD_IN, "max_new_tokens": MAX_NEW_TOKENS}

    def record(self) -> dict[str, Any]:
        """Return the settings and the counts, for the record of the run."""
        return {**self.key_settings(), **self.counts}


class ClosingBrace(StopStrings):
    """Ends an attempt at the brace that closes a box opened before it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(tokenizer, ["}"])

    def completed(self, token_ids: Sequence[int], opened: ThoughtTags | None = None) -> bool:
        """Return whether the box is closed, whatever the attempt was thinking."""
        return box_end(self._tokenizer.decode(list(token_ids))) is not None

    def inside_thought(self, token_ids: Sequence[int], opened: ThoughtTags | None = None) -> bool:
        """Return False: a box ends where it is closed."""
        return False


def has_closed_box(text: str) -> bool:
    r"""Return whether a text holds a brace-matched ``\boxed{}``.

    Examples
    --------
    >>> has_closed_box(r"so \boxed{\frac{1}{2}}"), has_closed_box(r"so \boxed{\frac{1}{2}")
    (True, False)
    """
    return next(find_boxes(text, MAX_LENGTH), None) is not None


def joined(first: AttemptResult, completion: AttemptResult) -> AttemptResult:
    """Return an attempt with its completion: tokens and statistics of both, the latter's end.

    The tokens of the lead-in are in neither: the model did not choose them.
    """
    assert first.statistics is not None
    assert completion.statistics is not None
    statistics = (
        np.concatenate(parts) for parts in zip(first.statistics, completion.statistics, strict=True)
    )
    return AttemptResult(
        first.token_ids + completion.token_ids,
        completion.finish_reason,
        TokenStatistics(*statistics),
        completion.readout,
    )

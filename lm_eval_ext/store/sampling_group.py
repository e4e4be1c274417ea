"""Requests that share their sampling settings, ready to be decoded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lm_eval_ext.engine.request import AttemptRequest, AttemptResult
from lm_eval_ext.engine.sampling_settings import SamplingSettings, resolve_settings
from lm_eval_ext.errors import UserError
from lm_eval_ext.harness.requests import GenerationRequest
from lm_eval_ext.models.generation import Generation, GenerationRecord

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class SamplingGroup:
    """Requests of lm-eval under one set of sampling settings.

    `attempts` are what the model reads for each, and `n_truncated` how many tokens were cut from
    the left of each prompt.
    """

    requests: Sequence[GenerationRequest]
    attempts: Sequence[AttemptRequest]
    settings: SamplingSettings
    n_truncated: Mapping[str, int]

    def subset(self, indices: Sequence[int]) -> SamplingGroup:
        """Return some of the requests."""
        return SamplingGroup(
            [self.requests[i] for i in indices],
            [self.attempts[i] for i in indices],
            self.settings,
            self.n_truncated,
        )

    def record(self, index: int, result: AttemptResult) -> GenerationRecord:
        """Return what is known of an attempt once its tokens are there."""
        request = self.requests[index]
        return GenerationRecord(
            attempt=request.attempt,
            token_ids=result.token_ids,
            finish_reason=result.finish_reason,
            n_prompt_tokens=len(self.attempts[index].prompt_ids),
            n_truncated_prompt_tokens=self.n_truncated[request.prompt],
            statistics=result.statistics,
        )


@dataclass(frozen=True)
class Sampled:
    """The attempt at one request of a group, once it has ended; `was_kept` if a store had it.

    The tally is what it adds to the counts of the run, by the part of the run and the name.
    """

    index: int
    generation: Generation
    tally: dict[str, dict[str, int]]
    was_kept: bool = False


def resolved_settings(model_defaults: Any, request: GenerationRequest) -> SamplingSettings:
    """Return the sampling settings of a request, the model's own defaults in what it leaves open.

    Raises
    ------
    UserError
        For a setting that is not known, or a value that cannot be.
    """
    try:
        settings = resolve_settings(
            request.settings,
            max_new_tokens=request.max_new_tokens,
            stop=request.stop,
            model_defaults=model_defaults,
        )
        return replace(settings, thinking_budget=request.thinking_budget)
    except ValueError as error:
        raise UserError(str(error)) from error


def fitted_prompts(
    prompts: Sequence[str], tokenize: Callable[[str], list[int]], *, room: int
) -> tuple[dict[str, list[int]], dict[str, int]]:
    """Return each distinct prompt's tokens, cut from the left to `room`, and how many were cut.

    Raises
    ------
    UserError
        If a prompt has no tokens.
    """
    tokens, truncated = {}, {}
    for prompt in dict.fromkeys(prompts):
        token_ids = tokenize(prompt)
        if not token_ids:
            raise UserError(
                f"prompt {prompt!r} has no tokens and the tokenizer adds no BOS: check the "
                "task's doc_to_text, or pass add_bos_token=true"
            )
        tokens[prompt] = token_ids[-room:]
        truncated[prompt] = len(token_ids) - len(tokens[prompt])
    cut = sum(count > 0 for count in truncated.values())
    if cut:
        logger.warning(
            "%d of %d prompts are longer than %d tokens and were cut from the left",
            cut,
            len(tokens),
            room,
        )
    return tokens, truncated

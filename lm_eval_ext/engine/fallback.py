"""Sample attempts through transformers' ``generate``, for architectures the engine does not fit.

The same random streams choose the tokens: a logits processor samples from the processed
distribution and leaves `generate` only the chosen token. Where the model's cache can be expanded,
a prompt is still read once for all its attempts; state-space models and other special caches read
it once per attempt.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel, StoppingCriteria
from transformers.cache_utils import Cache, DynamicCache

from lm_eval_ext.engine.attempt_decoder import AttemptDecoder, Row
from lm_eval_ext.engine.follow_up import FinishedAttempt, Readout, read_uncached
from lm_eval_ext.engine.inputs import embedded, padded
from lm_eval_ext.engine.packed_weights import packed_weights
from lm_eval_ext.engine.request import AttemptRequest, AttemptResult

logger = logging.getLogger(__name__)


def expanded_cache(
    model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, rows: torch.Tensor
) -> Cache:
    """Read left-padded prompts, shape (n_prompts, length), and repeat their caches.

    `rows` has the prompt of each row of the result, shape (n_rows,).
    """
    cache = DynamicCache(config=model.config)
    model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(dim=-1) - 1).clamp_min(0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    cache.batch_select_indices(rows)  # on the CPU: layers may lie on several devices
    return cache


@torch.inference_mode()
def cache_misfit(model: PreTrainedModel) -> str | None:
    """Return why a model's cache cannot be repeated for several attempts, or None if it can."""
    ids = torch.ones((1, 2), dtype=torch.int64, device=model.device)
    try:
        expanded_cache(model, ids, torch.ones_like(ids), torch.tensor([0, 0]))
    except Exception as error:  # whatever fails here would fail in the run
        return str(error).partition("\n")[0] or type(error).__name__
    return None


def fallback_for(model: PreTrainedModel, misfit: str) -> Callable[..., FallbackDecoder]:
    """Return what makes fallback decoders for a model, and warn why (`misfit`) it needs them."""
    without_cache = cache_misfit(model)
    logger.warning(
        "%s %s; attempts are sampled through transformers' generate, which is slower, and %s",
        type(model).__name__,
        misfit,
        "share one prefill per prompt"
        if without_cache is None
        else f"each reads its own prompt (its cache cannot be repeated: {without_cache})",
    )
    return partial(FallbackDecoder, expand_cache=without_cache is None)


class _Chosen(LogitsProcessor):
    """Lets the decoder choose the tokens, and leaves `generate` no other choice."""

    def __init__(self, decoder: AttemptDecoder, rows: Sequence[Row]) -> None:
        self._decoder, self._rows = decoder, rows

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self._decoder.extend(self._rows, scores)
        newest = torch.tensor([[row.token_ids[-1]] for row in self._rows], device=scores.device)
        return torch.full_like(scores, -torch.inf).scatter_(1, newest, 0.0)


class _Finished(StoppingCriteria):
    """Ends the rows that the decoder has found finished."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs) -> torch.Tensor:  # type: ignore[no-untyped-def]
        done = [row.finish_reason is not None for row in self._rows]
        return torch.tensor(done, device=input_ids.device)


@dataclass(eq=False, repr=False, kw_only=True)
class FallbackDecoder(AttemptDecoder):
    """An `AttemptDecoder` that runs ``model.generate``, for any causal model.

    With `expand_cache` each prompt is read once and its cache repeated (see `cache_misfit`). All of
    a follow-up is read again, and prompts that `generate` reads count as decoding.
    """

    expand_cache: bool

    @torch.inference_mode()
    def run(self, requests: Sequence[AttemptRequest]) -> Iterator[tuple[int, AttemptResult]]:
        """Yield (index of the request, result), batch by batch, longest prompts first."""
        order = sorted(
            range(len(requests)),
            key=lambda i: (-len(requests[i].prompt_ids), requests[i].prompt_ids),
        )
        n_rows, passes = min(self.max_rows, len(requests)), self.sampler.settings.max_new_tokens
        with packed_weights(self.model, rows=n_rows, passes=passes):
            for start in range(0, len(order), self.max_rows):
                batch = order[start : start + self.max_rows]
                rows = [self.row(i, requests[i], requests[i]) for i in batch]
                self._generate(rows)
                readouts = self._readouts(rows)
                for row, readout in zip(rows, readouts, strict=True):
                    yield row.index, row.result(readout)

    def _readouts(self, rows: list[Row]) -> list[Readout | None]:
        if self.follow_up is None:
            return [None] * len(rows)
        finished = [FinishedAttempt(row.request, row.token_ids) for row in rows]
        with self.timing.part("annotation", sum(len(row.token_ids) for row in rows)):
            return read_uncached(self.model, self.follow_up, finished)

    def _generate(self, rows: list[Row]) -> None:
        inputs = self._inputs([row.request for row in rows])
        with self.timing.part("decode"):
            self.model.generate(
                **inputs,
                do_sample=False,
                num_beams=1,
                # Everything the settings ask for happens in the processor.
                repetition_penalty=1.0,
                logits_processor=LogitsProcessorList([_Chosen(self, rows)]),
                stopping_criteria=[_Finished(rows)],
                max_new_tokens=self.sampler.settings.max_new_tokens,
                eos_token_id=None,
                pad_token_id=0,
                use_cache=True,
            )

    def _inputs(self, requests: list[AttemptRequest]) -> dict[str, Any]:
        """Return left-padded inputs with their mask, and the prompts' cache where it expands."""
        # Token 0 stands where vectors go.
        prompts = [r.shared_ids + (0,) * r.n_vectors + r.private_ids for r in requests]
        ids, mask = padded(prompts, side="left", device=self.model.device)
        if any(request.vectors is not None for request in requests):
            starts = [ids.shape[1] - request.private_length for request in requests]
            inputs_embeds = embedded(self.model, ids, requests, starts)
            return {"inputs_embeds": inputs_embeds, "attention_mask": mask}
        inputs = {"input_ids": ids, "attention_mask": mask}
        if self.expand_cache and all(len(request.private_ids) == 1 for request in requests):
            cache = self._expanded_cache([request.shared_ids for request in requests])
            if cache is not None:
                inputs["past_key_values"] = cache
        return inputs

    def _expanded_cache(self, shared: list[tuple[int, ...]]) -> Cache | None:
        """Read each distinct prompt once and repeat its cache for its attempts."""
        distinct = list(dict.fromkeys(shared))
        if len(distinct) == len(shared) or not all(distinct):
            return None  # nothing to share, or an empty prompt, which has no cache
        ids, mask = padded(distinct, side="left", device=self.model.device)
        row_of = {prompt: i for i, prompt in enumerate(distinct)}
        rows = torch.tensor([row_of[prompt] for prompt in shared])
        with self.timing.part("prefill", sum(map(len, distinct))):
            return expanded_cache(self.model, ids, mask, rows)

"""Sample attempts through transformers' ``generate``, for architectures the engine does not fit.

The same random streams choose the tokens: a logits processor samples from the processed
distribution and leaves `generate` only the chosen token. Where the model's cache can be expanded,
a prompt is still read once for all its attempts; state-space models and other special caches read
it once per attempt.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel, StoppingCriteria
from transformers.cache_utils import Cache, DynamicCache

from lm_eval_ext.engine.epilogue import Epilogue, FinishedAttempt, read_plainly
from lm_eval_ext.engine.packed_weights import packed_weights
from lm_eval_ext.engine.request import AttemptRequest, AttemptResult, statistics_from_columns
from lm_eval_ext.engine.sampling import Sampler, padded_contexts
from lm_eval_ext.engine.stop_strings import StopStrings
from lm_eval_ext.engine.thinking_budget import ThinkingBudget
from lm_eval_ext.engine.timing import Timing
from lm_eval_ext.models.generation import FinishReason

logger = logging.getLogger(__name__)


def expanded_cache(
    model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, rows: torch.Tensor
) -> Cache:
    """Read prompts once and repeat their caches.

    Parameters
    ----------
    ids, mask
        Left-padded prompts and their mask, shape (n_prompts, length).
    rows
        Prompt of each row of the result, shape (n_rows,).
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
    """Return what makes fallback decoders for a model, saying what the engine misses.

    Parameters
    ----------
    misfit
        Why the engine does not fit it; see `lm_eval_ext.engine.support.misfit`.
    """
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


class _StreamSampler(LogitsProcessor):
    """Samples each row from its own stream and leaves `generate` no other choice."""

    def __init__(
        self,
        sampler: Sampler,
        requests: Sequence[AttemptRequest],
        budget: ThinkingBudget | None,
        timing: Timing,
    ) -> None:
        self._timing = timing
        self._sampler = sampler
        self._requests = requests
        self._budget = budget
        self._due = [0 if budget is None else budget.n_tokens] * len(requests)
        self._forced: list[list[int]] = [[] for _ in requests]
        self.opened = [request.opened for request in requests]
        self.statistics: list[np.ndarray] = []
        self.token_ids: list[np.ndarray] = []
        self.n_ended = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        with self._timing.part("token choice", len(self._requests) - self.n_ended):
            return self._chosen(scores)

    def _chosen(self, scores: torch.Tensor) -> torch.Tensor:
        for i, request in enumerate(self._requests):
            self._force_end_of_thought(i, request)
        uniforms = [
            0.0 if forced else request.stream.random()
            for request, forced in zip(self._requests, self._forced, strict=True)
        ]
        sampled = self._sampler(
            scores, torch.tensor(uniforms, dtype=torch.float64), self._context_ids()
        )
        for i, forced in enumerate(self._forced):
            if forced:
                sampled.token_ids[i], sampled.statistics[i] = forced.pop(0), torch.nan
        self.token_ids.append(sampled.token_ids.numpy())
        self.statistics.append(sampled.statistics.numpy())
        chosen = torch.full_like(scores, -torch.inf)
        return chosen.scatter_(1, sampled.token_ids.to(scores.device)[:, None], 0.0)

    def _force_end_of_thought(self, row: int, request: AttemptRequest) -> None:
        if self._budget is None or len(self.token_ids) != self._due[row]:
            return
        so_far = [int(step[row]) for step in self.token_ids]
        forced, self._due[row] = self._budget.check(so_far, request.opened)
        self._forced[row] = list(forced)

    def _context_ids(self) -> torch.Tensor | None:
        if not self._sampler.needs_context:
            return None
        generated = zip(*self.token_ids, strict=True) if self.token_ids else None
        new = [tuple(map(int, ids)) for ids in generated] if generated else None
        return padded_contexts(
            [
                request.prompt_ids + (new[i] if new else ())
                for i, request in enumerate(self._requests)
            ]
        )


class _Finished(StoppingCriteria):
    """Ends a row at its end-of-sequence token or at a stop string, and notes why."""

    def __init__(
        self, processor: _StreamSampler, stop: StopStrings, eos_token_ids: Sequence[int]
    ) -> None:
        self._processor = processor
        self._opened = processor.opened
        self._stop = stop
        self._eos = list(eos_token_ids)
        self.ended: dict[int, tuple[int, FinishReason]] = {}  # row -> (length, reason)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs) -> torch.Tensor:  # type: ignore[no-untyped-def]
        steps = self._processor.token_ids
        for i in np.flatnonzero(np.isin(steps[-1], self._eos)).tolist():
            self.ended.setdefault(i, (len(steps), "eos"))
        for i in self._stop.candidates(steps[-1]).tolist():
            if i not in self.ended:
                so_far = [int(step[i]) for step in steps]
                if self._stop.completed(so_far, self._opened[i]):
                    self.ended[i] = (len(steps), "stop")
        self._processor.n_ended = len(self.ended)
        done = [i in self.ended for i in range(len(steps[-1]))]
        return torch.tensor(done, device=input_ids.device)


class FallbackDecoder:
    """Samples attempts with ``model.generate``; results as those of `Decoder`.

    Parameters
    ----------
    max_rows
        Most attempts decoded at once.
    expand_cache
        Read each prompt once and repeat its cache; see `cache_misfit`.
    epilogue
        What to read after each attempt once it has ended, or None; all of it is read again.
    budget
        Ends thoughts that take too long, or None.
    timing
        Measures where the time goes; `generate` reads what it does not share as it decodes.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        sampler: Sampler,
        stop: StopStrings,
        eos_token_ids: Sequence[int],
        max_rows: int,
        expand_cache: bool,
        epilogue: Epilogue | None = None,
        budget: ThinkingBudget | None = None,
        timing: Timing | None = None,
    ) -> None:
        self._timing = timing or Timing()
        self._model = model
        self._sampler = sampler
        self._stop = stop
        self._eos_token_ids = eos_token_ids
        self._max_rows = max_rows
        self._budget = budget
        self._expand_cache = expand_cache
        self._epilogue = epilogue

    @torch.inference_mode()
    def run(self, requests: Sequence[AttemptRequest]) -> Iterator[tuple[int, AttemptResult]]:
        """Yield (place of the request, result), batch by batch, longest prompts first."""
        order = sorted(
            range(len(requests)),
            key=lambda i: (-len(requests[i].prompt_ids), requests[i].prompt_ids),
        )
        rows = min(self._max_rows, len(requests))
        with packed_weights(self._model, rows=rows, passes=self._sampler.settings.max_new_tokens):
            for start in range(0, len(order), self._max_rows):
                batch = order[start : start + self._max_rows]
                results = self._generate([requests[i] for i in batch])
                if self._epilogue is not None:
                    results = self._with_readouts([requests[i] for i in batch], results)
                yield from zip(batch, results, strict=True)

    def _with_readouts(
        self, requests: list[AttemptRequest], results: list[AttemptResult]
    ) -> list[AttemptResult]:
        assert self._epilogue is not None
        finished = [
            FinishedAttempt(request, result.token_ids)
            for request, result in zip(requests, results, strict=True)
        ]
        with self._timing.part("annotation", sum(len(one.token_ids) for one in finished)):
            readouts = read_plainly(self._model, self._epilogue, finished)
        return [replace(r, readout=readout) for r, readout in zip(results, readouts, strict=True)]

    def _generate(self, requests: list[AttemptRequest]) -> list[AttemptResult]:
        processor = _StreamSampler(self._sampler, requests, self._budget, self._timing)
        criteria = _Finished(processor, self._stop, self._eos_token_ids)
        inputs = self._inputs(requests)
        with self._timing.part("decode"):
            self._model.generate(
                **inputs,
                do_sample=False,
                num_beams=1,
                # Everything the settings ask for happens in the processor.
                repetition_penalty=1.0,
                logits_processor=LogitsProcessorList([processor]),
                stopping_criteria=[criteria],
                max_new_tokens=self._sampler.settings.max_new_tokens,
                eos_token_id=None,
                pad_token_id=0,
                use_cache=True,
            )
        tokens = np.stack(processor.token_ids, axis=1)
        statistics = np.stack(processor.statistics, axis=1)
        results = []
        for i in range(len(requests)):
            length, reason = criteria.ended.get(i, (tokens.shape[1], "length"))
            columns = statistics_from_columns(statistics[i, :length])
            results.append(AttemptResult(tuple(tokens[i, :length].tolist()), reason, columns))
        return results

    def _inputs(self, requests: list[AttemptRequest]) -> dict[str, Any]:
        """Return left-padded inputs with their mask, and the prompts' cache where it expands."""
        ids, mask = self._padded([request.prompt_ids for request in requests])
        if any(request.vectors is not None for request in requests):
            return self._inputs_with_vectors(requests)
        inputs = {"input_ids": ids, "attention_mask": mask}
        if self._expand_cache and all(len(request.private_ids) == 1 for request in requests):
            cache = self._expanded_cache([request.shared_ids for request in requests])
            if cache is not None:
                inputs["past_key_values"] = cache
        return inputs

    def _expanded_cache(self, shared: list[tuple[int, ...]]) -> Cache | None:
        """Read each distinct prompt once and repeat its cache for its attempts."""
        distinct = list(dict.fromkeys(shared))
        if len(distinct) == len(shared) or not all(distinct):
            return None  # nothing to share, or an empty prompt, which has no cache
        ids, mask = self._padded(distinct)
        row_of = {prompt: i for i, prompt in enumerate(distinct)}
        rows = torch.tensor([row_of[prompt] for prompt in shared])
        with self._timing.part("prefill", sum(map(len, distinct))):
            return expanded_cache(self._model, ids, mask, rows)

    def _padded(self, prompts: list[tuple[int, ...]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return token ids padded on the left, and their mask."""
        longest = max(len(prompt) for prompt in prompts)
        ids = torch.zeros((len(prompts), longest), dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for i, prompt in enumerate(prompts):
            first = longest - len(prompt)
            ids[i, first:] = torch.tensor(prompt, dtype=torch.int64)
            mask[i, first:] = 1
        return ids.to(self._model.device), mask.to(self._model.device)

    def _inputs_with_vectors(self, requests: list[AttemptRequest]) -> dict[str, Any]:
        """Return left-padded embeddings, the vectors in their places, with their mask."""
        # Token 0 stands where the vectors go.
        ids, mask = self._padded(
            [r.shared_ids + (0,) * r.n_vectors + r.private_ids for r in requests]
        )
        embeddings = self._model.get_input_embeddings()(ids).clone()
        for i, request in enumerate(requests):
            if request.vectors is not None:
                last = ids.shape[1] - len(request.private_ids)
                embeddings[i, last - request.n_vectors : last] = request.vectors.draw().to(
                    embeddings
                )
        return {"inputs_embeds": embeddings, "attention_mask": mask}

"""Decode many attempts at once, with rows joining and leaving the batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from lm_eval_ext.engine.epilogue import CachedReader, Epilogue, FinishedAttempt, Readout
from lm_eval_ext.engine.packed_weights import packed_weights
from lm_eval_ext.engine.private_cache import PrivateCache
from lm_eval_ext.engine.private_inputs import private_inputs
from lm_eval_ext.engine.prompt_tree import PromptTree
from lm_eval_ext.engine.request import AttemptRequest, AttemptResult, statistics_from_columns
from lm_eval_ext.engine.sampling import Sampler, padded_contexts
from lm_eval_ext.engine.shared_prefix import (
    PREFILL_TOKENS,
    SharedPrefix,
    forward,
    shared_prefix_mode,
    tokens_per_pass,
)
from lm_eval_ext.engine.stop_strings import StopStrings
from lm_eval_ext.engine.thinking_budget import ThinkingBudget
from lm_eval_ext.engine.timing import Timing
from lm_eval_ext.models.generation import FinishReason

# Refilling costs a prefill and a copy of the caches, so it waits for this share of free rows.
_REFILL_SHARE = 0.25
# Finished rows are carried along until they are this share of the batch.
_DROP_SHARE = 0.125
# Private inputs are read this many positions at a time, which bounds the attention scores.
_PRIVATE_CHUNK = 512
# Inputs are padded to the longest and read together if they have this share of its length, or lack
# this many positions.
_SIMILAR, _SLACK = 0.75, 32


@dataclass(eq=False)
class _Row:
    """An attempt in progress; `index` is the place of its request.

    `placed` is the request with only that shared which the tree of prompts holds. `forced` are
    tokens that come next whatever the model says, and `due` is the number of tokens at which the
    budget of its thought is looked at.
    """

    index: int
    request: AttemptRequest
    placed: AttemptRequest
    due: int | None = None
    forced: list[int] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    statistics: list[NDArray[np.float32]] = field(default_factory=list)
    finish_reason: FinishReason | None = None

    def result(self, readout: Readout | None) -> AttemptResult:
        assert self.finish_reason is not None
        statistics = statistics_from_columns(np.stack(self.statistics))
        return AttemptResult(tuple(self.token_ids), self.finish_reason, statistics, readout)


class Decoder:
    """Samples attempts under one set of sampling settings.

    Parameters
    ----------
    model
        A causal model that `lm_eval_ext.engine.support.misfit` finds nothing against.
    max_rows
        Most attempts decoded at once.
    epilogue
        What to read after each attempt once it has ended, or None.
    budget
        Ends thoughts that take too long, or None.
    timing
        Measures where the time goes.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        sampler: Sampler,
        stop: StopStrings,
        eos_token_ids: Sequence[int],
        max_rows: int,
        epilogue: Epilogue | None = None,
        budget: ThinkingBudget | None = None,
        timing: Timing | None = None,
    ) -> None:
        self._timing = timing or Timing()
        self._model = model
        self._sampler = sampler
        self._stop = stop
        self._eos_token_ids = frozenset(eos_token_ids)
        self._max_rows = max_rows
        self._budget = budget
        self._reader = None if epilogue is None else CachedReader(model, epilogue)
        self._rows: list[_Row] = []
        self._tree = PromptTree([])
        self._prefix: SharedPrefix | None = None
        self._cache: PrivateCache | None = None

    @torch.inference_mode()
    def run(self, requests: Sequence[AttemptRequest]) -> Iterator[tuple[int, AttemptResult]]:
        """Yield (place of the request, result) as finished attempts leave the batch."""
        self._tree = tree = PromptTree(requests)
        due = None if self._budget is None else self._budget.n_tokens
        waiting = deque(
            _Row(i, requests[i], tree.placed(requests[i]), due) for i in tree.order(requests)
        )
        rows = min(self._max_rows, len(requests))
        packed = packed_weights(
            self._model, rows=rows, passes=self._sampler.settings.max_new_tokens
        )
        with packed, shared_prefix_mode(self._model):
            while waiting or self._rows:
                if waiting and self._has_room():
                    yield from self._drop_finished()
                    for rows_of_a_length in _similar_lengths(self._next_wave(waiting)):
                        self._join(rows_of_a_length)
                else:
                    self._step()
                if self._n_finished() >= max(1, _DROP_SHARE * len(self._rows)):
                    yield from self._drop_finished()

    def _n_finished(self) -> int:
        return sum(row.finish_reason is not None for row in self._rows)

    def _has_room(self) -> bool:
        free = self._max_rows - len(self._rows) + self._n_finished()
        return free >= max(1, _REFILL_SHARE * self._max_rows)

    def _next_wave(self, waiting: deque[_Row]) -> list[_Row]:
        """Take as many waiting rows as there is room for, in rows and in private positions."""
        longest = waiting[0].placed.private_length
        wave: list[_Row] = []
        while waiting and len(self._rows) + len(wave) < self._max_rows:
            longest = max(longest, waiting[0].placed.private_length)
            if wave and longest * (len(wave) + 1) > PREFILL_TOKENS:
                break
            wave.append(waiting.popleft())
        return wave

    def _join(self, wave: list[_Row]) -> None:
        """Read the prompts of new rows, sample their first tokens and add them to the batch."""
        requests = [row.placed for row in wave]
        self._tree.read(self._model, [row.request for row in wave], timing=self._timing)
        longest = max(request.private_length for request in requests)
        cache = PrivateCache([longest - request.private_length for request in requests])
        prefix = self._shared_prefix(wave)
        inputs = private_inputs(self._model, requests)
        size = max(1, min(_PRIVATE_CHUNK, tokens_per_pass(self._model) // len(wave)))
        for chunk in inputs.split(size, dim=1):
            first = cache.width
            with self._timing.part("prefill"):
                logits = forward(self._model, chunk, prefix=prefix, cache=cache, logits_to_keep=1)
            padding = (cache.starts - first).clamp(0, cache.width - first)
            self._timing.add_tokens("prefill", chunk.shape[:2].numel() - int(padding.sum()))
        with self._timing.part("token choice", len(wave)):
            self._extend(wave, logits[:, -1])
        if self._cache is None:
            self._rows, self._cache, self._prefix = wave, cache, prefix
        else:
            self._rows = self._rows + wave
            self._cache.append_rows(cache)
            self._prefix = self._shared_prefix(self._rows, reuse=self._prefix)

    def _step(self) -> None:
        """Decode one token for every row."""
        assert self._prefix is not None
        assert self._cache is not None
        newest = torch.tensor([[row.token_ids[-1]] for row in self._rows])
        n_running = len(self._rows) - self._n_finished()
        with self._timing.part("decode", n_running):
            logits = forward(
                self._model, newest.to(self._model.device), prefix=self._prefix, cache=self._cache
            )
        with self._timing.part("token choice", n_running):
            self._extend(self._rows, logits[:, -1])

    def _extend(self, rows: list[_Row], logits: torch.Tensor) -> None:
        """Sample a token for every unfinished row, and note which rows finish with it."""
        running = [i for i, row in enumerate(rows) if row.finish_reason is None]
        # A finished row draws nothing, nor does a forced token: a stream has as many draws as
        # tokens were chosen.
        uniforms = np.zeros(len(rows))
        for i in running:
            self._force_end_of_thought(rows[i])
            if not rows[i].forced:
                uniforms[i] = rows[i].request.stream.random()
        context = None
        if self._sampler.needs_context:
            context = padded_contexts([(*row.request.prompt_ids, *row.token_ids) for row in rows])
        sampled = self._sampler(logits, torch.from_numpy(uniforms), context)
        token_ids, statistics = (part.numpy() for part in sampled)
        for i in running:
            if rows[i].forced:
                token_ids[i], statistics[i] = rows[i].forced.pop(0), np.nan
        may_stop = set(self._stop.candidates(token_ids).tolist())
        for i in running:
            rows[i].token_ids.append(int(token_ids[i]))
            rows[i].statistics.append(statistics[i])
            rows[i].finish_reason = self._finish_reason(rows[i], may_stop=i in may_stop)

    def _force_end_of_thought(self, row: _Row) -> None:
        if self._budget is not None and len(row.token_ids) == row.due:
            forced, row.due = self._budget.check(row.token_ids, row.request.opened)
            row.forced = list(forced)

    def _finish_reason(self, row: _Row, *, may_stop: bool) -> FinishReason | None:
        if row.token_ids[-1] in self._eos_token_ids:
            return "eos"
        if may_stop and self._stop.completed(row.token_ids, row.request.opened):
            return "stop"
        if len(row.token_ids) >= self._sampler.settings.max_new_tokens:
            return "length"
        return None

    def _drop_finished(self) -> list[tuple[int, AttemptResult]]:
        """Take finished rows, and prompts that nobody needs any more, out of the batch."""
        finished = [i for i, row in enumerate(self._rows) if row.finish_reason is not None]
        if not finished:
            return []
        results = [
            (self._rows[i].index, self._rows[i].result(readout))
            for i, readout in zip(finished, self._readouts(finished), strict=True)
        ]
        kept = [i for i, row in enumerate(self._rows) if row.finish_reason is None]
        self._tree.release([self._rows[i].request for i in finished])
        self._rows = [self._rows[i] for i in kept]
        if not self._rows:
            self._prefix, self._cache = None, None
            return results
        assert self._cache is not None
        self._cache.keep(torch.tensor(kept))
        self._prefix = self._shared_prefix(self._rows, reuse=self._prefix)
        return results

    def _readouts(self, finished: list[int]) -> list[Readout | None]:
        """Read the epilogue after finished rows, from their caches."""
        if self._reader is None:
            return [None] * len(finished)
        assert self._cache is not None
        rows = [self._rows[i] for i in finished]
        with self._timing.part("annotation", sum(len(row.token_ids) for row in rows)):
            return self._reader.read(
                [FinishedAttempt(row.request, row.token_ids) for row in rows],
                rows=finished,
                cache=self._cache,
                tree=self._tree,
            )

    def _shared_prefix(
        self, rows: list[_Row], *, reuse: SharedPrefix | None = None
    ) -> SharedPrefix:
        """Lay out rows over their prompts; `reuse` is an earlier layout."""
        return self._tree.prefix([row.request for row in rows], reuse=reuse)


def _similar_lengths(wave: Sequence[_Row]) -> Iterator[list[_Row]]:
    """Divide rows, in their order, so that little of what is read is padding."""
    part: list[_Row] = []
    shortest = longest = 0
    for row in wave:
        length = row.placed.private_length
        shortest, longest = (
            (min(shortest, length), max(longest, length)) if part else (length, length)
        )
        if shortest < min(_SIMILAR * longest, longest - _SLACK):
            yield part
            part, shortest, longest = [], length, length
        part.append(row)
    if part:
        yield part

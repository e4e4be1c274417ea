"""Decode many attempts at once, with rows joining and leaving the batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from lm_eval_ext.engine.attempt_decoder import AttemptDecoder, Row
from lm_eval_ext.engine.follow_up import CachedReader, FinishedAttempt, Readout
from lm_eval_ext.engine.inputs import private_inputs
from lm_eval_ext.engine.packed_weights import packed_weights
from lm_eval_ext.engine.private_cache import PrivateCache
from lm_eval_ext.engine.prompt_tree import PromptTree
from lm_eval_ext.engine.request import AttemptRequest, AttemptResult
from lm_eval_ext.engine.shared_prefix import (
    PREFILL_TOKENS,
    SharedPrefix,
    forward,
    shared_prefix_mode,
    tokens_per_pass,
)

# Refilling costs a prefill and a copy of the caches, so it waits for this share of free rows.
_REFILL_SHARE = 0.25
# Finished rows are carried along until they are this share of the batch.
_DROP_SHARE = 0.125
# Private inputs are read this many positions at a time, which bounds the attention scores.
_PRIVATE_CHUNK = 512
# Inputs are padded to the longest and read together if they have this share of its length, or lack
# this many positions.
_SIMILAR, _SLACK = 0.75, 32


@dataclass(eq=False, repr=False)
class Decoder(AttemptDecoder):
    """An `AttemptDecoder` for models that fit (`lm_eval_ext.engine.support.misfit`)."""

    def __post_init__(self) -> None:
        self._reader = None if self.follow_up is None else CachedReader(self.model, self.follow_up)
        self._rows: list[Row] = []
        self._tree = PromptTree([])
        self._prefix: SharedPrefix | None = None
        self._cache: PrivateCache | None = None

    @torch.inference_mode()
    def run(self, requests: Sequence[AttemptRequest]) -> Iterator[tuple[int, AttemptResult]]:
        """Yield (index of the request, result) as finished attempts leave the batch."""
        self._tree = tree = PromptTree(requests)
        waiting = deque(
            self.row(i, requests[i], tree.placed(requests[i])) for i in tree.order(requests)
        )
        rows = min(self.max_rows, len(requests))
        passes = self.sampler.settings.max_new_tokens
        packed = packed_weights(self.model, rows=rows, passes=passes)
        with packed, shared_prefix_mode(self.model):
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
        free = self.max_rows - len(self._rows) + self._n_finished()
        return free >= max(1, _REFILL_SHARE * self.max_rows)

    def _next_wave(self, waiting: deque[Row]) -> list[Row]:
        """Take as many waiting rows as there is room for, in rows and in private positions."""
        longest = waiting[0].placed.private_length
        wave: list[Row] = []
        while waiting and len(self._rows) + len(wave) < self.max_rows:
            longest = max(longest, waiting[0].placed.private_length)
            if wave and longest * (len(wave) + 1) > PREFILL_TOKENS:
                break
            wave.append(waiting.popleft())
        return wave

    def _join(self, wave: list[Row]) -> None:
        """Read the prompts of new rows, sample their first tokens and add them to the batch."""
        requests = [row.placed for row in wave]
        self._tree.read(self.model, [row.request for row in wave], timing=self.timing)
        longest = max(request.private_length for request in requests)
        cache = PrivateCache([longest - request.private_length for request in requests])
        prefix = self._shared_prefix(wave)
        inputs = private_inputs(self.model, requests)
        size = max(1, min(_PRIVATE_CHUNK, tokens_per_pass(self.model) // len(wave)))
        for chunk in inputs.split(size, dim=1):
            first = cache.width
            with self.timing.part("prefill"):
                logits = forward(self.model, chunk, prefix=prefix, cache=cache, logits_to_keep=1)
            padding = (cache.starts - first).clamp(0, cache.width - first)
            self.timing.add_tokens("prefill", chunk.shape[:2].numel() - int(padding.sum()))
        self.extend(wave, logits[:, -1])
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
        with self.timing.part("decode", len(self._rows) - self._n_finished()):
            logits = forward(
                self.model, newest.to(self.model.device), prefix=self._prefix, cache=self._cache
            )
        self.extend(self._rows, logits[:, -1])

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
        """Read the follow-up after finished rows, from their caches."""
        if self._reader is None:
            return [None] * len(finished)
        assert self._cache is not None
        rows = [self._rows[i] for i in finished]
        with self.timing.part("annotation", sum(len(row.token_ids) for row in rows)):
            return self._reader.read(
                [FinishedAttempt(row.request, row.token_ids) for row in rows],
                rows=finished,
                cache=self._cache,
                tree=self._tree,
            )

    def _shared_prefix(self, rows: list[Row], *, reuse: SharedPrefix | None = None) -> SharedPrefix:
        """Lay out rows over their prompts; `reuse` is an earlier layout."""
        return self._tree.prefix([row.request for row in rows], reuse=reuse)


def _similar_lengths(wave: Sequence[Row]) -> Iterator[list[Row]]:
    """Divide rows, in their order, so that little of what is read is padding."""
    part: list[Row] = []
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

"""Ask about a finished attempt while its cache still exists: read a few more tokens, take logits.

A question such as whether the answer is correct continues from the attempt's keys and values: only
its tokens are read, for all recently finished attempts in one pass. If the text differs from the
generated tokens (a stop string is cut off, a text is tokenized otherwise), reading resumes at the
first difference.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from transformers import PreTrainedModel

from lm_eval_ext.engine.inputs import embedded, padded, private_inputs
from lm_eval_ext.engine.private_cache import PrivateCache
from lm_eval_ext.engine.prompt_tree import PromptTree
from lm_eval_ext.engine.request import AttemptRequest, n_common
from lm_eval_ext.engine.shared_prefix import SharedPrefix, forward
from lm_eval_ext.engine.teacher_forcing import teacher_forced_logits

# Tokens per pass: more only fill the CPU's cache, and a GPU wants more to be busy.
_TOKENS_ON_CPU = 2048
_TOKENS_ON_GPU = 8192
# All rows of a pass read the same number of tokens, at most this many more than a row needs.
_SLACK = 8
# Inputs are read this many positions at a time, which bounds the attention scores.
_CHUNK = 512

Readout = tuple[float, ...]
"""Logits of the tokens a follow-up asks for, in float32."""


class FinishedAttempt(NamedTuple):
    """An attempt that has just ended."""

    request: AttemptRequest
    token_ids: Sequence[int]


class FollowUp(Protocol):
    """A question after an attempt, and the tokens whose logits answer it."""

    @property
    def readout_ids(self) -> tuple[int, ...]:
        """Tokens whose logits are wanted."""

    def requests(self, finished: Sequence[FinishedAttempt]) -> list[AttemptRequest | None]:
        """Return for each attempt all the model is to read, or None where nothing is wanted."""


class _Continued(NamedTuple):
    """A request that continues from a row of the cache, which lacks `n_new` of its tokens."""

    number: int
    row: int
    request: AttemptRequest
    n_new: int


class CachedReader:
    """Reads the follow-up from the caches of attempts, inside `shared_prefix_mode`.

    Attempts at one prompt with the same response, frequent where a model is sure of its answer, are
    read once.
    """

    def __init__(self, model: PreTrainedModel, follow_up: FollowUp) -> None:
        self._model = model
        self._follow_up = follow_up
        self._known: dict[Hashable, Readout] = {}

    def read(
        self,
        finished: Sequence[FinishedAttempt],
        *,
        rows: Sequence[int],
        cache: PrivateCache,
        tree: PromptTree,
    ) -> list[Readout | None]:
        """Return the wanted logits after each finished attempt, or None where none are wanted.

        The attempts are at some rows of the cache, which must hold all but the last generated
        token; later columns may hold anything.
        """
        wanted = self._follow_up.requests(finished)
        keys = [None if request is None else _key(request) for request in wanted]
        new: dict[Hashable, int] = {}
        for i, key in enumerate(keys):
            if key is not None and key not in self._known:
                new.setdefault(key, i)
        continued, again = [], []
        for i in new.values():
            attempt, request = finished[i], wanted[i]
            assert request is not None
            if _same_beginning(attempt.request, request):
                # Its shared part may lie in the attempt's own cache.
                placed = tree.placed(request)
                n_cached = _n_cached(attempt, request)
                n_cached += placed.private_length - request.private_length
                n_new = placed.private_length - n_cached
                continued.append(_Continued(i, rows[i], placed, n_new))
            else:
                again.append((i, request))
        for batch in _batches(continued, _tokens_per_pass(self._model)):
            prefix = tree.prefix([finished[item.number].request for item in batch])
            logits = _continue(self._model, batch, cache, prefix)
            for item, values in zip(
                batch, _chosen(logits, self._follow_up.readout_ids), strict=True
            ):
                self._known[keys[item.number]] = values
        for i, values in self._read_again(again):
            self._known[keys[i]] = values
        return [None if key is None else self._known[key] for key in keys]

    def _read_again(
        self, again: Sequence[tuple[int, AttemptRequest]]
    ) -> Iterator[tuple[int, Readout]]:
        """Yield (index, readout) of requests that begin otherwise than their attempts."""
        if not again:
            return
        requests = [request for _, request in again]
        # Any token will do: only the logits before it are used.
        before = [self._follow_up.readout_ids[:1]] * len(requests)
        max_rows = max(1, _tokens_per_pass(self._model) // max(map(_n_positions, requests)))
        forced = teacher_forced_logits(self._model, requests, before, max_rows=max_rows)
        for (i, _), logits in zip(again, forced, strict=True):
            yield i, _chosen(logits, self._follow_up.readout_ids)[0]


def read_again(
    model: PreTrainedModel, follow_up: FollowUp, finished: Sequence[FinishedAttempt]
) -> list[Readout | None]:
    """Return what `CachedReader.read` returns, for attempts of which no cache is left."""
    wanted = follow_up.requests(finished)
    distinct = {_key(request): request for request in wanted if request is not None}
    # What common beginnings hold is read once where they stand together.
    in_order = sorted(distinct.items(), key=lambda item: item[1].prompt_ids)
    reader = CachedReader(model, follow_up)
    read = dict(reader._read_again([(i, request) for i, (_, request) in enumerate(in_order)]))
    found = {key: read[i] for i, (key, _) in enumerate(in_order)}
    return [None if request is None else found[_key(request)] for request in wanted]


def read_uncached(
    model: PreTrainedModel, follow_up: FollowUp, finished: Sequence[FinishedAttempt]
) -> list[Readout | None]:
    """Return what `CachedReader.read` returns, reading everything again, for any causal model."""
    readouts: list[Readout | None] = [None] * len(finished)
    wanted = [(i, r) for i, r in enumerate(follow_up.requests(finished)) if r is not None]
    wanted.sort(key=lambda item: _n_positions(item[1]))
    max_tokens = _tokens_per_pass(model)
    while wanted:
        count = sum((i + 1) * _n_positions(r) <= max_tokens for i, (_, r) in enumerate(wanted)) or 1
        batch, wanted = wanted[:count], wanted[count:]
        logits = _plain_last_logits(model, [request for _, request in batch])
        for (i, _), values in zip(batch, _chosen(logits, follow_up.readout_ids), strict=True):
            readouts[i] = values
    return readouts


def _key(request: AttemptRequest) -> Hashable:
    """Return a short key of what a request reads."""
    if request.vectors is not None:
        return object()  # drawn for this attempt alone
    ids = np.array([len(request.shared_ids), *request.shared_ids, *request.private_ids])
    return hashlib.blake2b(ids.tobytes(), digest_size=16).digest()


def _same_beginning(request: AttemptRequest, wanted: AttemptRequest) -> bool:
    return wanted.shared_ids == request.shared_ids and wanted.vectors is request.vectors


def _n_cached(attempt: FinishedAttempt, wanted: AttemptRequest) -> int:
    """Return how many of the wanted private positions the attempt's cache holds."""
    # The last token generated was never read.
    read = [*attempt.request.private_ids, *attempt.token_ids][:-1]
    same = n_common(read, wanted.private_ids)
    # At least one token is read, since logits come out after a token.
    return wanted.n_vectors + min(same, len(wanted.private_ids) - 1)


def _batches(items: list[_Continued], max_tokens: int) -> Iterator[list[_Continued]]:
    """Group requests by how much there is to read."""
    batch: list[_Continued] = []
    for item in sorted(items, key=lambda item: item.n_new):
        too_many = (len(batch) + 1) * item.n_new > max_tokens
        if batch and (too_many or item.n_new > batch[0].n_new + _SLACK):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def _continue(
    model: PreTrainedModel, batch: list[_Continued], cache: PrivateCache, prefix: SharedPrefix
) -> torch.Tensor:
    """Return the logits after what a batch reads, shape (n_rows, vocabulary)."""
    # Rows that lack fewer tokens read some that the cache holds once more.
    n_new = max(item.n_new for item in batch)
    kept = torch.tensor([item.request.private_length - n_new for item in batch])
    beginning = cache.beginnings(torch.tensor([item.row for item in batch]), kept)
    requests = [item.request for item in batch]
    if all(item.request.n_vectors <= count for item, count in zip(batch, kept, strict=True)):
        ids = [((0,) * n_new + request.private_ids)[-n_new:] for request in requests]
        inputs = torch.tensor(ids, device=model.device)
    else:
        inputs = private_inputs(model, requests)[:, -n_new:]
    for chunk in inputs.split(_CHUNK, dim=1):
        logits = forward(model, chunk, prefix=prefix, cache=beginning, logits_to_keep=1)
    return logits[:, -1]


def _plain_last_logits(model: PreTrainedModel, requests: list[AttemptRequest]) -> torch.Tensor:
    """Return the logits after requests, read in full with the model's own attention."""
    rows = [r.shared_ids + (0,) * r.n_vectors + r.private_ids for r in requests]
    # On the right, where causal layers of any kind keep padding from touching anything.
    ids, mask = padded(rows, device=model.device)
    inputs = {"input_ids": ids}
    if any(request.vectors is not None for request in requests):
        starts = [len(request.shared_ids) for request in requests]
        inputs = {"inputs_embeds": embedded(model, ids, requests, starts)}
    last = mask.sum(dim=1) - 1
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        kept, which = last.unique(return_inverse=True)
        output = model(**inputs, attention_mask=mask, use_cache=False, logits_to_keep=kept)
        return output.logits[torch.arange(len(requests)), which.to(output.logits.device)]
    logits = model(**inputs, attention_mask=mask, use_cache=False).logits
    return logits[torch.arange(len(requests)), last.to(logits.device)]


def _chosen(logits: torch.Tensor, token_ids: tuple[int, ...]) -> list[Readout]:
    """Return the logits of the given tokens in each row, in float32."""
    return [tuple(row) for row in logits[:, list(token_ids)].float().tolist()]


def _tokens_per_pass(model: PreTrainedModel) -> int:
    return _TOKENS_ON_CPU if model.device.type == "cpu" else _TOKENS_ON_GPU


def _n_positions(request: AttemptRequest) -> int:
    return len(request.shared_ids) + request.private_length

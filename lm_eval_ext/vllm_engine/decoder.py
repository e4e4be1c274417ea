"""Decode attempts with vLLM: requests go in as others come out, and annotations are fetched."""

from __future__ import annotations

import hashlib
import itertools
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from vllm import SamplingParams
from vllm.inputs import embeds_input, tokens_input

from lm_eval_ext.engine.follow_up import FinishedAttempt, FollowUp, Readout
from lm_eval_ext.engine.request import AttemptRequest, AttemptResult, statistics_from_columns
from lm_eval_ext.engine.sampling_settings import SamplingSettings
from lm_eval_ext.engine.stop_strings import StopStrings
from lm_eval_ext.engine.thinking_budget import ThinkingBudget
from lm_eval_ext.engine.timing import Timing
from lm_eval_ext.models.generation import FinishReason
from lm_eval_ext.vllm_engine.engine_loop import EngineLoop, Finished, Job
from lm_eval_ext.vllm_engine.instructions import (
    NAME,
    readout_instruction,
    sampling_instruction,
)
from lm_eval_ext.vllm_engine.replicas import Replicas

_numbers = itertools.count()
_NO_COLUMNS = np.empty((0, 4), dtype=np.float32)


class Ending(NamedTuple):
    """When attempts end: at stop strings, at tokens; `budget` ends thoughts that take too long."""

    stop: StopStrings
    eos_token_ids: Sequence[int]
    budget: ThinkingBudget | None = None


class _Attempt(NamedTuple):
    """A request in vLLM that samples an attempt, or the rest of one.

    `number` is that of its request; `token_ids` and `columns` are what there is of it already, and
    `due` is the number of tokens at which the budget of its thought is looked at.
    """

    number: int
    request: AttemptRequest
    due: int
    token_ids: tuple[int, ...] = ()
    columns: NDArray[np.float32] = _NO_COLUMNS

    @property
    def rest(self) -> AttemptRequest:
        """What the model reads before the rest."""
        if not self.token_ids:
            return self.request
        private_ids = (*self.request.private_ids, *self.token_ids)
        return replace(self.request, private_ids=private_ids)

    def extended(self, token_ids: Sequence[int], columns: NDArray[np.float32]) -> _Attempt:
        """Return the attempt with more tokens, and their statistics."""
        joined = np.concatenate([self.columns, columns[: len(token_ids)]])
        return self._replace(token_ids=(*self.token_ids, *token_ids), columns=joined)


class _Reading(NamedTuple):
    """A request in vLLM that reads the follow-up after attempts."""

    name: Hashable
    request: AttemptRequest


class VLLMDecoder:
    """Samples attempts under one set of sampling settings.

    Parameters
    ----------
    follow_up
        What to read after each attempt once it has ended, or None.
    timing
        Measures how long vLLM takes, with the tokens of attempts as they come out of it.
    """

    def __init__(
        self,
        engine: EngineLoop | Replicas,
        *,
        settings: SamplingSettings,
        ending: Ending,
        follow_up: FollowUp | None = None,
        timing: Timing | None = None,
    ) -> None:
        self._timing = timing or Timing()
        self._engine = engine
        self._settings = settings
        self._ending = ending
        self._follow_up = follow_up
        self._dtype = getattr(torch, engine.facts()["dtype"])
        self._waiting: deque[_Attempt | _Reading] = deque()
        self._in_flight: dict[str, _Attempt | _Reading] = {}
        self._readouts: dict[Hashable, Readout] = {}
        self._unread: dict[Hashable, list[tuple[int, AttemptResult]]] = {}

    def run(self, requests: Sequence[AttemptRequest]) -> Iterator[tuple[int, AttemptResult]]:
        """Yield (index of the request, result) as attempts finish."""
        # Attempts of a prompt go together, so that its keys are in vLLM's cache.
        order = sorted(
            range(len(requests)),
            key=lambda i: (-len(requests[i].shared_ids), requests[i].shared_ids),
        )
        budget = self._ending.budget
        due = self._settings.max_new_tokens if budget is None else budget.n_tokens
        self._waiting.extend(_Attempt(i, requests[i], due) for i in order)
        try:
            while self._waiting or self._in_flight:
                new = []
                while self._waiting and len(self._in_flight) < self._engine.max_in_flight:
                    new.append(self._job(self._waiting.popleft()))
                with self._timing.part("vllm"):
                    finished = self._engine.advance(new)
                yield from self._ended(finished)
        finally:
            # Also where the caller stops asking, or is interrupted.
            self._engine.drop()

    def _job(self, what: _Attempt | _Reading) -> Job:
        key = f"lm-eval-ext-{next(_numbers)}"
        self._in_flight[key] = what
        if isinstance(what, _Attempt):
            request = what.rest
            instruction = sampling_instruction(
                key, self._settings, request.stream, request.prompt_ids
            )
            n_tokens = min(what.due, self._settings.max_new_tokens) - len(what.token_ids)
            params = self._sampling_params(instruction, max_tokens=n_tokens)
        else:
            request = what.request
            assert self._follow_up is not None
            instruction = readout_instruction(key, self._follow_up.readout_ids)
            params = SamplingParams(
                temperature=0, max_tokens=1, detokenize=False, extra_args={NAME: instruction}
            )
        return Job(key, self._engine_input(request), params)

    def _sampling_params(self, instruction: dict[str, Any], *, max_tokens: int) -> SamplingParams:
        stop = list(self._settings.stop) if self._vllm_finds_stops else None
        return SamplingParams(
            # Our logits processor leaves one token to choose from.
            temperature=0,
            max_tokens=max_tokens,
            stop=[string for string in stop if string] if stop else None,
            stop_token_ids=list(self._ending.eos_token_ids),
            detokenize=self._vllm_finds_stops,
            # As `StopStrings` reads texts: a stop string may be a special token.
            skip_special_tokens=False,
            spaces_between_special_tokens=False,
            extra_args={NAME: instruction},
        )

    @property
    def _vllm_finds_stops(self) -> bool:
        """Whether attempts end at plain strings; what ends otherwise is cut afterwards."""
        return type(self._ending.stop) is StopStrings

    def _engine_input(self, request: AttemptRequest) -> Any:
        if request.vectors is None:
            return tokens_input([*request.shared_ids, *request.private_ids])
        # vLLM reads a vector where the mask says so and looks up the token elsewhere, where
        # the rows are zeros: equal beginnings stay equal, and are cached.
        first, n = len(request.shared_ids), request.n_vectors
        token_ids = [*request.shared_ids, *((0,) * n), *request.private_ids]
        vectors = request.vectors.draw()
        rows = torch.zeros(len(token_ids), vectors.shape[1], dtype=self._dtype)
        rows[first : first + n] = vectors.to(rows)
        is_token = [not first <= i < first + n for i in range(len(token_ids))]
        return embeds_input(rows, prompt_token_ids=token_ids, is_token_ids=is_token)

    def _ended(self, finished: Sequence[Finished]) -> Iterator[tuple[int, AttemptResult]]:
        """Yield the attempts among finished requests that wait for nothing more."""
        results: list[tuple[_Attempt, AttemptResult]] = []
        for output in finished:
            what = self._in_flight.pop(output.key)
            values = np.frombuffer(output.values, np.float32)
            if isinstance(what, _Attempt):
                attempt, reason = self._longer(what, output, values.reshape(-1, 4))
                self._timing.add_tokens("vllm", len(attempt.token_ids) - len(what.token_ids))
                if reason is None:
                    # In front, while its keys are still in vLLM's cache.
                    self._waiting.appendleft(attempt)
                else:
                    statistics = statistics_from_columns(attempt.columns)
                    result = AttemptResult(attempt.token_ids, reason, statistics)
                    results.append((attempt, result))
            else:
                yield from self._answered(what.name, tuple(values.tolist()))
        if self._follow_up is None:
            yield from ((job.number, result) for job, result in results)
        else:
            yield from self._ask(self._follow_up, results)

    def _longer(
        self, attempt: _Attempt, output: Finished, columns: NDArray[np.float32]
    ) -> tuple[_Attempt, FinishReason | None]:
        """Return an attempt with what was generated, and why it has ended, if it has."""
        reason: FinishReason = "length"
        if output.finish_reason == "stop":
            reason = "stop" if isinstance(output.stop_reason, str) else "eos"
        elif output.finish_reason != "length":
            raise RuntimeError(f"vLLM ended an attempt with {output.finish_reason!r}")
        opened, stop = attempt.request.opened, self._ending.stop
        before, longer = len(attempt.token_ids), attempt.extended(output.token_ids, columns)
        # vLLM knows nothing of stop strings that began before the rest, nor of thoughts.
        end = len(longer.token_ids)
        unseen = end if not self._vllm_finds_stops else min(end, before + stop.window)
        for n in range(before + 1, unseen + 1) if before or not self._vllm_finds_stops else ():
            ends = longer.token_ids[n - 1] in self._ending.eos_token_ids
            if not ends and stop.completed(longer.token_ids[:n], opened):
                longer = attempt.extended(output.token_ids[: n - before], columns)
                reason = "stop"
                break
        # As many draws as tokens: what continues the attempt continues its stream.
        attempt.request.stream.random(len(longer.token_ids) - before)
        if reason == "stop" and stop.inside_thought(longer.token_ids, opened):
            return self._resumed(longer)
        if reason == "length" and len(longer.token_ids) == attempt.due:
            return self._resumed(longer)
        return longer, reason

    def _resumed(self, attempt: _Attempt) -> tuple[_Attempt, FinishReason | None]:
        """Return an attempt that vLLM has ended too early, with the end of its thought if due."""
        room = self._settings.max_new_tokens - len(attempt.token_ids)
        if self._ending.budget is not None and room and len(attempt.token_ids) == attempt.due:
            forced, due = self._ending.budget.check(attempt.token_ids, attempt.request.opened)
            columns = np.full((len(forced[:room]), 4), np.nan, dtype=np.float32)
            attempt = attempt.extended(forced[:room], columns)._replace(due=due)
            room -= len(forced[:room])
        return attempt, None if room else "length"

    def _ask(
        self, follow_up: FollowUp, results: list[tuple[_Attempt, AttemptResult]]
    ) -> Iterator[tuple[int, AttemptResult]]:
        """Have the follow-up read after attempts, once where it is the same for several."""
        asked = follow_up.requests(
            [FinishedAttempt(job.request, result.token_ids) for job, result in results]
        )
        for (job, result), request in zip(results, asked, strict=True):
            if request is None:
                yield job.number, result
                continue
            name = _name(request)
            if name in self._readouts:
                yield job.number, _with_readout(result, self._readouts[name])
                continue
            if name not in self._unread:
                # In front, while the attempt's keys are still in vLLM's cache.
                self._waiting.appendleft(_Reading(name, request))
            self._unread.setdefault(name, []).append((job.number, result))

    def _answered(self, name: Hashable, readout: Readout) -> Iterator[tuple[int, AttemptResult]]:
        self._readouts[name] = readout
        for number, result in self._unread.pop(name):
            yield number, _with_readout(result, readout)


def _name(request: AttemptRequest) -> Hashable:
    """Return what requests that read the same have in common."""
    if request.vectors is not None:
        return object()  # drawn for this attempt, so like no other
    ids = np.array([*request.shared_ids, *request.private_ids], dtype=np.int64)
    return hashlib.blake2b(ids.tobytes(), digest_size=16).digest()


def _with_readout(result: AttemptResult, readout: Readout) -> AttemptResult:
    return AttemptResult(result.token_ids, result.finish_reason, result.statistics, readout)

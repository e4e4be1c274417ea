"""What both decoders share: attempts in progress, the choice of their tokens, and their end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from lm_eval_ext.engine.follow_up import FollowUp, Readout
from lm_eval_ext.engine.request import AttemptRequest, AttemptResult, statistics_from_columns
from lm_eval_ext.engine.sampling import Sampler, padded_contexts
from lm_eval_ext.engine.stop_strings import StopStrings
from lm_eval_ext.engine.thinking_budget import ThinkingBudget
from lm_eval_ext.engine.timing import Timing
from lm_eval_ext.models.generation import FinishReason


@dataclass(eq=False)
class Row:
    """An attempt in progress, at the request of an index.

    In `placed` only that is shared which the decoder shares. The budget of its thought is checked
    at `due` tokens, and `forced` tokens come next whatever the model predicts.
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
        """Return the finished attempt."""
        assert self.finish_reason is not None
        statistics = statistics_from_columns(np.stack(self.statistics))
        return AttemptResult(tuple(self.token_ids), self.finish_reason, statistics, readout)


@dataclass(eq=False, repr=False)
class AttemptDecoder:
    """Samples attempts under one set of sampling settings, at most `max_rows` at once.

    A `follow_up` is read after each attempt once it has ended; a `budget` ends long thoughts.
    """

    model: PreTrainedModel
    _: KW_ONLY
    sampler: Sampler
    stop: StopStrings
    eos_token_ids: Sequence[int]
    max_rows: int
    follow_up: FollowUp | None = None
    budget: ThinkingBudget | None = None
    timing: Timing = field(default_factory=Timing)

    def row(self, index: int, request: AttemptRequest, placed: AttemptRequest) -> Row:
        """Begin an attempt."""
        return Row(index, request, placed, None if self.budget is None else self.budget.n_tokens)

    def extend(self, rows: Sequence[Row], logits: torch.Tensor) -> None:
        """Sample a token for every unfinished row from logits of shape (n_rows, vocabulary)."""
        running = [i for i, row in enumerate(rows) if row.finish_reason is None]
        with self.timing.part("token choice", len(running)):
            self._extend(rows, running, logits)

    def _extend(self, rows: Sequence[Row], running: list[int], logits: torch.Tensor) -> None:
        # A finished row draws nothing, nor does a forced token: a stream has as many draws as
        # tokens were chosen.
        uniforms = np.zeros(len(rows))
        for i in running:
            self._force_end_of_thought(rows[i])
            if not rows[i].forced:
                uniforms[i] = rows[i].request.stream.random()
        context = None
        if self.sampler.needs_context:
            context = padded_contexts([(*row.request.prompt_ids, *row.token_ids) for row in rows])
        sampled = self.sampler(logits, torch.from_numpy(uniforms), context)
        token_ids, statistics = (part.numpy() for part in sampled)
        for i in running:
            if rows[i].forced:
                token_ids[i], statistics[i] = rows[i].forced.pop(0), np.nan
        may_stop = set(self.stop.candidates(token_ids).tolist())
        for i in running:
            rows[i].token_ids.append(int(token_ids[i]))
            rows[i].statistics.append(statistics[i])
            rows[i].finish_reason = self._finish_reason(rows[i], may_stop=i in may_stop)

    def _force_end_of_thought(self, row: Row) -> None:
        if self.budget is not None and len(row.token_ids) == row.due:
            forced, row.due = self.budget.check(row.token_ids, row.request.opened)
            row.forced = list(forced)

    def _finish_reason(self, row: Row, *, may_stop: bool) -> FinishReason | None:
        if row.token_ids[-1] in self.eos_token_ids:
            return "eos"
        if may_stop and self.stop.completed(row.token_ids, row.request.opened):
            return "stop"
        if len(row.token_ids) >= self.sampler.settings.max_new_tokens:
            return "length"
        return None

"""A progress bar over attempts of unknown lengths."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from tqdm import tqdm

from lm_eval_ext.engine.request import AttemptRequest, n_common
from lm_eval_ext.engine.timing import Part
from lm_eval_ext.harness.requests import GenerationRequest
from lm_eval_ext.models.generation import Generation

# Work of a prompt's token, as a share of a generated one: many are read at once.
_READ = 0.25
# Seconds between two updates of the bar: a file or a pipe keeps every one of them.
_IN_A_TERMINAL, _ELSEWHERE = 0.1, 10.0


class SamplingProgress:
    """Shows how much of a run is done, from the tokens of attempts as they are generated.

    Estimate of the rest: an attempt that has not ended continues for as many tokens as were
    generated per ended attempt, up to its limit; until the first has ended, all reach the limit.
    """

    def __init__(self, requests: Sequence[GenerationRequest], *, disable: bool = False) -> None:
        self._n_attempts = len(requests)
        self._limit_left = sum(request.max_new_tokens for request in requests)
        self._n_ended = 0
        self._n_generated = self._n_generated_of_ended = self._n_kept_tokens = 0
        self._n_read = self._n_to_read = 0
        self._bar = tqdm(
            total=1.0,
            disable=disable,
            desc="Sampling attempts",
            mininterval=_seconds_between_updates(),
            miniters=0,  # only the clock decides when to show it
            smoothing=0.1,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}{postfix}]",
        )
        self._show()

    def __enter__(self) -> SamplingProgress:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def expect(self, attempts: Sequence[AttemptRequest]) -> None:
        """Count the prompts to read; the beginnings they share are read once."""
        if self._bar.disable:
            return
        self._n_to_read += sum(attempt.private_length for attempt in attempts)
        before: tuple[int, ...] = ()
        for prompt in sorted({attempt.shared_ids for attempt in attempts}):
            self._n_to_read += len(prompt) - n_common(before, prompt)
            before = prompt
        self._show()

    def count(self, part: Part, n_tokens: int) -> None:
        """Count the tokens of a part of the run; see `lm_eval_ext.engine.timing.Timing`."""
        if part == "prefill":
            self._n_read += n_tokens
        elif part in ("token choice", "vllm"):
            self._n_generated += n_tokens
        self._show()

    def ended(
        self, request: GenerationRequest, generation: Generation, *, was_kept: bool = False
    ) -> None:
        """Count an attempt that has ended, or was kept in a store."""
        if self._bar.disable:
            return
        n_tokens = len(generation.record.token_ids)
        self._n_ended += 1
        self._limit_left -= request.max_new_tokens
        if was_kept:
            self._n_kept_tokens += n_tokens
            # Done, but without a bearing on the speed of the rest.
            self._bar.initial += n_tokens
            self._bar.n += n_tokens
            self._bar.last_print_n += n_tokens
        else:
            self._n_generated_of_ended += n_tokens
        self._show()

    @property
    def done(self) -> float:
        """Work that is done, in generated tokens."""
        return self._n_kept_tokens + self._n_generated + _READ * self._n_read

    @property
    def max_tokens_left(self) -> int:
        """Tokens still to generate if all attempts reach their limit."""
        in_flight = max(0, self._n_generated - self._n_generated_of_ended)
        return max(0, self._limit_left - in_flight)

    @property
    def tokens_left(self) -> float:
        """Estimated tokens still to generate."""
        if not self._n_ended:
            return self.max_tokens_left
        generated = self._n_generated + self._n_kept_tokens
        return min(self.max_tokens_left, self._attempts_left * generated / self._n_ended)

    @property
    def prompt_tokens_left(self) -> float:
        """Estimated tokens of prompts still to read."""
        to_read = max(0, self._n_to_read - self._n_read)
        return to_read * self._attempts_left / max(1, self._n_attempts)

    @property
    def left(self) -> float:
        """Estimated work that is left, in generated tokens."""
        return self.tokens_left + _READ * self.prompt_tokens_left

    @property
    def _attempts_left(self) -> int:
        return self._n_attempts - self._n_ended

    def _show(self) -> None:
        if self._bar.disable:
            return
        self._bar.total = self.done + self.left
        self._bar.set_postfix_str(
            f"{self._n_ended}/{self._n_attempts} attempts, {self._n_generated:,} tokens",
            refresh=False,
        )
        self._bar.update(self.done - self._bar.n)


def _seconds_between_updates() -> float:
    usual = _IN_A_TERMINAL if sys.stderr.isatty() else _ELSEWHERE
    # An argument would overrule tqdm's own variable.
    return float(os.environ.get("TQDM_MININTERVAL", usual))

"""Time the beginning of a real run, and estimate the rest from it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from lm_eval.api.instance import Instance

from lm_eval_ext.commands.plan.report import duration
from lm_eval_ext.commands.plan.task_workload import load_tasks, repeats
from lm_eval_ext.commands.plan.workload import RunNumbers
from lm_eval_ext.engine.request import AttemptRequest
from lm_eval_ext.engine.sampling_progress import SamplingProgress
from lm_eval_ext.engine.timing import Part
from lm_eval_ext.harness.requests import GenerationRequest
from lm_eval_ext.model_wrappers.sampled import SampledLM

# With fewer steps than these, the rate is that of all of them.
_MIN_STEPS = 4


class Measurement(NamedTuple):
    """The beginning of a run, and the estimated rest, in seconds without loading.

    The estimate is an upper bound (`is_bound`) until enough attempts have ended.
    """

    seconds: float
    seconds_left: float
    n_ended: int
    n_attempts: int
    n_tokens: int
    is_bound: bool = False

    def text(self) -> str:
        """Return the lines of the report."""
        estimate = f"about {duration(self.seconds + self.seconds_left)} of sampling"
        if self.is_bound:
            estimate = f"at most {estimate}: every attempt is taken to reach the token limit"
        elif not self.seconds_left:
            estimate = f"{duration(self.seconds)} of sampling: that was the whole run"
        return (
            f"measured  {duration(self.seconds)}: {self.n_ended:,} of {self.n_attempts:,} attempts "
            f"ended, {self.n_tokens:,} tokens, {self.n_tokens / self.seconds:,.0f} tokens/s\n"
            f"time      {estimate}"
        )


class _TimeIsUpError(Exception):
    """Ends the run that is measured."""


class _TimedProgress(SamplingProgress):
    """Ends the run some seconds after its prompts are tokenized, and estimates the rest.

    Reading and generating have a rate each. The rate of generating is that of the second half of
    the steps so far: the first ones have to warm up, and their attempts are still short.
    """

    def __init__(self, requests: Sequence[GenerationRequest], *, seconds: float) -> None:
        self._limit = seconds
        self._started = self._last = time.perf_counter()
        self._reading = self._generating = 0.0
        self._steps = [(0.0, 0)]  # seconds and tokens of generating, after every step
        super().__init__(requests)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._started

    def expect(self, attempts: Sequence[AttemptRequest]) -> None:
        if not self.done:
            self._started = self._last = time.perf_counter()
        super().expect(attempts)

    def count(self, part: Part, n_tokens: int) -> None:
        seconds, self._last = time.perf_counter() - self._last, time.perf_counter()
        if part == "prefill":
            self._reading += seconds
        else:
            self._generating += seconds
        super().count(part, n_tokens)
        if part == "token choice":
            self._steps.append((self._generating, self._n_generated))
            if self.left and self.seconds > self._limit:
                raise _TimeIsUpError

    def measurement(self) -> Measurement:
        first, last = self._steps[len(self._steps) // 2], self._steps[-1]
        if len(self._steps) < _MIN_STEPS:
            first = self._steps[0]
        per_token = (last[0] - first[0]) / max(1, last[1] - first[1])
        per_prompt_token = self._reading / max(1, self._n_read)
        left = per_token * self.tokens_left + per_prompt_token * self.prompt_tokens_left
        is_bound = self.tokens_left == self.max_tokens_left > 0
        counts = self._n_ended, self._n_attempts, self._n_generated
        return Measurement(self.seconds, left, *counts, is_bound)


class _MeasuredLM(SampledLM):
    """Samples as the wrapper does, until the time is up."""

    seconds = 60.0

    def show_progress(
        self, requests: Sequence[GenerationRequest], *, disable: bool
    ) -> SamplingProgress:
        self.progress = _TimedProgress(requests, seconds=self.seconds)
        return self.progress


def measure(
    model: str,
    task: str,
    numbers: RunNumbers,
    *,
    seconds: float = 60.0,
    n_devices: int = 1,
    apply_chat_template: bool = False,
    **model_arguments: Any,
) -> Measurement:
    """Sample a task's attempts with ``--model sampled`` for some seconds.

    Of `n_devices` among which the questions are divided, the share of the first is measured.

    Raises
    ------
    UserError
        For a number that is not above 0, an unknown task, or a model that cannot be loaded.
    """
    tasks = load_tasks(task, numbers.attempts)
    lm = _MeasuredLM(model, **model_arguments)
    lm.seconds = seconds
    requests: list[Instance] = []
    for loaded in tasks.values():
        loaded.build_all_requests(
            limit=numbers.questions,
            apply_chat_template=apply_chat_template,
            chat_template=lm.apply_chat_template if apply_chat_template else None,
            tokenizer_name=lm.tokenizer_name if apply_chat_template else "",
        )
        for instance in loaded.instances[::n_devices]:
            if numbers.max_new_tokens is not None:
                context, settings, *others = instance.arguments
                limited = {**settings, "max_gen_toks": numbers.max_new_tokens}
                instance.arguments = (context, limited, *others)
            requests += [instance] * repeats(loaded, numbers.attempts)
    with suppress(_TimeIsUpError):
        lm.generate_until(requests)
    return lm.progress.measurement()

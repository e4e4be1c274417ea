"""Where the time of a run goes: seconds and tokens of each of its parts."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    import torch

Part = Literal[
    "prefill", "decode", "token choice", "vllm", "annotation", "grading", "everything else"
]
"""Prompts read, the model's steps, choosing the tokens; in vLLM the three are one."""


class Timing:
    """Measures the parts of a run.

    A part within another takes its time out of the other's, so that all add up to the whole.
    Nothing waits for a GPU, which works off its queue long after a call has returned: there, marks
    are put into the queue, and read once it has passed them. `tell` is called with every part that
    ends and its tokens.

    Examples
    --------
    >>> timing = Timing()
    >>> with timing.part("decode", n_tokens=64):
    ...     time.sleep(0.02)
    >>> timing.record()["decode"]["tokens"]
    64
    """

    def __init__(
        self, device: torch.device | None = None, *, tell: Callable[[Part, int], None] | None = None
    ) -> None:
        self._clock: _HostClock | _GPUClock = _HostClock()
        if device is not None and device.type == "cuda":
            self._clock = _GPUClock(device)
        self._tell = tell
        self._seconds: dict[Part, float] = dict.fromkeys(get_args(Part), 0.0)
        self._tokens: Counter[Part] = Counter()
        self._part: Part | None = None  # that time goes to
        self._last: Any = None
        self._pending: deque[tuple[Part, Any, Any]] = deque()

    @contextmanager
    def part(self, name: Part, n_tokens: int = 0) -> Iterator[None]:
        """Count the time of the block for a part, and its tokens unless it raises."""
        outer = self._part
        self._switch(name)
        try:
            yield
        finally:
            self._switch(outer)
        self.add_tokens(name, n_tokens)

    def add_tokens(self, name: Part, n_tokens: int) -> None:
        """Count tokens of a part, where their number is known only after it."""
        self._tokens[name] += n_tokens
        if self._tell is not None:
            self._tell(name, n_tokens)

    def _switch(self, name: Part | None) -> None:
        now = self._clock.now()
        if self._part is not None:
            self._pending.append((self._part, self._last, now))
        self._part, self._last = name, now
        while self._pending and self._clock.has_passed(self._pending[0][2]):
            self._add_oldest()

    def _add_oldest(self) -> None:
        part, begin, end = self._pending.popleft()
        self._seconds[part] += self._clock.seconds(begin, end)

    def record(self) -> dict[str, dict[str, float]]:
        """Return seconds, tokens and tokens per second of each part so far; waits for a GPU."""
        while self._pending:
            self._add_oldest()
        record: dict[str, dict[str, float]] = {}
        for part, seconds in self._seconds.items():
            if not seconds:
                continue
            record[part] = {"seconds": round(seconds, 3)}
            if self._tokens[part]:
                record[part]["tokens"] = self._tokens[part]
                record[part]["tokens_per_second"] = round(self._tokens[part] / max(seconds, 1e-9))
        return record

    def line(self) -> str:
        """Return the same as a line of text."""
        return ", ".join(
            f"{part} {figures['seconds']:,.1f} s"
            + (f" ({figures['tokens_per_second']:,} tokens/s)" if "tokens" in figures else "")
            for part, figures in self.record().items()
        )


class _HostClock:
    """The time as it is when it is asked for."""

    def now(self) -> float:
        return time.perf_counter()

    def has_passed(self, mark: float) -> bool:
        return True

    def seconds(self, begin: float, end: float) -> float:
        return end - begin


class _GPUClock:
    """The time at which a GPU comes to a mark in its queue."""

    def __init__(self, device: torch.device) -> None:
        import torch

        self._event = torch.cuda.Event
        self._stream = torch.cuda.current_stream(device)

    def now(self) -> torch.cuda.Event:
        event = self._event(enable_timing=True)
        event.record(self._stream)
        return event

    def has_passed(self, mark: torch.cuda.Event) -> bool:
        return mark.query()

    def seconds(self, begin: torch.cuda.Event, end: torch.cuda.Event) -> float:
        end.synchronize()
        return begin.elapsed_time(end) / 1e3

"""Keep the logits of decoding, so that scoring a response needs no second pass over it.

They are kept where they fit in memory; an attempt whose logits are incomplete must be read again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from lm_eval_ext.engine.attempt_decoder import Row
from lm_eval_ext.engine.decoding import Decoder
from lm_eval_ext.engine.request import AttemptRequest, AttemptResult


class LogitStore:
    """Logits of many attempts, one row per generated token, in at most `max_bytes` of memory."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._rows: torch.Tensor | None = None
        self._n_rows = 0

    def append(self, logits: torch.Tensor) -> range | None:
        """Copy logits of shape (n, vocabulary); return their row numbers, or None without room."""
        if self._rows is None:
            capacity = self.max_bytes // (logits.shape[-1] * logits.element_size())
            # The operating system hands out the pages as they are written.
            self._rows = logits.new_empty((capacity, logits.shape[-1]))
        rows = range(self._n_rows, self._n_rows + len(logits))
        if rows.stop > len(self._rows):
            return None
        self._rows[rows.start : rows.stop] = logits
        self._n_rows = rows.stop
        return rows

    def take(self, rows: Sequence[int]) -> torch.Tensor:
        """Return the rows of the given numbers, shape (n, vocabulary)."""
        assert self._rows is not None
        return self._rows[torch.tensor(rows, device=self._rows.device)]

    def clear(self) -> None:
        """Give the memory back."""
        self._rows, self._n_rows = None, 0


@dataclass(eq=False, repr=False, kw_only=True)
class KeepingDecoder(Decoder):
    """A `Decoder` that keeps the logits after every token it samples.

    `kept` gets their row numbers in the store by request, unless the store has no room for all.
    """

    store: LogitStore
    kept: dict[AttemptRequest, list[int]]

    def run(self, requests: Sequence[AttemptRequest]) -> Iterator[tuple[int, AttemptResult]]:
        """Yield results as `Decoder.run` does."""
        self.kept.clear()
        self._incomplete: set[AttemptRequest] = set()
        yield from super().run(requests)

    def _extend(self, rows: Sequence[Row], running: list[int], logits: torch.Tensor) -> None:
        numbers = self.store.append(logits if len(running) == len(rows) else logits[running])
        for j, i in enumerate(running):
            request = rows[i].request
            if numbers is None or request in self._incomplete:
                self._incomplete.add(request)
                self.kept.pop(request, None)
            else:
                self.kept.setdefault(request, []).append(numbers[j])
        super()._extend(rows, running, logits)

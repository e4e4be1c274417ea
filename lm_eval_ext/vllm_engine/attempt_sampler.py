"""Choose attempts' tokens inside vLLM's worker, each from its own random stream.

vLLM's own per-request seeds begin a generator whose draws depend on how its sampler is built, and
which its CPU build cannot rewind after a preemption. This logits processor chooses the token as
`lm_eval_ext.engine` does, from the uniform number of its position, and leaves nothing but that
token possible. The position is how many tokens the request has so far, so what is computed twice,
after a preemption or while a long prompt is read in parts, comes out the same.

Statistics of the chosen tokens and logits that were asked for stay here until they are taken.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from vllm.v1.sample.logits_processor import LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from lm_eval_ext.engine.sampling import Sampler, padded_contexts
from lm_eval_ext.engine.sampling_settings import SamplingSettings
from lm_eval_ext.vllm_engine.instructions import NAME, restored_stream

# How many uniforms are drawn at a time.
_DRAWS = 64


class _Attempt:
    """What is known of an attempt."""

    def __init__(self, instruction: dict[str, Any]) -> None:
        self.settings = SamplingSettings(**instruction["settings"])
        self.prompt_ids: list[int] = instruction["prompt_ids"]
        self.token_ids: list[int] = []
        self.statistics: list[NDArray[np.float32]] = []
        self._stream = restored_stream(instruction["stream"])
        self._uniforms: list[float] = []

    def uniform(self, position: int) -> float:
        while len(self._uniforms) <= position:
            self._uniforms += self._stream.random(_DRAWS).tolist()
        return self._uniforms[position]

    def context(self, position: int) -> list[int]:
        return [*self.prompt_ids, *self.token_ids[:position]]

    def note(self, position: int, token_id: int, statistics: NDArray[np.float32]) -> None:
        # What stood here was chosen before all of the prompt had been read, or is the same.
        self.token_ids[position:] = [token_id]
        self.statistics[position:] = [statistics]

    def packed(self) -> bytes:
        return np.stack(self.statistics).astype(np.float32).tobytes() if self.statistics else b""


class _Readout:
    """Logits after a prompt."""

    def __init__(self, instruction: dict[str, Any]) -> None:
        self.token_ids: list[int] = instruction["readout_ids"]
        self.logits: list[float] = []

    def packed(self) -> bytes:
        return np.array(self.logits, dtype=np.float32).tobytes()


class _Row(NamedTuple):
    """A row of the batch; `output_ids` is vLLM's own list, which grows."""

    what: _Attempt | _Readout
    output_ids: Sequence[int]


class AttemptChoices:
    """Chooses attempts' tokens and reads logits, whichever of vLLM's interfaces asks."""

    def __init__(self) -> None:
        self._known: dict[str, _Attempt | _Readout] = {}
        self._samplers: dict[SamplingSettings, Sampler] = {}

    def instructed(self, params: Any) -> _Attempt | _Readout | None:
        """Return what a request with an instruction is, or None for any other."""
        instruction = (params.extra_args or {}).get(NAME)
        if instruction is None:
            return None
        key = instruction["key"]
        if key not in self._known:
            kind = _Readout if "readout_ids" in instruction else _Attempt
            self._known[key] = kind(instruction)
        return self._known[key]

    def choose(
        self, logits: torch.Tensor, rows: Iterable[tuple[int, _Attempt | _Readout, int]]
    ) -> None:
        """Leave one token possible in rows of logits, or read them.

        Parameters
        ----------
        logits
            Shape (n_rows, vocabulary), float32; changed in place.
        rows
            For each row its index, what it is, and how many tokens its attempt has so far.
        """
        attempts: dict[SamplingSettings, list[tuple[int, _Attempt, int]]] = defaultdict(list)
        for index, what, place in rows:
            if isinstance(what, _Readout):
                what.logits = logits[index, what.token_ids].tolist()
            else:
                attempts[what.settings].append((index, what, place))
        for settings, some in attempts.items():
            self._sample(logits, settings, some)

    def _sample(
        self,
        logits: torch.Tensor,
        settings: SamplingSettings,
        rows: list[tuple[int, _Attempt, int]],
    ) -> None:
        sampler = self._samplers.setdefault(settings, Sampler(settings))
        indices = torch.tensor([index for index, _, _ in rows], device=logits.device)
        uniforms = torch.tensor(
            [attempt.uniform(position) for _, attempt, position in rows], dtype=torch.float64
        )
        context = None
        if sampler.needs_context:
            context = padded_contexts([attempt.context(position) for _, attempt, position in rows])
        token_ids, statistics = sampler(logits[indices], uniforms, context)
        logits[indices] = -torch.inf
        logits[indices, token_ids.to(logits.device)] = 0.0
        for (_, attempt, position), token_id, values in zip(
            rows, token_ids.tolist(), statistics.numpy(), strict=True
        ):
            attempt.note(position, token_id, values)

    def take(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Return and forget what is known of attempts and readings; unknown keys are left out.

        All are float32: of an attempt four statistics of each token, of a reading its logits.
        """
        found = {key: self._known.pop(key) for key in keys if key in self._known}
        return {key: what.packed() for key, what in found.items()}

    def forget(self) -> None:
        """Forget everything, such as tokens that were chosen after a stop string."""
        self._known.clear()


class AttemptSampler(AttemptChoices, LogitsProcessor):
    """The interface of vLLM's first model runner; rows without an instruction are left alone."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        super().__init__()
        self._rows: dict[int, _Row] = {}

    def is_argmax_invariant(self) -> bool:
        """Return False: requests ask vLLM for greedy decoding, which takes the token left over."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Follow the requests that join, leave and move within the batch."""
        process_dict_updates(self._rows, batch_update, self._row)

    def _row(self, params: Any, prompt_ids: Any, output_ids: list[int]) -> _Row | None:
        what = self.instructed(params)
        return None if what is None else _Row(what, output_ids)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Choose a token for every row with an instruction."""
        self.choose(logits, ((i, row.what, len(row.output_ids)) for i, row in self._rows.items()))
        return logits

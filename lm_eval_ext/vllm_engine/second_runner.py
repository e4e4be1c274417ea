"""Choose attempts' tokens under vLLM's second model runner.

Its logits processors have another interface. vLLM's CPU build fails with that runner at the first
forward pass, so this is tested without an engine; docs/vllm.md says what ran where.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor

from lm_eval_ext.vllm_engine.attempt_sampler import AttemptChoices


class SecondRunnerSampler(AttemptChoices, LogitsProcessor):
    """Requests keep a slot while rows change places; slots without an instruction are left alone.

    Parameters
    ----------
    vllm_config
        Not looked at.
    req_states
        What the runner knows of each slot.
    """

    def __init__(self, vllm_config: Any, req_states: Any) -> None:
        super().__init__()
        self._prompt_lengths = req_states.prompt_len.np
        self._slots: dict[int, Any] = {}

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Take the request of a slot, in place of the one before."""
        self._slots[req_idx] = self.instructed(sampling_params)
        return self._slots[req_idx] is not None

    def apply(self, logits: torch.Tensor, ctx: Any) -> torch.Tensor:
        """Choose a token for every row with an instruction, once all of its prompt is read."""
        rows = []
        lengths = ctx.seq_lens_upper_bound_np  # exact, as there is no speculative decoding
        for row, slot in enumerate(ctx.idx_mapping_np.tolist()):
            what = self._slots.get(slot)
            place = int(lengths[row]) - int(self._prompt_lengths[slot])
            if what is not None and place >= 0:
                rows.append((row, what, place))
        self.choose(logits, rows)
        return logits

"""Rows, memory and the least time of a run, from the sizes of its model, machine and task.

The formulas are derived in docs/scaling.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from lm_eval_ext.commands.plan.hardware import Device
from lm_eval_ext.commands.plan.model_shape import ModelShape
from lm_eval_ext.commands.plan.workload import Workload
from lm_eval_ext.engine.memory import MAX_ROWS, USABLE_SHARE, bytes_per_row
from lm_eval_ext.errors import UserError

# What the driver and the libraries leave of a device.
_FREE_SHARE = 0.95


@dataclass(frozen=True)
class Run:
    """A run to plan.

    Parameters
    ----------
    shape, device, workload
        The model, one of the devices, and the attempts.
    number_bytes
        Bytes of a weight and of a cached number.
    n_devices
        Devices, each with a copy of the model; the questions are divided among them.
    batch_size
        Most rows per device, or None for as many as fit.
    """

    shape: ModelShape
    device: Device
    workload: Workload
    number_bytes: int
    n_devices: int = 1
    batch_size: int | None = None

    @property
    def device_attempts(self) -> float:
        """Attempts of the device that has the most questions."""
        return math.ceil(self.workload.questions / self.n_devices) * self.workload.attempts

    @property
    def weight_bytes(self) -> int:
        """Memory of the weights."""
        return self.shape.parameters * self.number_bytes

    @property
    def row_bytes(self) -> float:
        """Memory of an attempt in flight, its share of the prompt included."""
        return bytes_per_row(
            self.shape.cache_numbers * self.number_bytes,
            own_tokens=self.workload.max_new_tokens,
            prompt_tokens=self.workload.prompt_tokens,
            attempts_per_prompt=self.workload.attempts,
            vocabulary=self.shape.vocabulary,
        )


class Roof(NamedTuple):
    """The least that decoding takes on the device with the most questions.

    `rows` attempts at once, `steps` forward passes that add a token, and the `seconds` it takes to
    read weights and caches in all of them at the device's full memory bandwidth.
    """

    rows: int
    steps: float
    seconds: float


def rows_per_device(run: Run) -> int:
    """Return how many attempts a device decodes at once.

    Raises
    ------
    UserError
        If the weights, or one attempt, do not fit into its memory.
    """
    free = _FREE_SHARE * run.device.memory - run.weight_bytes
    if free <= 0:
        raise UserError(
            f"the weights of {run.shape.name} take {run.weight_bytes / 1e9:.1f} GB, "
            f"{run.device.name} has {run.device.memory / 1e9:.1f} GB: choose a smaller --dtype or "
            "a larger device, or divide the model with the vLLM wrappers (not planned here)"
        )
    if run.row_bytes > free:
        raise UserError(
            f"one attempt takes {run.row_bytes / 1e9:.1f} GB, {run.device.name} has "
            f"{free / 1e9:.1f} GB beside the weights: lower --max-new-tokens, or choose a larger "
            "device"
        )
    limit = MAX_ROWS if run.batch_size is None else run.batch_size
    max_rows = min(limit, math.ceil(run.device_attempts))
    return max(1, min(max_rows, int(USABLE_SHARE * free / run.row_bytes)))


def bandwidth_roof(run: Run) -> Roof:
    """Return the least time of decoding: every step reads the weights and the caches once."""
    rows, workload, shape = rows_per_device(run), run.workload, run.shape
    tokens = run.device_attempts * workload.response_tokens
    steps = max(tokens / rows, workload.response_tokens)
    mean_rows = tokens / steps
    # A shared prompt is read once for all its attempts.
    prompts = max(1.0, mean_rows / workload.attempts)
    cached = prompts * workload.prompt_tokens + mean_rows * workload.response_tokens / 2
    numbers = shape.weights_read(mean_rows) + shape.cache_numbers * cached
    return Roof(rows, steps, steps * numbers * run.number_bytes / run.device.bandwidth)

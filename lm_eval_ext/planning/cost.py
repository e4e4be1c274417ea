"""Time and memory of a run, from the sizes of its model, its machine and its task.

The formulas are derived in docs/scaling.md. Each is evaluated in three cases; none is a promise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from lm_eval_ext.engine.row_memory import MOST_ROWS, USABLE_SHARE, bytes_per_row
from lm_eval_ext.errors import UserError
from lm_eval_ext.planning.hardware import Device, Efficiency
from lm_eval_ext.planning.model_shape import ModelShape
from lm_eval_ext.planning.workload import Workload

Case = Literal["best", "expected", "worst"]
CASES: tuple[Case, ...] = ("best", "expected", "worst")

PREFILL_TOKENS = 8192
"""Prompts are read in batches of at most so many tokens, as the engine does."""

# What the driver and the libraries take of a device.
_FREE_SHARE = 0.95
# The longest response beside the mean one; the token limit bounds it.
_LONGEST = {"best": 1.5, "expected": 4.0, "worst": math.inf}


@dataclass(frozen=True)
class Run:
    """A run to be planned.

    Parameters
    ----------
    shape
        The model.
    device
        One of the devices.
    workload
        What there is to do.
    number_bytes
        Bytes of a weight and of a cached number.
    n_devices
        Devices, each with a copy of the model; the questions are divided among them.
    batch_size
        Most rows per device, or None for as many as fit.
    shared_prefix
        Whether the attempts at a question share its prompt (``sampled``), or each has its own copy
        (lm-eval's ``repeats`` under ``hf``).
    """

    shape: ModelShape
    device: Device
    workload: Workload
    number_bytes: int
    n_devices: int = 1
    batch_size: int | None = None
    shared_prefix: bool = True

    @property
    def device_questions(self) -> int:
        """Questions of the device that has the most."""
        return math.ceil(self.workload.questions / self.n_devices)

    @property
    def weight_bytes(self) -> int:
        """Memory of the weights."""
        return self.shape.parameters * self.number_bytes

    @property
    def row_bytes(self) -> float:
        """Memory of an attempt in flight, its share of the prompt included."""
        prompt = self.workload.prompt_tokens
        return bytes_per_row(
            self.shape.cache_numbers * self.number_bytes,
            own_tokens=self.workload.max_new_tokens + (0 if self.shared_prefix else prompt),
            prompt_tokens=prompt if self.shared_prefix else 0,
            attempts_per_prompt=self.workload.attempts,
            vocabulary=self.shape.vocabulary,
        )


class Estimate(NamedTuple):
    """What a run takes in one case.

    Parameters
    ----------
    prefill_seconds, decode_seconds, grading_seconds
        Time of the device with the most questions, which grades their attempts.
    steps
        Forward passes that add a token, per device.
    step_seconds
        Mean time of one of them.
    mean_rows
        Mean running attempts in a step.
    limited_by
        What a step spends the most time on: ``"memory"`` (bandwidth), ``"compute"``, ``"launch"``
        (kernels waiting for Python), ``"sampling"`` (logits and rows).
    """

    prefill_seconds: float
    decode_seconds: float
    grading_seconds: float
    steps: float
    step_seconds: float
    mean_rows: float
    limited_by: str

    @property
    def seconds(self) -> float:
        """Time of the run, without loading the model."""
        return self.prefill_seconds + self.decode_seconds + self.grading_seconds


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
            f"{free / 1e9:.1f} GB beside the weights: lower --max-gen-toks, or choose a larger "
            "device"
        )
    attempts = run.device_questions * run.workload.attempts
    most = min(MOST_ROWS if run.batch_size is None else run.batch_size, math.ceil(attempts))
    return max(1, min(most, int(USABLE_SHARE * free / run.row_bytes)))


def estimate(run: Run, case: Case) -> Estimate:
    """Return what a run takes.

    Parameters
    ----------
    run
        The run.
    case
        Which of the three.
    """
    efficiency: Efficiency = getattr(run.device.scenarios, case)
    response: float = getattr(run.workload.response_tokens, case)
    longest = max(response, min(_LONGEST[case] * response, run.workload.max_new_tokens))
    rows = rows_per_device(run)
    tokens = run.device_questions * run.workload.attempts * response
    # The last rows fade out over the longest response; before, freed rows are taken again.
    steps = max(0.0, tokens - rows * response) / (rows * efficiency.rows_in_use) + longest
    mean_rows = tokens / steps
    own = {"best": response / 2, "expected": longest / 2, "worst": longest}[case]
    parts = step_parts(run, efficiency, rows=mean_rows, own_tokens=own)
    computing = max(parts["memory"], parts["compute"])
    on_device = computing + parts["sampling"]
    if run.device.asynchronous:
        step = max(on_device, parts["launch"]) + parts["host"]
    else:
        step = on_device + parts["launch"] + parts["host"]
    # Every process of lm-eval filters and judges what it generated.
    attempts = run.device_questions * run.workload.attempts
    named = {**parts, "sampling": parts["sampling"] + parts["host"]}
    del named["host"]
    return Estimate(
        prefill_seconds=prefill_seconds(run, efficiency),
        decode_seconds=steps * step,
        grading_seconds=attempts * float(getattr(run.workload.grading, case)),
        steps=steps,
        step_seconds=step,
        mean_rows=mean_rows,
        limited_by=max(named, key=lambda name: named[name]),
    )


def step_parts(
    run: Run, efficiency: Efficiency, *, rows: float, own_tokens: float
) -> dict[str, float]:
    """Return what one decoding step takes, in seconds.

    Parameters
    ----------
    run
        The run.
    efficiency
        What the device reaches.
    rows
        Running attempts.
    own_tokens
        Cached tokens of an attempt of its own.

    Returns
    -------
    dict
        ``memory`` and ``compute``, of which the larger counts; ``sampling``: attention scores and
        logits, which are written and read several times; ``launch``; ``host``.
    """
    shape, workload = run.shape, run.workload
    bandwidth = run.device.bandwidth * efficiency.bandwidth
    keys = workload.prompt_tokens + own_tokens
    # A shared prompt is read once for all its attempts.
    prompts = rows / workload.attempts if run.shared_prefix else rows
    prompts = min(rows, max(1.0, prompts))
    cached = prompts * workload.prompt_tokens + rows * own_tokens
    traffic = run.number_bytes * (shape.weights_read(rows) + shape.cache_numbers * cached)
    scores = rows * shape.heads * shape.layers * keys * efficiency.score_bytes
    logits = rows * shape.vocabulary * efficiency.logit_bytes
    operations = rows * (2 * shape.active + 4 * shape.query_width * shape.layers * keys)
    return {
        "memory": traffic / bandwidth,
        "compute": operations / (run.device.peak(run.number_bytes) * efficiency.compute),
        "sampling": (scores + logits) / bandwidth,
        "launch": efficiency.step_seconds + shape.layers * efficiency.layer_seconds,
        "host": rows * efficiency.row_seconds,
    }


def prefill_operations(run: Run) -> float:
    """Return the floating-point operations of reading a device's prompts.

    The output layer works on one position of a prompt; causal attention sees half of all pairs.
    """
    length, shape = run.workload.prompt_tokens, run.shape
    per_prompt = (
        2 * (shape.active - shape.head) * length
        + 2 * shape.head
        + 2 * shape.query_width * shape.layers * length**2
    )
    copies = 1 if run.shared_prefix else run.workload.attempts
    return run.device_questions * copies * per_prompt


def prefill_seconds(run: Run, efficiency: Efficiency) -> float:
    """Return the time of reading a device's prompts."""
    copies = 1 if run.shared_prefix else run.workload.attempts
    tokens = run.device_questions * copies * run.workload.prompt_tokens
    passes = math.ceil(tokens / PREFILL_TOKENS)
    weights = passes * run.shape.weights_read(PREFILL_TOKENS) * run.number_bytes
    computing = max(
        prefill_operations(run) / (run.device.peak(run.number_bytes) * efficiency.compute),
        weights / (run.device.bandwidth * efficiency.bandwidth),
    )
    launch = passes * (efficiency.step_seconds + run.shape.layers * efficiency.layer_seconds)
    return max(computing, launch) if run.device.asynchronous else computing + launch

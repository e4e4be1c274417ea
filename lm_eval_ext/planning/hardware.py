"""What GPUs can do: published peaks, and the share of them a run is taken to reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from lm_eval_ext.errors import UserError


class Efficiency(NamedTuple):
    """How much of its peaks a device gives, and what it takes besides.

    Parameters
    ----------
    bandwidth, compute
        Reached share of the peaks, in (0, 1].
    step_seconds, layer_seconds
        Time of a forward pass that does not depend on its rows, in seconds: once, and per layer.
        Where kernels are short, this is what a step takes: they wait for Python to launch them.
    row_seconds
        Time per row and step on the host: drawing numbers, keeping tokens, in seconds.
    logit_bytes
        Memory traffic of sampling, in bytes per row and vocabulary entry.
    score_bytes
        Memory traffic of attention scores, in bytes per query head and key.
    rows_in_use
        Mean share of the rows that hold a running attempt while attempts are waiting.
    """

    bandwidth: float
    compute: float
    step_seconds: float
    layer_seconds: float
    row_seconds: float
    logit_bytes: float
    score_bytes: float
    rows_in_use: float


class Scenarios(NamedTuple):
    """A favourable, an expected and an unfavourable case."""

    best: Efficiency
    expected: Efficiency
    worst: Efficiency


# Assumed, not measured on a GPU: docs/scaling.md says where each comes from. `row_seconds`, the
# bytes and `rows_in_use` follow from the engine's code.
ASSUMED = Scenarios(
    best=Efficiency(0.85, 0.60, 0.5e-3, 0.3e-3, 5e-6, 80.0, 12.0, 1.0),
    expected=Efficiency(0.60, 0.35, 1.5e-3, 0.7e-3, 15e-6, 150.0, 24.0, 0.87),
    worst=Efficiency(0.35, 0.15, 4.0e-3, 1.5e-3, 40e-6, 300.0, 40.0, 0.75),
)
"""Shares and overheads of a GPU."""


@dataclass(frozen=True)
class Device:
    """One processor that holds a whole copy of the model.

    Parameters
    ----------
    name
        What it is called.
    memory
        Its memory in bytes.
    bandwidth
        Peak memory bandwidth in bytes per second.
    flops
        Peak of dense matrix products in 16 bits, in floating-point operations per second.
    flops_32
        The same in float32, without TF32.
    scenarios
        What is reached of it.
    asynchronous
        Whether it computes while the host prepares the next kernels, as GPUs do.
    """

    name: str
    memory: float
    bandwidth: float
    flops: float
    flops_32: float
    scenarios: Scenarios = ASSUMED
    asynchronous: bool = True

    def peak(self, bytes_per_number: int) -> float:
        """Return the peak for numbers of so many bytes, in operations per second."""
        return self.flops if bytes_per_number < 4 else self.flops_32


def _gpu(name: str, gigabytes: float, per_second: float, tflops: float, tflops_32: float) -> Device:
    return Device(name, gigabytes * 1e9, per_second * 1e9, tflops * 1e12, tflops_32 * 1e12)


GPUS = {
    device.name: device
    for device in (
        # Dense 16-bit peaks: where a data sheet gives the figure "with sparsity", half of it.
        # name, GB, GB/s, 16-bit TFLOP/s, float32 TFLOP/s
        _gpu("b200", 180, 8000, 2250, 75),  # NVIDIA DGX B200 data sheet, an eighth of the system
        _gpu("h200", 141, 4800, 989, 67),  # NVIDIA H200 data sheet, SXM
        _gpu("h100", 80, 3350, 989, 67),  # NVIDIA H100 data sheet, SXM
        _gpu("h100-pcie", 80, 2000, 756, 51),  # NVIDIA H100 data sheet, PCIe
        _gpu("a100", 80, 2039, 312, 19.5),  # NVIDIA A100 data sheet, 80 GB SXM
        _gpu("a100-40gb", 40, 1555, 312, 19.5),  # NVIDIA A100 data sheet, 40 GB
        _gpu("l40s", 48, 864, 362, 91.6),  # NVIDIA L40S data sheet
        _gpu("l4", 24, 300, 121, 30.3),  # NVIDIA L4 data sheet
        _gpu("a10", 24, 600, 125, 31.2),  # NVIDIA A10 data sheet
        _gpu("a6000", 48, 768, 155, 38.7),  # NVIDIA RTX A6000 data sheet
        _gpu("rtx4090", 24, 1008, 165, 82.6),  # NVIDIA Ada architecture white paper, appendix A
        _gpu("rtx3090", 24, 936, 71, 35.6),  # NVIDIA Ampere GA102 white paper, appendix A
        _gpu("v100", 32, 900, 125, 15.7),  # NVIDIA V100 data sheet, SXM2 (float16 only)
        _gpu("t4", 16, 320, 65, 8.1),  # NVIDIA T4 data sheet (float16 only)
        _gpu("mi300x", 192, 5300, 1307, 163.4),  # AMD Instinct MI300X data sheet
    )
}
"""GPUs by name; memory and bandwidth in decimal units, as published."""


def find_device(
    name: str | None,
    *,
    memory_gb: float | None = None,
    bandwidth_gb_s: float | None = None,
    tflops: float | None = None,
) -> Device:
    """Return a GPU of the table, or one that is described by numbers.

    Parameters
    ----------
    name
        One of `GPUS`, or None for a GPU of which all three numbers are given.
    memory_gb, bandwidth_gb_s, tflops
        Replace what the table says: gigabytes, gigabytes per second, and 10^12 operations per
        second. A device outside the table is taken to reach `tflops` in the run's own data type.

    Raises
    ------
    UserError
        For an unknown name, a number that is not above 0, or a device that is not fully described.

    Examples
    --------
    >>> find_device("h200").bandwidth
    4800000000000.0
    >>> find_device("h200", memory_gb=70).memory
    70000000000.0
    """
    given = {"--memory-gb": memory_gb, "--bandwidth-gb-s": bandwidth_gb_s, "--tflops": tflops}
    for option, value in given.items():
        if value is not None and not 0 < value < float("inf"):
            raise UserError(f"{option}={value:g} must be above 0")
    if name is None:
        missing = [option for option, value in given.items() if value is None]
        if missing:
            raise UserError(
                f"--gpu is not given, nor {', '.join(missing)}: name a GPU ({', '.join(GPUS)}), "
                "cpu, or give all three numbers"
            )
        assert memory_gb is not None
        assert bandwidth_gb_s is not None
        assert tflops is not None
        return _gpu("GPU as described", memory_gb, bandwidth_gb_s, tflops, tflops)
    if name not in GPUS:
        raise UserError(
            f"--gpu={name} is not in the table ({', '.join(GPUS)}, cpu): give --memory-gb, "
            "--bandwidth-gb-s and --tflops instead of --gpu"
        )
    known = GPUS[name]
    return Device(
        name,
        known.memory if memory_gb is None else memory_gb * 1e9,
        known.bandwidth if bandwidth_gb_s is None else bandwidth_gb_s * 1e9,
        known.flops if tflops is None else tflops * 1e12,
        known.flops_32 if tflops is None else tflops * 1e12,
    )

"""Memory and memory bandwidth of GPUs, as published, and of this machine, as measured."""

from __future__ import annotations

import time
from typing import NamedTuple

from lm_eval_ext.errors import UserError


class Device(NamedTuple):
    """A processor with a copy of the model; memory in bytes, bandwidth in bytes per second."""

    name: str
    memory: float
    bandwidth: float


def _gpu(name: str, gigabytes: float, per_second: float) -> Device:
    return Device(name, gigabytes * 1e9, per_second * 1e9)


GPUS = {
    device.name: device
    for device in (
        # name, GB, GB/s
        _gpu("b200", 180, 8000),  # NVIDIA DGX B200 data sheet, an eighth of the system
        _gpu("h200", 141, 4800),  # NVIDIA H200 data sheet, SXM
        _gpu("h100", 80, 3350),  # NVIDIA H100 data sheet, SXM
        _gpu("h100-pcie", 80, 2000),  # NVIDIA H100 data sheet, PCIe
        _gpu("a100", 80, 2039),  # NVIDIA A100 data sheet, 80 GB SXM
        _gpu("a100-40gb", 40, 1555),  # NVIDIA A100 data sheet, 40 GB
        _gpu("l40s", 48, 864),  # NVIDIA L40S data sheet
        _gpu("l4", 24, 300),  # NVIDIA L4 data sheet
        _gpu("a10", 24, 600),  # NVIDIA A10 data sheet
        _gpu("a6000", 48, 768),  # NVIDIA RTX A6000 data sheet
        _gpu("rtx4090", 24, 1008),  # NVIDIA Ada architecture white paper, appendix A
        _gpu("rtx3090", 24, 936),  # NVIDIA Ampere GA102 white paper, appendix A
        _gpu("v100", 32, 900),  # NVIDIA V100 data sheet, SXM2
        _gpu("t4", 16, 320),  # NVIDIA T4 data sheet
        _gpu("mi300x", 192, 5300),  # AMD Instinct MI300X data sheet
    )
}
"""GPUs by name; memory and bandwidth in decimal units, as published."""


def find_device(
    name: str | None, *, memory_gb: float | None = None, bandwidth_gb_s: float | None = None
) -> Device:
    """Return a GPU of the table, this machine's processor, or one that is described by numbers.

    Parameters
    ----------
    name
        One of `GPUS`, ``"cpu"``, or None for a GPU of which both numbers are given.
    memory_gb, bandwidth_gb_s
        Gigabytes, and gigabytes per second, instead of those in the table.

    Examples
    --------
    >>> find_device("h200").bandwidth
    4800000000000.0
    >>> find_device("h200", memory_gb=70).memory
    70000000000.0
    """
    given = {"--memory-gb": memory_gb, "--bandwidth-gb-s": bandwidth_gb_s}
    for option, value in given.items():
        if value is not None and not 0 < value < float("inf"):
            raise UserError(f"{option}={value:g} must be above 0")
    if name is None:
        missing = [option for option, value in given.items() if value is None]
        if missing:
            raise UserError(
                f"--gpu is not given, nor {', '.join(missing)}: name a GPU ({', '.join(GPUS)}), "
                "cpu, or give both numbers, or --measure a run on this machine"
            )
        known = Device("GPU as described", 0.0, 0.0)
    elif name == "cpu":
        known = _measured_cpu()
    elif name in GPUS:
        known = GPUS[name]
    else:
        raise UserError(
            f"--gpu={name} is not in the table ({', '.join(GPUS)}, cpu): give --memory-gb and "
            "--bandwidth-gb-s instead of --gpu"
        )
    return Device(
        known.name,
        known.memory if memory_gb is None else memory_gb * 1e9,
        known.bandwidth if bandwidth_gb_s is None else bandwidth_gb_s * 1e9,
    )


def _measured_cpu() -> Device:
    """Return free memory, and the bandwidth of the fastest of five matrix-vector products."""
    import psutil
    import torch

    matrix, vector = torch.ones(4096, 8192), torch.ones(8192)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        torch.mv(matrix, vector)
        seconds.append(time.perf_counter() - started)
    threads = torch.get_num_threads()
    return Device(
        name=f"cpu, {threads} thread{'s' if threads > 1 else ''}",
        memory=float(psutil.virtual_memory().available),
        bandwidth=matrix.numel() * 4 / max(min(seconds), 1e-9),
    )

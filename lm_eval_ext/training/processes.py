"""The processes of a launch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Processes:
    """A process among those of its launch.

    Parameters
    ----------
    device
        What it computes on as lm-eval has it, or None for the wrapper's own choice.
    accelerator
        None in a single process that needs none.
    """

    rank: int = 0
    n: int = 1
    device: str | None = None
    accelerator: Accelerator | None = None

    def wait(self) -> None:
        """Wait for the others."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()


def join_processes() -> Processes:
    """Find the other processes of a launch, if there are any."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes()
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")
    return accelerated()


def accelerated() -> Processes:
    """Return this process with its accelerator, one of a single process too."""
    from accelerate import Accelerator, InitProcessGroupKwargs

    # A process that is done waits for the slowest one, however long that takes.
    patient = InitProcessGroupKwargs(timeout=timedelta(weeks=52))
    accelerator = Accelerator(kwargs_handlers=[patient])
    # accelerate calls the CPU of a process cpu:0, which lm-eval does not know.
    device = "cpu" if accelerator.device.type == "cpu" else str(accelerator.device)
    return Processes(accelerator.process_index, accelerator.num_processes, device, accelerator)

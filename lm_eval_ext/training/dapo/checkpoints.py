"""What a continued run finds in a checkpoint beside transformers' own files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from lm_eval_ext.training.run import last_step, write_json

STATE = "dapo_state.json"


class SaveState(TrainerCallback):
    """Writes the state of a `DAPOTrainer` into each checkpoint, last of all.

    A checkpoint without that file was not finished.

    Parameters
    ----------
    frozen
        What every checkpoint says about the run, such as the moments of the random vectors.
    """

    def __init__(self, frozen: dict[str, Any]) -> None:
        self.frozen = frozen
        self.trainer: Any = None

    def on_save(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Write the state."""
        processes = self.trainer.gather_state()
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_json(folder / STATE, {**self.frozen, "processes": processes})


def latest_checkpoint(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest finished checkpoint and its state, or None.

    Parameters
    ----------
    folder
        Folder with ``checkpoint-<step>``.
    """
    step = last_step(folder, STATE)
    if step is None:
        return None
    newest = folder / f"checkpoint-{step}"
    return newest, json.loads((newest / STATE).read_text(encoding="utf-8"))

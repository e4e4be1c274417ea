"""What a run writes on its way: its state into checkpoints, and its figures into a log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import ProgressCallback, TrainerCallback

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
    """Return the newest finished checkpoint and its state, or None."""
    step = last_step(folder, STATE)
    if step is None:
        return None
    newest = folder / f"checkpoint-{step}"
    return newest, json.loads((newest / STATE).read_text(encoding="utf-8"))


LOG = "log.jsonl"
"""One line per step."""

_SHOWN = {
    "accuracy": "groups/accuracy",
    "dropped": "groups/dropped_share",
    "length": "completions/mean_length",
    "entropy": "entropy",
    "clipped": "clip_ratio/region_mean",
}


class CompactProgress(ProgressCallback):
    """A progress bar that shows few figures, beside a file that holds all.

    Parameters
    ----------
    path
        The file; a continued run drops its lines after the checkpoint.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._shown: dict[str, str] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Open the bar, and cut the file where the run resumes."""
        super().on_train_begin(args, state, control, **others)
        if state.is_world_process_zero:
            lines = self.path.read_text().splitlines(keepends=True) if self.path.exists() else []
            kept = [line for line in lines if _step(line) <= state.global_step]
            self.path.write_text("".join(kept))

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **others: Any
    ) -> None:
        """Write a step's figures."""
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        with self.path.open("a") as file:
            file.write(json.dumps({"step": state.global_step, **logs}) + "\n")
        if self.training_bar is not None:
            # Updates that share a generation batch have no figures of rollouts.
            self._shown.update(
                {short: f"{logs[name]:.3g}" for short, name in _SHOWN.items() if name in logs}
            )
            self.training_bar.set_postfix(self._shown)


def _step(line: str) -> float:
    """Return the step of a line; of one that was cut off, none."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")

"""The files of a run: JSON Lines between the phases, each whole or not there (attempts: appended).

settings.json  problems.jsonl  training.json  model
round-1/  attempts-0.jsonl  labelled.jsonl  rows.jsonl  adapter/  model/
generate.json  label.json  rows.json  tune.json     counts; each says its phase is done
held-out/ attempts-0.jsonl  labelled.jsonl  ...
temperature.json  tau.json
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval_ext.errors import UserError
from lm_eval_ext.store import lines

MANIFEST = "training.json"
LABELLED = "labelled.jsonl"
MODEL, ADAPTER = "model", "adapter"


class Stage(NamedTuple):
    """A round, or the answers to the held-out problems after the last one.

    Parameters
    ----------
    number
        Of the round, from 1; one more than there are rounds for the held-out problems.
    """

    output: Path
    number: int
    held_out: bool = False

    @property
    def folder(self) -> Path:
        """Where the stage's files are."""
        return self.output / ("held-out" if self.held_out else f"round-{self.number}")

    @property
    def checkpoints(self) -> Path:
        """Where its fine-tuning keeps checkpoints."""
        return self.folder / "checkpoints"

    @property
    def name(self) -> str:
        """The stage in messages."""
        return "held-out problems" if self.held_out else f"round {self.number}"

    def previous(self) -> Stage | None:
        """Return the round before, or None before the first."""
        return Stage(self.output, self.number - 1) if self.number > 1 else None

    def report(self, phase: str) -> Path:
        """Return the file that says a phase is done."""
        return self.folder / f"{phase}.json"

    def counts(self, phase: str) -> dict[str, Any]:
        """Return what a finished phase reported."""
        report: dict[str, Any] = json.loads(self.report(phase).read_text(encoding="utf-8"))
        return report


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSON Lines file that is there whole or not at all."""
    scratch = path.with_name(f".writing-{path.name}")
    with scratch.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in records)
    os.replace(scratch, path)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a JSON Lines file, without a last line that was cut off.

    Raises
    ------
    UserError
        For a line that is not a record; the message names it.
    """
    for number, _, text, complete in lines.read_lines(path):
        if not complete:
            return
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if not isinstance(line, dict):
            raise UserError(
                f"{path}, line {number} is damaged: delete {_remedy(path)}, and the same command "
                "makes it again"
            )
        yield line


def read_attempts(stage: Stage) -> Iterator[dict[str, Any]]:
    """Yield the attempts of a stage, as far as they are there, each once."""
    seen: set[tuple[int, int]] = set()
    for path in sorted(stage.folder.glob("attempts-*.jsonl"), key=_rank):
        for line in read_lines(path):
            key = line["problem"], line["attempt"]
            if key not in seen:
                seen.add(key)
                yield line


def _rank(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def _remedy(path: Path) -> str:
    """Return what must be deleted for a damaged line to be made again."""
    if path.name.startswith("attempts-"):
        return "the line and, if it is there, generate.json beside it"
    phase = {"labelled": "label", "rows": "rows"}.get(path.stem)
    return "the file" if phase is None else f"the file and {phase}.json beside it"

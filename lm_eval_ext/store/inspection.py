"""Look at a store without a model: what it holds, and whether every line is sound."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lm_eval_ext.errors import UserError
from lm_eval_ext.models.digests import canonical, digest
from lm_eval_ext.store.appending import PATTERN
from lm_eval_ext.store.encoding import decode_generation
from lm_eval_ext.store.key import AttemptKey
from lm_eval_ext.store.lines import decode_line, read_lines

UNDESCRIBED = "{} attempts have settings that no sound line describes; runs use them all the same"
"""What is said of attempts whose context is missing."""


@dataclass
class StoreContents:
    """What was found in a store.

    Parameters
    ----------
    contexts
        Settings and origin of each context, by name.
    attempts
        Distinct attempts of each context by prompt: hash of what is read, and number.
    n_repeated
        Lines with an attempt that another line has too.
    damaged
        Lines that are not sound, as ``"file, line 3: why"``.
    cut_off
        Files whose last line has no end.
    """

    files: list[Path] = field(default_factory=list)
    n_bytes: int = 0
    contexts: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    attempts: dict[str, dict[str, set[tuple[str, int]]]] = field(default_factory=dict)
    n_repeated: int = 0
    damaged: list[str] = field(default_factory=list)
    cut_off: list[Path] = field(default_factory=list)

    @property
    def undescribed(self) -> dict[str, int]:
        """Distinct attempts by context, where no sound line describes it; runs use them too."""
        return {
            name: sum(map(len, prompts.values()))
            for name, prompts in self.attempts.items()
            if name not in self.contexts
        }

    @property
    def n_attempts(self) -> int:
        """Distinct attempts."""
        return sum(len(n) for prompts in self.attempts.values() for n in prompts.values())

    def sound_lines(
        self, path: Path, *, shown: object, kind: str = ""
    ) -> Iterator[tuple[str, str, Any]]:
        """Yield (kind, name, value) of a file's sound lines, of one kind or all; note the others.

        A line is sound if its checksum holds, an attempt's key follows from what the line says, and
        a context's name from its settings.
        """
        for line in read_lines(path):
            if not line.complete:
                self.cut_off.append(path)
                continue
            if kind and not line.data.startswith(f'{{"{kind}"'.encode()):
                continue
            try:
                yield checked_line(line.data)
            except (ValueError, KeyError, TypeError) as error:
                why = error or type(error).__name__
                self.damaged.append(f"{shown}, line {line.number}: {why}")

    def add(self, value: Mapping[str, Any]) -> bool:
        """Note an attempt, and return whether it is new."""
        prompts = self.attempts.setdefault(value["context"], defaultdict(set))
        known, attempt = prompts[value["prompt"]], (value["read"], value["attempt"])
        is_new = attempt not in known
        self.n_repeated += not is_new
        known.add(attempt)
        return is_new


def store_files(folder: Path) -> list[Path]:
    """Return the files of a store, in the order in which they are read.

    Raises
    ------
    UserError
        If it is not a store.
    """
    files = sorted(folder.glob(PATTERN)) if folder.is_dir() else []
    if not files:
        raise UserError(
            f"{folder} is not a store: it holds no {PATTERN}; give the folder of store="
        )
    return files


def inspect(folder: Path) -> StoreContents:
    """Read every line of a store and check it.

    Raises
    ------
    UserError
        If it is not a store.
    """
    found = StoreContents(files=store_files(folder))
    texts: dict[str, str] = {}
    for path in found.files:
        found.n_bytes += path.stat().st_size
        for kind, name, value in found.sound_lines(path, shown=path.name):
            if kind == "context":
                found.contexts.setdefault(name, value)
            elif kind == "key" and found.add(value):
                texts[name] = value["record"]["text"]
            elif kind == "key" and texts[name] != value["record"]["text"]:
                found.damaged.append(f"{path.name}: two texts with the key {name}")
    return found


def checked_line(data: bytes) -> tuple[str, str, Any]:
    """Return kind, name and value of a line; raise ValueError, KeyError or TypeError if unsound."""
    kind, name, value = decode_line(data)
    if kind == "context" and digest("context", canonical(value["settings"])) != name:
        raise ValueError("the settings are not those of the context's name")
    if kind == "key":
        if AttemptKey(*(value[part] for part in AttemptKey._fields)).name != name:
            raise ValueError("the key is not that of the attempt")
        decode_generation(value["record"])
    return kind, name, value

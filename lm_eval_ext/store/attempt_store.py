"""A folder of attempts by key, to which several processes may append."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

from lm_eval_ext.errors import UserError
from lm_eval_ext.generation import Generation
from lm_eval_ext.store.appending import PATTERN, AttemptFile, Place
from lm_eval_ext.store.encoding import decode_generation, encode_generation
from lm_eval_ext.store.key import AttemptKey, Context
from lm_eval_ext.store.lines import opened, read_lines

logger = logging.getLogger(__name__)

# How a line with an attempt begins; the key follows.
_BEGINNING = b'{"key":"'
_KEY_LENGTH = 32

Tally = dict[str, dict[str, int]]
"""What an attempt adds to the counts of a run, by the part of the run and the name of the count."""


class StoredAttempt(NamedTuple):
    """What a store holds of an attempt.

    Parameters
    ----------
    generation
        Text and record.
    tally
        What it adds to the counts of the run.
    batch
        Name of the batch it was generated in.
    """

    generation: Generation
    tally: Tally
    batch: str


class AttemptStore:
    """A folder of attempts.

    Parameters
    ----------
    folder
        The folder; made if need be.

    Attributes
    ----------
    n_appended
        Attempts this process has added.

    Raises
    ------
    UserError
        If there is something else of that name, or it cannot be read or made.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.n_appended = 0
        self._file = AttemptFile(self.folder)
        self._places: dict[str, Place] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._read_index()
        except OSError as error:
            raise UserError(f"store={folder}: {error.strerror}; give a folder") from error

    def _read_index(self) -> None:
        for path in sorted(self.folder.glob(PATTERN)):
            for line in read_lines(path):
                if not line.complete:
                    logger.warning(
                        "%s: the last line was cut off (%d bytes) and is dropped; its attempt is "
                        "generated again",
                        path,
                        len(line.data),
                    )
                elif line.data.startswith(_BEGINNING):
                    start = len(_BEGINNING)
                    key = line.data[start : start + _KEY_LENGTH].decode("ascii", "replace")
                    place = Place(path, line.offset, len(line.data))
                    self._places.setdefault(key, place)

    def __len__(self) -> int:
        """Return the number of attempts."""
        return len(self._places)

    def __contains__(self, key: AttemptKey) -> bool:
        return key.name in self._places

    def get(self, key: AttemptKey) -> StoredAttempt | None:
        """Return an attempt, or None where it is missing or its line is damaged.

        Parameters
        ----------
        key
            Its key.
        """
        place = self._places.get(key.name)
        if place is None:
            return None
        try:
            with place.path.open("rb") as file:
                file.seek(place.offset)
                value = opened(file.read(place.length))[2]
            return StoredAttempt(decode_generation(value["record"]), value["tally"], value["batch"])
        except (OSError, ValueError, KeyError, TypeError):
            del self._places[key.name]
            logger.warning(
                "%s: the line at byte %d is damaged; its attempt is generated again",
                place.path,
                place.offset,
            )
            return None

    def append(self, context: Context, key: AttemptKey, attempt: StoredAttempt) -> None:
        """Add an attempt; it survives the process from now on.

        Parameters
        ----------
        context
            Its context.
        key
            Its key.
        attempt
            What is to be kept.

        Raises
        ------
        UserError
            If it cannot be written, for lack of room or otherwise.
        """
        value = {
            **key._asdict(),
            "batch": attempt.batch,
            "tally": attempt.tally,
            "record": encode_generation(attempt.generation),
        }
        try:
            place = self._file.append(context, key.name, value)
        except OSError as error:
            raise self._cannot_write(error) from error
        self._places.setdefault(key.name, place)
        self.n_appended += 1

    def sync(self) -> None:
        """Wait until everything is on the disk, so that it survives the machine too.

        Raises
        ------
        UserError
            If it cannot be written.
        """
        try:
            self._file.sync()
        except OSError as error:
            raise self._cannot_write(error) from error

    def _cannot_write(self, error: OSError) -> UserError:
        return UserError(
            f"store={self.folder}: {error.strerror}; the {len(self)} attempts "
            "written before are kept: make room, and the same command goes on from there"
        )

"""A folder of attempts by key, to which several processes may append."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import time
from pathlib import Path
from typing import NamedTuple

from lm_eval_ext.errors import UserError
from lm_eval_ext.models.generation import Generation
from lm_eval_ext.store.appending import PATTERN, AttemptFile, FileSpan
from lm_eval_ext.store.encoding import decode_generation, encode_generation
from lm_eval_ext.store.key import AttemptKey, Context
from lm_eval_ext.store.lines import decode_line, read_lines

logger = logging.getLogger(__name__)

# How a line with an attempt begins; the key follows.
_BEGINNING = b'{"key":"'
_KEY_LENGTH = 32
# Longest time for which new attempts are not on the disk while others follow, in seconds.
_SYNC_SECONDS = 5.0

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)

Tally = dict[str, dict[str, int]]
"""What an attempt adds to the counts of a run, by the part of the run and the name of the count."""


class StoredAttempt(NamedTuple):
    """What a store holds of an attempt: text and record, and what it adds to the run's counts."""

    generation: Generation
    tally: Tally


class AttemptStore:
    """A folder of attempts.

    Attributes
    ----------
    n_appended
        Attempts this process has added.

    Raises
    ------
    UserError
        If there is something else of that name, it cannot be read or made, or it is empty and
        cannot be written.
    """

    def __init__(self, folder: str | Path) -> None:
        # lm-eval reads `store=2026` as a number and `store=true` as a truth value.
        if isinstance(folder, bool) or not str(folder).strip():
            raise UserError(f"store={folder}: give a folder for the attempts, as in store=attempts")
        self.folder = Path(str(folder))
        self.n_appended = 0
        self._file = AttemptFile(self.folder)
        self._spans: dict[str, FileSpan] = {}
        self._n_unsynced, self._synced_at = 0, time.monotonic()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._read_index()
        except OSError as error:
            raise UserError(f"store={folder}: {error.strerror}; give a folder") from error
        if not self._spans:  # what there is may be read where nothing can be written
            self.require_writable()

    def require_writable(self) -> None:
        """Make sure that a file can be made, before time goes into attempts.

        Raises
        ------
        UserError
            If not.
        """
        probe = self.folder / f".probe-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
            probe.unlink()
        except OSError as error:
            raise self._cannot_write(error) from error

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
                    span = FileSpan(path, line.offset, len(line.data))
                    self._spans.setdefault(key, span)

    def __len__(self) -> int:
        """Return the number of attempts."""
        return len(self._spans)

    def __contains__(self, key: AttemptKey) -> bool:
        return key.name in self._spans

    def get(self, key: AttemptKey) -> StoredAttempt | None:
        """Return an attempt, or None where it is missing or its line is damaged."""
        span = self._spans.get(key.name)
        if span is None:
            return None
        try:
            with span.path.open("rb") as file:
                file.seek(span.offset)
                value = decode_line(file.read(span.length))[2]
            return StoredAttempt(decode_generation(value["record"]), value["tally"])
        except (OSError, ValueError, KeyError, TypeError):
            del self._spans[key.name]
            logger.warning(
                "%s: the line at byte %d is damaged; its attempt is generated again",
                span.path,
                span.offset,
            )
            return None

    def append(self, context: Context, key: AttemptKey, attempt: StoredAttempt) -> None:
        """Add an attempt; it survives the process from now on.

        Raises
        ------
        UserError
            If it cannot be written, for lack of room or otherwise.
        """
        value = {
            **key._asdict(),
            "tally": attempt.tally,
            "record": encode_generation(attempt.generation),
        }
        if not self._n_unsynced:
            self._synced_at = time.monotonic()
        try:
            span = self._file.append(context, key.name, value)
        except OSError as error:
            raise self._cannot_write(error) from error
        self._spans.setdefault(key.name, span)
        self.n_appended += 1
        self._n_unsynced += 1

    def sync_if_due(self, rows: int) -> None:
        """Sync where this many attempts are not on the disk yet, or after five seconds.

        Raises
        ------
        UserError
            If it cannot be written.
        """
        late = time.monotonic() - self._synced_at >= _SYNC_SECONDS
        if self._n_unsynced >= rows or (late and self._n_unsynced):
            self.sync()

    def sync(self) -> None:
        """Wait until everything is on the disk, so that it survives the machine too.

        Raises
        ------
        UserError
            If it cannot be written.
        """
        if not self._n_unsynced:
            return
        try:
            self._file.sync()
        except OSError as error:
            raise self._cannot_write(error) from error
        self._n_unsynced, self._synced_at = 0, time.monotonic()

    def _cannot_write(self, error: OSError) -> UserError:
        what = f"store={self.folder}: {error.strerror}; "
        if not self._spans:
            remedy = "make room" if error.errno in _NO_ROOM else "give a folder that can be written"
            return UserError(what + remedy)
        what += f"the {len(self)} attempts written before are kept: "
        if error.errno in _NOT_ALLOWED:
            return UserError(what + "copy them to a folder that can be written, and give that one")
        remedy = "make room" if error.errno in _NO_ROOM else "see to that"
        return UserError(f"{what}{remedy}, and the same command resumes there")

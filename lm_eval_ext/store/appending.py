"""Append to a file of a store: whole lines or nothing, on the disk when that is asked for."""

from __future__ import annotations

import errno
import os
import secrets
import socket
import time
import weakref
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval_ext.store.key import Context
from lm_eval_ext.store.lines import encode_line

PATTERN = "attempts-*.jsonl"
"""Files of a store within its folder."""


def new_file_name() -> str:
    """Return a name no other process takes, on this machine or another; names sort by time."""
    host = "".join(c if c.isalnum() else "-" for c in socket.gethostname())[:32]
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    return f"attempts-{stamp}-{host}-{os.getpid()}-{secrets.token_hex(2)}.jsonl"


def sync_folder(folder: Path) -> None:
    """Wait until the names of a folder's files are on the disk."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system whose folders cannot be synced
            raise
    finally:
        os.close(fd)


class Place(NamedTuple):
    """Where a line is.

    Parameters
    ----------
    path
        File.
    offset, length
        Of its bytes, without the end of the line.
    """

    path: Path
    offset: int
    length: int


class WholeLines:
    """A file that takes a line at a time, and takes it back where there is no room.

    Parameters
    ----------
    path
        A file that is not there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        weakref.finalize(self, os.close, self._fd)

    def write(self, line: bytes) -> None:
        """Write a line, or raise an `OSError` and leave the file as it was."""
        rest = memoryview(line)
        try:
            while rest:  # one call, unless the disk is almost full
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            os.ftruncate(self._fd, self.size)
            raise
        self.size += len(line)

    def sync(self) -> None:
        """Wait until everything is on the disk."""
        os.fsync(self._fd)


class AttemptFile:
    """The file that one process appends to; it is made with the first line."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._contexts: set[str] = set()
        self._pid = os.getpid()
        self._file: WholeLines | None = None

    def append(self, context: Context, name: str, value: Any) -> Place:
        """Write an attempt, and return where.

        Parameters
        ----------
        context
            Its context, written before its first attempt.
        name
            Its key.
        value
            Its record, as plain JSON values.

        Raises
        ------
        OSError
            If it cannot be written; the file ends with the last whole line.
        """
        file = self._open()
        if context.name not in self._contexts:
            described = {"settings": context.settings, "about": context.about}
            file.write(encode_line("context", context.name, described))
            self._contexts.add(context.name)
        start = file.size
        file.write(encode_line("key", name, value))
        return Place(file.path, start, file.size - start - 1)

    def _open(self) -> WholeLines:
        if self._pid != os.getpid():  # a fork has a file of its own
            self._pid, self._file, self._contexts = os.getpid(), None, set()
        if self._file is None:
            self._file = WholeLines(self._folder / new_file_name())
            sync_folder(self._folder)
        return self._file

    def sync(self) -> None:
        """Wait until everything is on the disk."""
        if self._file is not None:
            self._file.sync()

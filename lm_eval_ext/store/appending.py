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


class FileSpan(NamedTuple):
    """The bytes of a line, without its end."""

    path: Path
    offset: int
    length: int


class AttemptFile:
    """The file that one process appends to; it is made with the first line."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pid: int | None = None

    def append(self, context: Context, name: str, value: Any) -> FileSpan:
        """Write the record of an attempt under its key, and its context before the first of them.

        Raises
        ------
        OSError
            If it cannot be written; the file ends with the last whole line.
        """
        if self._pid != os.getpid():  # a fork has a file of its own
            self._open()
        if context.name not in self._contexts:
            described = {"settings": context.settings, "about": context.about}
            self._write(encode_line("context", context.name, described))
            self._contexts.add(context.name)
        start = self._size
        self._write(encode_line("key", name, value))
        return FileSpan(self._path, start, self._size - start - 1)

    def _open(self) -> None:
        self._path, self._size = self._folder / new_file_name(), 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._fd = os.open(self._path, flags, 0o644)
        weakref.finalize(self, os.close, self._fd)
        self._contexts: set[str] = set()
        self._pid = os.getpid()
        sync_folder(self._folder)

    def _write(self, line: bytes) -> None:
        """Write a line, or raise an `OSError` and leave the file as it was."""
        rest = memoryview(line)
        try:
            while rest:  # one call, unless the disk is almost full
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        self._size += len(line)

    def sync(self) -> None:
        """Wait until everything is on the disk."""
        if self._pid is not None:
            os.fsync(self._fd)

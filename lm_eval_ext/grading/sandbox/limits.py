"""What a program may use, in numbers. Used inside and outside the sandbox."""

from __future__ import annotations

from typing import NamedTuple


class Limits(NamedTuple):
    """Limits of one program; the wall-clock limit is outside, see `session.Deadline`."""

    cpu_seconds: int = 65  # then the kernel kills it
    memory: int = 512 * 2**20  # address space in bytes, the interpreter included
    file_size: int = 8 * 2**20  # bytes of one file
    folder_size: int = 16 * 2**20  # bytes of the temporary folder that is a file system of its own
    open_files: int = 64
    processes: int = 64  # and threads; not counted for root, and mostly forbidden altogether


MAX_BYTES = 2**20  # bytes of one encoded value
MAX_NODES = 50_000
"""Numbers, strings, containers and so on in one value, those inside containers included."""

MAX_DEPTH = 60  # containers inside containers
MAX_PROGRAM = 200_000  # characters of a program's source

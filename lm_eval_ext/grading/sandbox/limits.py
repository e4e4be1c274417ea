"""What a program may use, in numbers. Used inside and outside the sandbox."""

from __future__ import annotations

from typing import NamedTuple


class Limits(NamedTuple):
    """Limits of one program.

    Parameters
    ----------
    cpu_seconds
        Processor time; the kernel kills the program at the end of it. The wall-clock limit is kept
        outside, see `lm_eval_ext.grading.sandbox.session.Deadline`.
    memory
        Address space in bytes, the interpreter included.
    file_size
        Size of one file in bytes.
    folder_size
        Size of the private temporary folder in bytes, where it is a file system of its own.
    open_files
        Open file descriptors.
    processes
        Processes and threads, where the kernel counts them (it does not for root) and no system
        call filter forbids them altogether.
    """

    cpu_seconds: int = 65
    memory: int = 512 * 2**20
    file_size: int = 8 * 2**20
    folder_size: int = 16 * 2**20
    open_files: int = 64
    processes: int = 64


MAX_BYTES = 2**20
"""Bytes of one encoded value."""

MAX_NODES = 50_000
"""Numbers, strings, containers and so on in one value, those inside containers included."""

MAX_DEPTH = 60
"""Containers inside containers."""

MAX_PROGRAM = 200_000
"""Characters of a program's source."""

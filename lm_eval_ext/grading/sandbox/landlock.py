"""Landlock: which paths a process may read and write, kept by the kernel for good.

It needs no privilege and no namespace, so it also holds in containers that forbid those. The
numbers are those of ``linux/landlock.h``.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable

from lm_eval_ext.grading.sandbox import kernel

_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_WRITE_FILE, _TRUNCATE = 1 << 1, 1 << 14
_OF_FILES = _READ_FILE | _WRITE_FILE | _TRUNCATE
# Remove and make folders and files; no links, devices, sockets or pipes.
_IN_FOLDER = (1 << 4) | (1 << 5) | (1 << 7) | (1 << 8)
_RIGHTS_OF_VERSION = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_BIND_AND_CONNECT_TCP = 3
_ABSTRACT_SOCKETS_AND_SIGNALS = 3


class _Ruleset(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("files", "network", "scoped"))


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def version() -> int:
    """Return the version of Landlock in this kernel, 0 where there is none."""
    ask_version = ctypes.c_uint32(1)
    try:
        return kernel.system_call("landlock_create_ruleset", None, ctypes.c_size_t(0), ask_version)
    except OSError:
        return 0


def restrict(readable: Iterable[str], writable: Iterable[str]) -> None:
    """Restrict this process, for good, to some files and folders with all below them.

    In writable folders files may be made, changed and removed too. `OSError` without Landlock.
    """
    found = version()
    if not found:
        raise OSError("no Landlock in this kernel")
    files = max(rights for first, rights in _RIGHTS_OF_VERSION.items() if first <= found)
    network = _BIND_AND_CONNECT_TCP if found >= 4 else 0
    scoped = _ABSTRACT_SOCKETS_AND_SIGNALS if found >= 6 else 0
    rules = _Ruleset(files, network, scoped)
    size = 8 if found < 4 else 16 if found < 6 else 24
    none = ctypes.c_uint32(0)
    ruleset = kernel.system_call(
        "landlock_create_ruleset", ctypes.byref(rules), ctypes.c_size_t(size), none
    )
    reading = _READ_FILE | _READ_DIR
    try:
        for path in readable:
            _allow(ruleset, path, reading & files)
        for path in writable:
            _allow(ruleset, path, (reading | _WRITE_FILE | _TRUNCATE | _IN_FOLDER) & files)
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        kernel.system_call("landlock_restrict_self", ruleset, ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    """Add one path; a path that is not there needs no rule."""
    try:
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not os.path.isdir(path):
            rights &= _OF_FILES
        rule = _PathRule(rights, folder)
        beneath = 1
        kernel.system_call(
            "landlock_add_rule", ruleset, beneath, ctypes.byref(rule), ctypes.c_uint32(0)
        )
    finally:
        os.close(folder)

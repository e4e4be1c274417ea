"""A file system of its own: the interpreter, its libraries, an empty temporary folder, no more.

Inside the sandbox, for the back end that works without bubblewrap.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterable

from lm_eval_ext.grading.sandbox import kernel
from lm_eval_ext.grading.sandbox.kernel import MS_BIND, MS_NODEV, MS_NOSUID, MS_RDONLY, MS_REMOUNT

DEVICES = ("null", "zero", "urandom", "random")
_KEPT_FLAGS = {os.ST_NOSUID: MS_NOSUID, os.ST_NODEV: MS_NODEV, os.ST_NOEXEC: 8}


def leave_namespaces() -> list[str]:
    """Enter new namespaces of every kind the kernel grants; return their names.

    The process becomes root of its own user namespace, which is the same user as before outside.
    `OSError` without a new user and mount namespace, which a private root needs.
    """
    user, group = os.geteuid(), os.getegid()
    kernel.unshare(kernel.CLONE["user"] | kernel.CLONE["mount"])
    maps = {"setgroups": "deny", "uid_map": f"0 {user} 1", "gid_map": f"0 {group} 1"}
    for name, line in maps.items():
        with open(f"/proc/self/{name}", "w") as file:
            file.write(line)
    entered = ["user", "mount"]
    for name in [name for name in kernel.CLONE if name not in entered]:
        with contextlib.suppress(OSError):  # not in this kernel, or switched off
            kernel.unshare(kernel.CLONE[name])
            entered.append(name)
    return entered


def build(visible: Iterable[str], masked: Iterable[str]) -> None:
    """Make the private root and move into it.

    It shows the ``visible`` files and folders, read-only, where they are outside, links as links,
    and the ``masked`` folders below those empty.
    """
    base = "/tmp"
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("sandbox", base, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=1m")
    os.mkdir(f"{base}/new")
    os.mkdir(f"{base}/old")
    kernel.system_call("pivot_root", base.encode(), f"{base}/old".encode())
    os.chdir("/")
    kernel.mount("sandbox", "/new", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=1m")
    for path in visible:
        _show(path)
    for path in masked:
        if os.path.isdir(f"/new{path}"):
            kernel.mount("masked", f"/new{path}", "tmpfs", MS_RDONLY, "mode=755,size=4k")
    os.mkdir("/new/dev")
    for name in DEVICES:
        _bind(f"/old/dev/{name}", f"/new/dev/{name}")
    os.mkdir("/new/tmp")
    kernel.mount("sandbox", "/new/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=700,size=64k")
    os.mkdir("/new/.old")
    kernel.system_call("pivot_root", b"/new", b"/new/.old")
    os.chdir("/")
    kernel.unmount("/.old")
    os.rmdir("/.old")
    kernel.mount("none", "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def _show(path: str) -> None:
    """Show one path of the old root at the same place in the new one, read-only."""
    source, target = f"/old{path}", f"/new{path}"
    if os.path.lexists(target):
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(source):
        os.symlink(os.readlink(source), target)
    elif os.path.exists(source):
        _bind(source, target)
        _make_read_only(target)


def _bind(source: str, target: str) -> None:
    """Show a file or folder at a second place."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        with open(target, "w"):
            pass
    kernel.mount(source, target, None, MS_BIND | kernel.MS_REC)


class _Attributes(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns")
    )


def _make_read_only(target: str) -> None:
    """Make a mount read-only with all mounts below it (Linux 5.12), or by itself before that."""
    here, recursive = -100, 0x8000
    wanted = _Attributes(1 | 2 | 4, 0, 0, 0)  # read-only, nosuid, nodev
    try:
        kernel.system_call(
            "mount_setattr",
            ctypes.c_int(here),
            target.encode(),
            ctypes.c_uint(recursive),
            ctypes.byref(wanted),
            ctypes.c_size_t(ctypes.sizeof(wanted)),
        )
    except OSError:
        kept = os.statvfs(target).f_flag
        flags = sum(mount for stat, mount in _KEPT_FLAGS.items() if kept & stat)
        kernel.mount("none", target, None, MS_REMOUNT | MS_BIND | MS_RDONLY | flags)

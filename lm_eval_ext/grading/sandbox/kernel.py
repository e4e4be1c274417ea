"""The system calls that Python has no function for. Inside the sandbox only; Linux only.

Made with ctypes rather than with packages from PyPI: this code runs in an isolated interpreter that
sees nothing but the standard library, and `pyseccomp` needs a shared libseccomp that many machines
lack.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal

CLONE = {
    "user": 0x10000000, "mount": 0x00020000, "pid": 0x20000000, "net": 0x40000000,
    "ipc": 0x08000000, "uts": 0x04000000, "cgroup": 0x02000000,
}  # fmt: skip
"""Kinds of namespaces and their flags."""

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND = 1, 2, 4, 32, 4096
MS_REC, MS_PRIVATE = 16384, 1 << 18
MNT_DETACH = 2

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP = 1, 4, 22
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 24, 38, 47

_NUMBERS = {  # of system calls: (x86_64, aarch64)
    "clone": (56, 220),
    "pivot_root": (155, 41),
    "capset": (126, 91),
    "mount_setattr": (442, 442),
    "landlock_create_ruleset": (444, 444),
    "landlock_add_rule": (445, 445),
    "landlock_restrict_self": (446, 446),
}
MACHINES = ("x86_64", "aarch64")

# PyDLL keeps the interpreter's lock, without which a child made by `clone` could not go on.
_libc = ctypes.PyDLL(None, use_errno=True)


def machine() -> int | None:
    """Return the column of this machine in tables of system calls, or None where there is none."""
    name = platform.machine()
    return MACHINES.index(name) if name in MACHINES else None


def checked(result: int, what: str) -> int:
    """Return the result of a call, or raise its error."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def system_call(name: str, *arguments: object) -> int:
    """Make a system call that the C library has no function for."""
    column = machine()
    if column is None:
        raise OSError(f"{name}: not known on {platform.machine()}")
    number = ctypes.c_long(_NUMBERS[name][column])
    return checked(_libc.syscall(number, *arguments), name)


def unshare(flags: int) -> None:
    """Leave the namespaces named by ``flags`` for new ones."""
    checked(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """Mount a file system, bind a folder or change a mount."""
    result = _libc.mount(
        source.encode(),
        target.encode(),
        None if kind is None else kind.encode(),
        ctypes.c_ulong(flags),
        data.encode(),
    )
    checked(result, f"mount {target}")


def unmount(target: str) -> None:
    """Take a mount out of sight, also while it is in use."""
    checked(_libc.umount2(target.encode(), MNT_DETACH), f"umount {target}")


def prctl(option: int, *arguments: int) -> None:
    """Change a property of this process."""
    padded = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:4]]
    checked(_libc.prctl(option, *padded), f"prctl {option}")


def die_with_parent() -> None:
    """Ask to be killed when the parent ends."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def never_gain_capabilities() -> None:
    """Let no program that this process or its children execute gain a privilege; keep our own."""
    for capability in range(64):
        with contextlib.suppress(OSError):  # not one of this kernel, or none that is ours to drop
            prctl(PR_CAPBSET_DROP, capability)


def drop_capabilities() -> None:
    """Give up every privilege, for good."""
    prctl(PR_CAP_AMBIENT, 4)  # clear all
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    nothing = (ctypes.c_uint32 * 6)()
    system_call("capset", header, nothing)


def fork_into(namespaces: int) -> int:
    """Fork with the child in new namespaces; return as `os.fork` does.

    Only for a process with a single thread: there is no lock that another thread could hold, so the
    interpreter's own work after a fork is left out; it would cost as much as the fork.
    """
    if not namespaces and machine() is None:
        return os.fork()
    zero = ctypes.c_ulong(0)
    flags = ctypes.c_ulong(namespaces | signal.SIGCHLD)
    return system_call("clone", flags, zero, zero, zero, zero)

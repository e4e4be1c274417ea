"""A filter of system calls: what a pure computation in Python needs, and nothing else.

The filter is a list of what is allowed, so a system call that a newer kernel brings is refused too.
Refused with an error, not with death, so that a program which asks (``os.fork()``) gets an ordinary
`OSError`. No new process or thread, no signal to another process, no `exec`, no tracing, no
mounting, no shared memory; of sockets only a pair that is connected to each other and to nothing
else, which is what an event loop of asyncio makes for itself.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from functools import lru_cache

from lm_eval_ext.grading.sandbox import kernel

# Allowed: number on x86_64 and on aarch64, None where the machine does not have it.
_ALLOWED: dict[str, tuple[int | None, int | None]] = {
    # memory
    "brk": (12, 214), "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215),
    "mremap": (25, 216), "madvise": (28, 233),
    # open files
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67),
    "pwrite64": (18, 68), "lseek": (8, 62), "close": (3, 57), "close_range": (436, 436),
    "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24), "fcntl": (72, 25), "flock": (73, 32),
    "fstat": (5, 80), "fstatfs": (138, 44), "fsync": (74, 82), "fdatasync": (75, 83),
    "ftruncate": (77, 46), "getdents64": (217, 61), "poll": (7, None), "ppoll": (271, 73),
    "select": (23, None), "pselect6": (270, 72), "pipe": (22, None), "pipe2": (293, 59),
    # paths; which ones is decided by the private root and by Landlock
    "open": (2, None), "openat": (257, 56), "stat": (4, None), "lstat": (6, None),
    "newfstatat": (262, 79), "statx": (332, 291), "statfs": (137, 43), "access": (21, None),
    "faccessat": (269, 48), "faccessat2": (439, 439), "readlink": (89, None),
    "readlinkat": (267, 78), "getcwd": (79, 17), "chdir": (80, 49), "fchdir": (81, 50),
    "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None), "unlink": (87, None),
    "unlinkat": (263, 35), "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276),
    "truncate": (76, 45), "umask": (95, 166), "chmod": (90, None), "fchmod": (91, 52),
    "fchmodat": (268, 53), "utimensat": (280, 88),
    # time, signals to itself, and what a process may know of itself
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101), "gettimeofday": (96, 169), "time": (201, None), "times": (100, 153),
    "alarm": (37, None), "getitimer": (36, 102), "setitimer": (38, 103), "pause": (34, None),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigpending": (127, 136),
    "rt_sigtimedwait": (128, 137), "rt_sigsuspend": (130, 133), "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132), "restart_syscall": (219, 128), "futex": (202, 98),
    "set_robust_list": (273, 99), "rseq": (334, 293), "membarrier": (324, 283),
    "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "getcpu": (309, 168),
    "getpid": (39, 172), "getppid": (110, 173), "gettid": (186, 178), "getuid": (102, 174),
    "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177), "getgroups": (115, 158),
    "getpgid": (121, 155), "getpgrp": (111, None), "getsid": (124, 156), "getpriority": (140, 141),
    "getrlimit": (97, 163), "getrusage": (98, 165), "sysinfo": (99, 179), "uname": (63, 160),
    "getrandom": (318, 278), "exit": (60, 93), "exit_group": (231, 94),
}  # fmt: skip
# Allowed when the first argument is this process: signals and limits of others are not.
_OWN_PROCESS = {"kill": (62, 129), "tgkill": (234, 131)}
_LIMITS_OF_SELF = (302, 261)  # prlimit64 with process 0
_PAIR = (53, 199)  # socketpair of the family AF_UNIX
_CONTROL = (16, 29)  # ioctl, only to make a read return at once; otherwise nothing is a terminal
_FIONBIO = 0x5421
_NOT_THERE = {"clone3": (435, 435)}  # so that the C library falls back on `clone`, refused

_AUDIT_ARCHITECTURE = (0xC000003E, 0xC00000B7)
_X32_BIT = 0x40000000
_LOAD, _EQUAL, _NOT_LESS, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000  # the last with an error's number
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


def _answer(number: int | None, action: int) -> bytes:
    """Return the steps that answer one system call."""
    if number is None:
        return b""
    return _step(_EQUAL, number, 0, 1) + _step(_RETURN, action)


def _with_argument(
    number: int, value: int, *, place: int = 0, otherwise: int = errno.EPERM
) -> bytes:
    """Return the steps that allow one system call with one value of the argument at a place."""
    argument = _ARGUMENTS_AT + 8 * place
    return b"".join(
        (
            _step(_EQUAL, number, 0, 6),
            _step(_LOAD, argument),
            _step(_EQUAL, value, 0, 3),
            _step(_LOAD, argument + 4),
            _step(_EQUAL, 0, 0, 1),
            _step(_RETURN, _ALLOW),
            _step(_RETURN, _REFUSE | otherwise),
        )
    )


@lru_cache(maxsize=1)  # made before the fork, it serves every process that is number 1
def program(column: int, process: int) -> bytes:
    """Return the filter for 0, x86_64, or 1, aarch64, and the process number as it sees it."""
    steps = [
        _step(_LOAD, _ARCHITECTURE_AT),
        _step(_EQUAL, _AUDIT_ARCHITECTURE[column], 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER_AT),
        _step(_NOT_LESS, _X32_BIT, 0, 1),
        _step(_RETURN, _KILL),
    ]
    steps += [_answer(numbers[column], _ALLOW) for numbers in _ALLOWED.values()]
    steps += [_with_argument(numbers[column], process) for numbers in _OWN_PROCESS.values()]
    steps.append(_with_argument(_LIMITS_OF_SELF[column], 0))
    steps.append(_with_argument(_PAIR[column], socket.AF_UNIX))
    steps.append(_with_argument(_CONTROL[column], _FIONBIO, place=1, otherwise=errno.ENOTTY))
    steps += [_answer(n[column], _REFUSE | errno.ENOSYS) for n in _NOT_THERE.values()]
    steps.append(_step(_RETURN, _REFUSE | errno.EPERM))
    return b"".join(steps)


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def install() -> None:
    """Put the filter on this process, for good; `OSError` where there is none for it."""
    column = kernel.machine()
    if column is None:
        raise OSError("no table of system calls for this machine")
    steps = program(column, os.getpid())
    packed = _Filter(len(steps) // 8, steps)
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    mode_filter = 2
    kernel.prctl(kernel.PR_SET_SECCOMP, mode_filter, ctypes.addressof(packed))

"""What the process of one program gives up before it runs the program. Inside the sandbox."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lm_eval_ext.grading.sandbox import kernel, landlock, seccomp
from lm_eval_ext.grading.sandbox.limits import Limits
from lm_eval_ext.grading.sandbox.private_root import DEVICES


class Surroundings(NamedTuple):
    """Where a program runs."""

    readable: tuple[str, ...]
    folder: str  # temporary; it can be written only where the process has its own mounts
    own_mounts: bool  # has a mount namespace, so that the folder can be a file system of its own
    limits: Limits


def _private_folder(around: Surroundings) -> None:
    if not around.own_mounts:
        raise OSError("no mount namespace of its own")
    size = f"mode=700,size={around.limits.folder_size},nr_inodes=1000"
    kernel.mount("program", around.folder, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, size)


def _output(around: Surroundings) -> None:
    """Send what is printed to a file without a name, which the limit on files keeps short."""
    path = f"{around.folder}/output"
    output = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.unlink(path)
    for number in (1, 2):
        os.dup2(output, number)
    os.close(output)


def _limits(around: Surroundings) -> None:
    limits = around.limits
    for kind, value in (
        (resource.RLIMIT_CPU, limits.cpu_seconds),
        (resource.RLIMIT_AS, limits.memory),
        (resource.RLIMIT_FSIZE, limits.file_size),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_NPROC, limits.processes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        highest = resource.getrlimit(kind)[1]
        value = value if highest == resource.RLIM_INFINITY else min(value, highest)
        resource.setrlimit(kind, (value, value))


def _no_capabilities(around: Surroundings) -> None:
    kernel.drop_capabilities()
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)


def _landlock(around: Surroundings) -> None:
    devices = [f"/dev/{name}" for name in DEVICES]
    # Nothing bounds a folder that is no file system of its own, so none is given.
    folder = (around.folder,) if around.own_mounts else ()
    landlock.restrict((*around.readable, *devices), (*folder, "/dev/null"))


STEPS: dict[str, Callable[[Surroundings], None]] = {
    "folder": _private_folder,
    "output": _output,
    "limits": _limits,
    "no new privileges": lambda around: kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1),
    "no capabilities": _no_capabilities,
    "landlock": _landlock,
    "seccomp": lambda around: seccomp.install(),
}
"""Name -> what is done, in order: each step may take away what the ones before it needed."""


def impossible_steps(around: Surroundings, without: Sequence[str]) -> dict[str, str]:
    """Take every step that this machine allows; return those it does not, with the reason."""
    missing = dict.fromkeys(without, "left out")
    for name, step in STEPS.items():
        try:
            if name not in missing:
                step(around)
        except OSError as error:
            missing[name] = str(error)
    return missing


def confine(around: Surroundings, steps: tuple[str, ...]) -> None:
    """Take the given steps; a step that fails is an error, so no program runs with fewer."""
    for name in steps:
        STEPS[name](around)
    os.chdir(around.folder)

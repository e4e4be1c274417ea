"""The process that waits inside the sandbox and forks a fresh process for every program.

It runs none of a program's code. Its messages: it gets its settings as JSON and answers with the
layers that hold; then each request is one byte with two sockets. The first is the *channel*, on
which the new process serves (see `lm_eval_ext.grading.sandbox.candidate`). The second is the
*lease*: when the outside shuts it down, or ends, the program is killed with all it started, and its
exit status is the last thing written there. When the outside closes the control socket, everything
ends.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import random
import select
import selectors
import shutil
import signal
import socket
import struct
import sys
import tempfile
from typing import Any, NamedTuple

from lm_eval_ext.grading.sandbox import candidate, kernel, landlock, private_root, seccomp
from lm_eval_ext.grading.sandbox.confinement import STEPS, Surroundings, confine, impossible_steps
from lm_eval_ext.grading.sandbox.limits import Limits

STATUS = struct.Struct("<i")
NOT_CONFINED = 125  # exit status of a program's process that could not take a step it should

# What programs import most, so that each finds it loaded.
_PRELOADED = """
abc array bisect calendar cmath collections collections.abc copy dataclasses datetime decimal enum
fractions functools heapq itertools json math operator queue random re statistics string sys
textwrap threading time typing unicodedata
"""
_OWN_NAMESPACES = kernel.CLONE["pid"] | kernel.CLONE["mount"]
_SEED = 0
_MAX_DYING = 32


def main(control_number: int) -> None:
    """Set the sandbox up and serve until the control socket closes."""
    control = socket.socket(fileno=control_number)
    settings = json.loads(control.recv(2**16))
    for name in _PRELOADED.split():
        importlib.import_module(name)
    # Waiting for files by `poll`, asyncio needs fewer system calls.
    selectors.DefaultSelector = selectors.PollSelector  # type: ignore[misc, assignment]
    entered: list[str] = []
    if settings["back_end"] == "namespaces":
        entered = private_root.leave_namespaces()
        _continue_in_child(control)
        private_root.build(settings["visible"], settings["masked"])
    elif settings["back_end"] == "bubblewrap":
        entered = list(kernel.CLONE)
    kernel.never_gain_capabilities()
    nothing = os.open("/dev/null", os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    # Without namespaces around it, this process may be root on the machine's own mounts.
    spawner = _Spawner(settings, _OWN_NAMESPACES if entered else 0)
    report = spawner.try_out(settings["without"]) | {"namespaces": entered}
    control.send(json.dumps(report).encode())
    os.dup2(nothing, 2)
    column = kernel.machine()
    if column is not None:
        seccomp.program(column, 1)
    gc.collect()
    gc.freeze()
    serve(control, spawner)


def _continue_in_child(control: socket.socket) -> None:
    """Continue in the first process of the new process namespace; this one waits for it."""
    process = os.fork()
    if process:
        control.close()
        os.closerange(0, 3)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) & 0xFF)
    kernel.die_with_parent()
    os.setsid()


class _Spawner:
    """Makes the processes of programs."""

    def __init__(self, settings: dict[str, Any], namespaces: int) -> None:
        self.readable = (*settings["visible"], "/etc/localtime")
        self.folder = settings["folder"]
        self.limits = Limits(**settings["limits"])
        self.namespaces = namespaces
        self.steps = tuple(STEPS)

    def try_out(self, without: list[str]) -> dict[str, Any]:
        """Find out, in processes made for it, what can be had here."""
        reading, writing = os.pipe()
        around = self.surroundings()
        try:
            process = kernel.fork_into(self.namespaces)
        except OSError:  # not granted
            self.namespaces = 0
            around = self.surroundings()
            process = kernel.fork_into(0)
        if process == 0:
            os.close(reading)
            os.write(writing, json.dumps(impossible_steps(around, without)).encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as file:
            missing = json.loads(file.read() or '{"seccomp": "the test process died"}')
        os.waitpid(process, 0)
        self.clean(around)
        self.steps = tuple(step for step in STEPS if step not in missing)
        return {
            "missing": missing,
            "own_namespaces": bool(self.namespaces),
            "landlock_version": landlock.version(),
        }

    def surroundings(self) -> Surroundings:
        """Return where the next program runs; its folder is made here if it cannot be mounted."""
        own = bool(self.namespaces)
        folder = self.folder if own else tempfile.mkdtemp(prefix="program-", dir=self.folder)
        return Surroundings(self.readable, folder, own, self.limits)

    def clean(self, around: Surroundings) -> None:
        """Remove what a program left; a file system of its own is gone with its process."""
        if not around.own_mounts:
            shutil.rmtree(around.folder, ignore_errors=True)

    def spawn(self, channel: socket.socket, around: Surroundings) -> int:
        """Start a process that serves on the channel; return its number."""
        process = kernel.fork_into(self.namespaces)
        if process:
            return process
        try:
            _become_program(channel, around, self.steps)
        except BaseException:
            os._exit(NOT_CONFINED)
        candidate.serve(3)
        os._exit(0)


def _become_program(channel: socket.socket, around: Surroundings, steps: tuple[str, ...]) -> None:
    """Let go of everything but the channel, and confine this process."""
    kernel.die_with_parent()
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(channel.fileno(), 3)
    os.closerange(4, 2**16)
    os.environ.clear()
    if not around.own_mounts:
        os.environ["TMPDIR"] = around.folder
    sys.argv[:] = [""]
    confine(around, steps)
    # Verdicts must not change from run to run: every program sees the same random numbers.
    random.seed(_SEED)


class _Running(NamedTuple):
    """A program's process."""

    process: int
    lease: socket.socket
    around: Surroundings


def serve(control: socket.socket, spawner: _Spawner) -> None:
    """Fork a process per request; kill it when its lease ends."""
    leased: dict[int, _Running] = {}
    dying: list[_Running] = []
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    poller = select.poll()
    for readable in (control.fileno(), woken):
        poller.register(readable, select.POLLIN)
    while True:
        for number, _ in poller.poll():
            if number == woken:
                os.read(woken, 4096)
            elif number != control.fileno():
                poller.unregister(number)
                _kill(leased[number].process)
                dying.append(leased.pop(number))
            elif (running := _start(control, spawner)) is not None:
                leased[running.lease.fileno()] = running
                poller.register(running.lease, select.POLLIN)
            else:
                for running in leased.values():
                    running.lease.close()  # how they end now says nothing about the programs
                    _kill(running.process)
                _bury([*leased.values(), *dying], spawner, wait=True)
                return
        # A killed process takes a while to end; the next need not wait for it, unless many do.
        dying = _bury(dying, spawner, wait=len(dying) > _MAX_DYING)


def _start(control: socket.socket, spawner: _Spawner) -> _Running | None:
    """Start the process that a request asks for; None at the end of requests."""
    message, numbers, _, _ = socket.recv_fds(control, 1, 2)
    if not message:
        return None
    channel, lease = (socket.socket(fileno=number) for number in numbers)
    around = spawner.surroundings()
    with channel:
        return _Running(spawner.spawn(channel, around), lease, around)


def _kill(process: int) -> None:
    try:
        os.killpg(process, signal.SIGKILL)  # where nothing keeps it from forking
    except ProcessLookupError:
        os.kill(process, signal.SIGKILL)


def _bury(dying: list[_Running], spawner: _Spawner, wait: bool) -> list[_Running]:
    """Clean up after the processes that have ended; return the others."""
    left = []
    for running in dying:
        ended, status = os.waitpid(running.process, 0 if wait else os.WNOHANG)
        if not ended:
            left.append(running)
            continue
        spawner.clean(running.around)
        with contextlib.suppress(OSError), running.lease:  # perhaps nobody waits for it
            running.lease.send(STATUS.pack(status))
    return left

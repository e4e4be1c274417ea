"""Which layers of isolation hold on this machine, found out by attacking them.

A program of our own is run as if a model had written it. It tries what must not work, against
targets set up for it: a file, a listening socket, this very process. Nothing is concluded from
versions or settings.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval_ext.grading.sandbox.launch import Zygote, interpreter
from lm_eval_ext.grading.sandbox.limits import Limits
from lm_eval_ext.grading.sandbox.session import (
    Deadline,
    ProgramError,
    ProgramGone,
    SandboxLost,
    Session,
)

_SECONDS = 20.0
_ATTACKS = """
import os, socket, threading

def read_file(path):
    with open(path) as file:
        return file.read()

def write_file(path):
    with open(path, "w") as file:
        file.write("x")

def connect(port):
    with socket.create_connection(("127.0.0.1", port), 2) as there:
        there.sendall(b"x")

def unix(path):
    with socket.socket(socket.AF_UNIX) as there:
        there.connect(path)

def signal(process):
    if process == os.getpid():  # in a container, the number outside may be 1 as well
        raise ProcessLookupError
    os.kill(process, 0)

def fork():
    if os.fork() == 0:
        os._exit(0)
    os.wait()

def many_processes(limit):
    import time
    for _ in range(limit):
        if os.fork() == 0:
            time.sleep(60)

def thread():
    threading.Thread(target=int).start()

def execute(path):
    os.execv(path, [path, "-c", "pass"])

def variables():
    return sorted(name for name in os.environ if name not in ("LC_CTYPE", "TMPDIR"))

def processes():
    return [name for name in os.listdir("/proc") if name.isdigit()]

def allocate(size):
    return len(bytearray(size))

def big_file(size):
    with open("big", "wb") as file:
        for _ in range(size >> 20):
            file.write(bytes(2**20))

def temporary(text):
    with open("note", "w") as file:
        file.write(text)
    with open("note") as file:
        return file.read()

def privileges():
    import ctypes
    return ctypes.CDLL(None).prctl(39, 0, 0, 0, 0)
"""


class Layer(NamedTuple):
    """One finding: what a program must not do, or how it is kept from it, and whether it is."""

    name: str
    holds: bool
    detail: str  # what happened when it was tried
    needed: bool = False  # whether no program is run without it


_Attack = tuple[str, str, tuple[Any, ...]]
"""The layer that it tries, the function in `_ATTACKS`, and its arguments."""


@contextlib.contextmanager
def _needed(limits: Limits) -> Iterator[list[_Attack]]:
    """Set up targets, open to every user; give the attacks that must fail before a program runs."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o777)
        secret = folder / "secret"
        secret.write_text("secret")
        secret.chmod(0o644)
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(str(folder / "listening"))
        unix.listen()
        (folder / "listening").chmod(0o777)
        yield [
            ("files outside cannot be read", "read_file", (str(secret),)),
            ("files outside cannot be written", "write_file", (str(folder / "written"),)),
            ("no network", "connect", (tcp.getsockname()[1],)),
            ("no Unix sockets", "unix", (str(folder / "listening"),)),
            ("no signals to other processes", "signal", (os.getpid(),)),
            ("no crowd of processes", "many_processes", (limits.processes + 1,)),
            ("memory has a limit", "allocate", (2 * limits.memory,)),
        ]


def shortfall(zygote: Zygote) -> str:
    """Name the needed layers that do not hold, empty where all do."""
    with _needed(zygote.limits) as attacks:
        layers = _try(zygote, attacks, needed=True)
    names = [layer.name for layer in layers if not layer.holds]
    return f"this does not hold: {', '.join(names)}" if names else ""


def examine(zygote: Zygote) -> list[Layer]:
    """Attack the sandbox in every way and return what held, the needed layers first."""
    with _needed(zygote.limits) as attacks:
        found = _try(zygote, attacks, needed=True)
    attacks = [
        ("no new processes", "fork", ()),
        ("no threads", "thread", ()),
        ("no other programs", "execute", (interpreter(),)),
        ("files have a limit", "big_file", (8 * zygote.limits.file_size,)),
    ]
    for attack in attacks:  # each may end its process
        found += _try(zygote, [attack], needed=False)
    return found + _observed(zygote) + _reported(zygote)


def _try(zygote: Zygote, attacks: list[_Attack], needed: bool) -> list[Layer]:
    """Make attacks, one after the other in one process."""
    try:
        with Session(*zygote.program(), Deadline(_SECONDS)) as session:
            functions = session.load(_ATTACKS, [function for _, function, _ in attacks])
            return [
                Layer(name, *_outcome(functions[function], arguments), needed)
                for name, function, arguments in attacks
            ]
    except (ProgramError, ProgramGone, SandboxLost) as error:
        return [Layer(name, False, f"not tried: {error!r}", needed) for name, _, _ in attacks]


def _outcome(attack: Any, arguments: tuple[Any, ...]) -> tuple[bool, str]:
    """Make one attack; return whether it failed, and how."""
    try:
        attack(*arguments)
    except ProgramError as error:
        return True, str(error)
    except ProgramGone as gone:
        # A process that became another program is gone as well, but was not kept from it.
        return str(gone) == "killed", str(gone)
    return False, "it worked"


def _observed(zygote: Zygote) -> list[Layer]:
    """Let a program say what it sees."""
    try:
        with Session(*zygote.program(), Deadline(_SECONDS)) as session:
            see = session.load(_ATTACKS, ["variables", "processes", "temporary", "privileges"])
            variables = see["variables"]()
            listed, how = _outcome(see["processes"], ())
            shut, why = _outcome(see["temporary"], ("x",))
            barred = "seccomp" not in zygote.report["missing"] or see["privileges"]() == 1
            return [
                Layer("empty environment", not variables, ", ".join(variables) or "no variable"),
                Layer("no list of processes", listed, how),
                Layer("a temporary folder", not shut, "none: " + why if shut else "it can be used"),
                Layer("no new privileges", barred, "asked of the kernel"),
            ]
    except (ProgramError, ProgramGone, SandboxLost) as error:
        return [Layer("a program can work", False, repr(error))]


def _reported(zygote: Zygote) -> list[Layer]:
    """Name the mechanisms that the sandbox set up, each of which fails loudly where it cannot."""
    report = zygote.report
    missing, spaces, own = report["missing"], report["namespaces"], report["own_namespaces"]
    found = [
        Layer("namespaces", bool(spaces), ", ".join(spaces) or "none"),
        Layer("namespaces per program", bool(own), "pid, mount" if own else "none"),
    ]
    steps = {
        "seccomp": "allows a list of system calls",
        "landlock": f"version {report['landlock_version']}",
        "folder": "a file system of its own, limited in size",
        "limits": "processor time, memory, file size, files, processes",
        "no capabilities": "all dropped",
    }
    return found + [Layer(n, n not in missing, missing.get(n, good)) for n, good in steps.items()]

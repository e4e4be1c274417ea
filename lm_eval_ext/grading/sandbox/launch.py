"""Start the process that waits inside the sandbox and show it what it needs. Runs outside."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval_ext.grading.sandbox.limits import Limits
from lm_eval_ext.grading.sandbox.session import SandboxLost

CODE_FOLDER = Path(__file__).resolve().parent
"""The only folder of ours that the sandbox sees, and loads its modules from."""

BACK_ENDS = ("bubblewrap", "namespaces", "process")
"""Ways to isolate, the first that works is used: bubblewrap; the same namespaces entered by our own
code; no namespaces, only what a process can give up by itself (Landlock, seccomp, limits)."""

_START_SECONDS = 30.0
_NOBODY = 65534
_BOOTSTRAP = """
import sys, types
sys.path[:] = filter(None, sys.path)  # nothing is imported from the working directory
folder, control = sys.argv[1:]
for name in ("lm_eval_ext", "lm_eval_ext.grading", "lm_eval_ext.grading.sandbox"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = []
sys.modules[name].__path__ = [folder]
from lm_eval_ext.grading.sandbox.zygote import main
main(int(control))
"""

_LOADER_FOLDERS = ("/lib", "/lib32", "/lib64", "/usr/lib32", "/usr/lib64", "/etc/ld.so.cache")
_LOOK = """
import json, os, sysconfig
for name in "ctypes hashlib ssl sqlite3 bz2 lzma zlib math decimal array".split():
    try:
        __import__(name)
    except ImportError:
        pass
with open("/proc/self/maps") as maps:
    mapped = sorted({line.split(maxsplit=5)[5].strip() for line in maps if ".so" in line})
print(json.dumps({"stdlib": [os.path.dirname(os.__file__), sysconfig.get_path("platstdlib")],
                  "libraries": mapped}))
"""


class LaunchError(RuntimeError):
    """A back end that does not work on this machine, and why."""


class Zygote:
    """The waiting process, and what it found out about its sandbox.

    ``without`` names `confinement.STEPS` to leave out, to see what the others hold by themselves.
    `LaunchError` if this back end does not work here.
    """

    def __init__(self, back_end: str, limits: Limits, without: Sequence[str] = ()) -> None:
        self.back_end, self.limits = back_end, limits
        self._scratch: str | None = None
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                self._process = self._start(theirs.fileno())
            self.report = self._greet(without)
        except BaseException:
            self.close()
            raise

    @property
    def reusable(self) -> bool:
        """Whether a program can leave nothing behind, so that the next may follow it here."""
        return bool(self.report["own_namespaces"]) or not (
            {"seccomp", "landlock"} & set(self.report["missing"])
        )

    def program(self) -> tuple[socket.socket, socket.socket]:
        """Start a process for one program; return its channel and its lease, or `SandboxLost`."""
        channel, their_channel = socket.socketpair()
        lease, their_lease = socket.socketpair()
        with their_channel, their_lease:
            numbers = [their_channel.fileno(), their_lease.fileno()]
            try:
                socket.send_fds(self._control, [b"r"], numbers)
            except OSError:
                channel.close()
                lease.close()
                raise SandboxLost from None
        return channel, lease

    def close(self) -> None:
        """End the waiting process and every program in its sandbox."""
        self._control.close()
        process = getattr(self, "_process", None)
        if process is not None:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stderr.close()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def forget(self) -> None:
        """Let go of the waiting process in a forked copy of this one; it belongs to the parent."""
        self._control.close()

    def _start(self, control: int) -> subprocess.Popen[bytes]:
        # Not `-I`, which ignores the environment: all that is there is what we put there.
        command = [interpreter(), "-s", "-S", "-B", "-c", _BOOTSTRAP]
        command += [str(CODE_FOLDER), str(control)]
        if self.back_end == "bubblewrap":
            command = _bubblewrap() + command
        as_nobody: dict[str, Any] = {}
        if os.geteuid() == 0 and readable_by_everyone():
            as_nobody = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}
        if self.back_end == "process":
            self._scratch = tempfile.mkdtemp(prefix="lm-eval-ext-sandbox-")
            if as_nobody:
                os.chown(self._scratch, _NOBODY, _NOBODY)
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=_environment(),
                cwd="/",
                pass_fds=[control],
                start_new_session=True,
                **as_nobody,
            )
        except OSError as error:
            raise LaunchError(f"{self.back_end}: {error}") from None

    def _greet(self, without: Sequence[str]) -> dict[str, Any]:
        shown = visible()
        settings = {
            "back_end": self.back_end,
            "visible": shown.shown,
            "masked": shown.masked,
            "folder": self._scratch or "/tmp",
            "without": list(without),
            "limits": self.limits._asdict(),
        }
        self._control.settimeout(_START_SECONDS)
        answer = b""
        with contextlib.suppress(OSError):
            self._control.send(json.dumps(settings).encode())
            answer = self._control.recv(2**16)
        self._control.settimeout(None)
        if not answer:
            self._control.close()
            self._process.kill()
            assert self._process.stderr is not None
            said = self._process.stderr.read(10_000).decode(errors="replace").strip()
            last = said.splitlines()[-1] if said else "ended without a word"
            raise LaunchError(f"{self.back_end}: {last}")
        return dict(json.loads(answer))


def _environment() -> dict[str, str]:
    """Return the seed of the hashes of strings: fixed, as verdicts must not change, or ours."""
    seed = os.environ.get("PYTHONHASHSEED", "")
    known = re.fullmatch("[0-9]{1,10}", seed) and int(seed) < 2**32
    return {"PYTHONHASHSEED": seed if known else "0"}


def _bubblewrap() -> list[str]:
    """Return the beginning of a command line that runs the rest in bubblewrap."""
    program = shutil.which("bwrap")
    if program is None:
        raise LaunchError("bubblewrap: no `bwrap` on PATH")
    # No --die-with-parent: the kernel would see the *thread* that started it end. The waiting
    # process ends by itself when the control socket closes.
    command = [program, "--unshare-all", "--new-session", "--clearenv"]
    for name, value in _environment().items():
        command += ["--setenv", name, value]
    for capability in ("CAP_SYS_ADMIN", "CAP_SETPCAP"):  # for each program's own namespaces
        command += ["--cap-add", capability]
    command += ["--dev", "/dev", "--tmpfs", "/tmp"]  # first: what is shown may be below them
    shown = visible()
    for path in (*shown.shown, str(CODE_FOLDER)):
        if os.path.islink(path):
            command += ["--symlink", os.readlink(path), path]
        else:
            command += ["--ro-bind", path, path]
    for path in shown.masked:
        command += ["--tmpfs", path, "--remount-ro", path]
    return [*command, "--remount-ro", "/", "--chdir", "/"]


class Visible(NamedTuple):
    """Paths for the sandbox: shown read-only (links as links), and folders below shown empty."""

    shown: tuple[str, ...]
    masked: tuple[str, ...]


def interpreter() -> str:
    """Return the Python that runs in the sandbox: this one, without its virtual environment."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


@lru_cache(maxsize=1)
def visible() -> Visible:
    """Find the interpreter, its standard library and the shared libraries they load.

    Asks a bare interpreter rather than this process, which may have loaded anything.
    """
    command = [interpreter(), "-I", "-S", "-c", _LOOK]
    printed = subprocess.run(command, capture_output=True, check=True, env={}, timeout=60).stdout
    found = json.loads(printed)
    stdlib = list(dict.fromkeys(os.path.realpath(path) for path in found["stdlib"]))
    shown = [path for path in _LOADER_FOLDERS if os.path.lexists(path)]
    for library in found["libraries"]:
        folder = os.path.dirname(library)
        # Elsewhere than in the system's folders, a library may lie beside anything.
        shown.append(folder if folder.startswith(("/usr/lib", "/lib")) else library)
    shown += [interpreter(), *stdlib]
    masked = [f"{path}/{name}" for path in stdlib for name in ("site-packages", "dist-packages")]
    return Visible(_outermost(shown), tuple(path for path in masked if os.path.isdir(path)))


def _outermost(paths: list[str]) -> tuple[str, ...]:
    """Drop the paths that lie below others, and doubles; the shorter come first."""
    kept: list[str] = []
    for path in sorted(set(paths), key=len):
        if not any(path.startswith(f"{folder}/") for folder in kept if not os.path.islink(folder)):
            kept.append(path)
    return tuple(kept)


def readable_by_everyone() -> bool:
    """Tell whether a user without any rights can run the interpreter and load our modules."""
    needed = [interpreter(), *visible().shown, str(CODE_FOLDER / "zygote.py")]
    places = [Path(os.path.realpath(path)) for path in needed]
    folders = {folder for place in places for folder in place.parents}
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in folders) and all(
        place.stat().st_mode & stat.S_IROTH for place in places
    )

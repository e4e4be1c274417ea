"""What the isolated interpreter needs to see of this machine. Outside the sandbox."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

CODE_FOLDER = Path(__file__).resolve().parent
"""The only folder of ours that the sandbox sees, and loads its modules from."""

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


class Visible(NamedTuple):
    """Paths for the sandbox.

    Parameters
    ----------
    shown
        Files and folders to show, read-only; symbolic links as links.
    masked
        Folders below them to show empty.
    """

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
    return all(_open_to_others(path) for path in needed)


def _open_to_others(path: str) -> bool:
    """Tell whether everyone may read a path and pass through the folders above it."""
    place = Path(os.path.realpath(path))
    passable = all(folder.stat().st_mode & stat.S_IXOTH for folder in place.parents)
    return passable and bool(place.stat().st_mode & stat.S_IROTH)

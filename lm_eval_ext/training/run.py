"""What the training commands share: a folder with its settings, a lock and a manifest.

Nothing is written before all settings are checked, and files appear whole or not at all, so a
command that was wrong leaves no run in the folder, and one that was killed resumes it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import logging
import os
import platform
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import lm_eval_ext
from lm_eval_ext.errors import UserError

logger = logging.getLogger(__name__)

SETTINGS = "settings.json"
LOCK = ".lock"
_RENAMED = {"target": "pretrained", "prompts": "problems", "num_prompts": "num_problems"}
"""Settings as folders of the last release call them."""

_PACKAGES = ("torch", "transformers", "accelerate", "trl", "peft", "lm_eval", "safetensors")


class RunFolder:
    """The folder of a run, checked against the settings that it was begun with.

    Parameters
    ----------
    settings
        All that decides the outcome, by the names of the options.

    Raises
    ------
    UserError
        If the folder holds a run with other settings; the message names the first that differs.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], *, manifest: str) -> None:
        self.path, self.settings, self.manifest = path, settings, path / manifest
        self.begun = check_settings(path, settings)

    @property
    def finished(self) -> bool:
        """Whether the run is done."""
        return self.manifest.exists()

    @contextlib.contextmanager
    def work(self, resumes_from: Callable[[], str], *, is_main: bool = True) -> Iterator[None]:
        """Begin or resume the run, and keep other commands out of its folder meanwhile.

        Raises
        ------
        UserError
            If another command is at work in the folder.
        """
        with contextlib.ExitStack() as stack:
            if is_main:
                self.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(_locked(self.path))
                if keep_settings(self.path, self.settings):
                    logger.info("resuming the run in %s", self.path)
            try:
                yield
            except KeyboardInterrupt:
                if is_main:
                    logger.warning("the same command resumes from %s", resumes_from())
                raise

    def finish(self, record: Mapping[str, Any]) -> None:
        """Write what made the result: the record, versions and the commit."""
        write_json(self.manifest, {**record, "versions": versions(), "commit": commit()})


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"output={folder}: another command is at work in this folder; wait for it, or give "
                "another folder"
            ) from error
        yield


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file that is there whole or not at all."""
    scratch = path.with_name(f".writing-{path.name}")
    scratch.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(scratch, path)


def check_settings(folder: Path, settings: Mapping[str, Any], *, name: str = SETTINGS) -> bool:
    """See that a folder holds no run, or one with these settings.

    Returns
    -------
    bool
        Whether the folder already holds this run.

    Raises
    ------
    UserError
        Naming the first setting that differs.
    """
    path = folder / name
    if not path.exists():
        return False
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged: give another output folder") from error
    before = {_RENAMED.get(key, key): value for key, value in before.items()}
    now = json.loads(json.dumps(settings))
    for key in [*now, *(before.keys() - now.keys())]:
        # An option that the release which wrote the folder did not have was off.
        if (before.get(key) or None) != (now.get(key) or None):
            raise UserError(
                f"output={folder} holds a run with {key}={before.get(key)!r}, not "
                f"{now.get(key)!r}: repeat its command to resume it, or give another folder"
            )
    return True


def keep_settings(folder: Path, settings: Mapping[str, Any], *, name: str = SETTINGS) -> bool:
    """Write the settings of a new run, or check those of a resumed one; see `check_settings`."""
    begun = check_settings(folder, settings, name=name)
    if not begun:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / name, settings)
    return begun


def flat(settings: Any, kind: type | None = None) -> dict[str, Any]:
    """Return the fields of a dataclass and of the dataclasses in it by name, as JSON has them."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind or settings):
        value = getattr(settings, field.name)
        values.update(flat(value) if dataclasses.is_dataclass(value) else {field.name: value})
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


def last_step(folder: Path, file: str = "") -> int | None:
    """Return the step of the newest ``checkpoint-<step>`` that holds a file, or None."""
    found = [re.fullmatch(r"checkpoint-(\d+)", path.name) for path in folder.glob("checkpoint-*")]
    steps = [int(match[1]) for match in found if match and (folder / match[0] / file).exists()]
    return max(steps, default=None)


def versions() -> dict[str, str]:
    """Return the versions of Python, of this package and of those that decide a result."""
    found = {"python": platform.python_version(), "lm_eval_ext": lm_eval_ext.__version__}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def commit() -> str | None:
    """Return the commit of the checkout this package runs from, or None outside of one."""
    folder = Path(lm_eval_ext.__file__).resolve().parent
    git = ["git", "-C", str(folder)]
    options: dict[str, Any] = {"capture_output": True, "text": True, "check": False, "timeout": 10}
    try:
        done = subprocess.run([*git, "rev-parse", "HEAD"], **options)
        # An installed copy may lie inside some other checkout.
        tracked = subprocess.run([*git, "ls-files", "--error-unmatch", "__init__.py"], **options)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == tracked.returncode == 0 else None

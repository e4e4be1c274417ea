"""``drafts.json``: what made a folder of drafts, and the settings a continued run must keep."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lm_eval_ext
from lm_eval_ext.errors import UserError

MANIFEST = "drafts.json"
SETTINGS = "settings.json"
SHARDS = "shards.json"
_PACKAGES = ("torch", "transformers", "accelerate", "trl", "peft", "lm_eval", "safetensors")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file that is there whole or not at all."""
    scratch = path.with_name(f".writing-{path.name}")
    scratch.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(scratch, path)


def keep_settings(folder: Path, settings: Mapping[str, Any], *, name: str = SETTINGS) -> bool:
    """Write the settings of a new run, or see that a continued one has the same.

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
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, settings)
        return False
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged: give another output folder") from error
    now = json.loads(json.dumps(settings))
    for key in [*now, *(before.keys() - now.keys())]:
        if before.get(key) != now.get(key):
            raise UserError(
                f"output={folder} holds a run with {key}={before.get(key)!r}, not "
                f"{now.get(key)!r}: repeat its command to continue, or give another folder"
            )
    return True


def describe_shards(
    shards: Sequence[Sequence[str]], n_responses: Sequence[int]
) -> list[dict[str, Any]]:
    """Return the shards as the manifest lists them.

    Returns
    -------
    list of dict
        Counts, and one hash over the hashes: equal shards have equal ones. The hashes themselves
        are in `SHARDS`, for they may be a hundred thousand.
    """
    return [
        {
            "n_prompts": len(shard),
            "n_responses": count,
            "prompts_sha256": hashlib.sha256("\n".join(shard).encode()).hexdigest(),
        }
        for shard, count in zip(shards, n_responses, strict=True)
    ]


def versions() -> dict[str, str]:
    """Return the versions of Python, of this package and of those that decide a result."""
    found = {"python": platform.python_version(), "lm_eval_ext": lm_eval_ext.__version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Return the commit of the checkout this package runs from, or None outside of one."""
    folder = Path(lm_eval_ext.__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
        tracked = subprocess.run(
            ["git", "-C", str(folder), "ls-files", "--error-unmatch", "__init__.py"],
            capture_output=True,
            check=False,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    # An installed copy may lie inside some other checkout.
    return done.stdout.strip() if done.returncode == tracked.returncode == 0 else None

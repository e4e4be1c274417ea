"""The options of the ``store`` commands; imports nothing heavy."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from lm_eval_ext.checks import option, required


@dataclass(frozen=True)
class InfoOptions:
    """Say what an attempt store holds.

    Example: lm-eval-ext store info attempts
    """

    store: Path = required("folder that was given as store=")
    _: KW_ONLY
    json: bool = option("print JSON, with all settings", False)


@dataclass(frozen=True)
class MergeOptions:
    """Put the attempts of several stores into one file.

    Example: lm-eval-ext store merge attempts more-attempts --output all-attempts
    """

    stores: tuple[Path, ...] = required("folders to read")
    _: KW_ONLY
    output: Path = required("a new folder for the attempts")


@dataclass(frozen=True)
class VerifyOptions:
    """Check every line of an attempt store.

    Example: lm-eval-ext store verify attempts
    """

    store: Path = required("folder that was given as store=")

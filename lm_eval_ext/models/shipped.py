"""The models that are shipped with the package; ``recipes/tiny`` made them."""

from __future__ import annotations

from pathlib import Path

SHIPPED = ("tiny", "tiny-sink", "tiny-star", "tiny-epicar")
"""Models, by name."""

SHIPPED_DRAFTS = ("tiny-drafts",)
"""Folders of drafts, by name; see `lm_eval_ext.methods.epistemic.drafts`."""

_ASSETS = Path(__file__).parent / "assets"


def model_path(name: str = "tiny") -> str:
    """Return the folder of a shipped model or of drafts, for ``AutoModelForCausalLM``."""
    known = (*SHIPPED, *SHIPPED_DRAFTS)
    if name not in known:
        raise ValueError(f"name={name!r} is not shipped: use one of {', '.join(known)}")
    return str(_ASSETS / name)

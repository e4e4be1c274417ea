"""The tiny model: generated problems, a tokenizer, a trainer, and the weights that are shipped."""

from __future__ import annotations

from pathlib import Path

SHIPPED = ("tiny",)
_ASSETS = Path(__file__).parent / "assets"


def model_path(name: str = "tiny") -> str:
    """Return the folder of a shipped model, loadable with ``AutoModelForCausalLM``.

    Raises
    ------
    ValueError
        For a name that is not shipped.
    """
    if name not in SHIPPED:
        raise ValueError(f"name={name!r} is not shipped: use one of {', '.join(SHIPPED)}")
    return str(_ASSETS / name)

"""Low-rank adapters of a causal language model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peft import LoraConfig

ALL_LINEAR = "all-linear"
"""All linear layers but the output layer."""


def causal_adapters(rank: int, alpha: int, modules: str = ALL_LINEAR) -> LoraConfig:
    """Return adapters to train, without dropout.

    Parameters
    ----------
    rank
        Rank of each.
    alpha
        Their output is multiplied by ``alpha / rank``.
    modules
        Names of the modules that get one, joined by ``+``, or `ALL_LINEAR`.
    """
    from peft import LoraConfig

    return LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        target_modules=modules if modules == ALL_LINEAR else modules.split("+"),
        task_type="CAUSAL_LM",
    )

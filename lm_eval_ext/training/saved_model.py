"""Adapters to train, a trained model on disk, and the summary of its losses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def export_draft(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    target: PreTrainedModel,
) -> None:
    """Write a draft that ``AutoModelForCausalLM`` and ``AutoTokenizer`` load.

    Weights are stored in the target's precision, or in half precision where that is single. The
    folder appears whole or not at all.
    """
    stored = torch.float16 if target.dtype == torch.float32 else target.dtype
    model.generation_config = target.generation_config
    save_model(model, tokenizer, folder, stored=stored, computed=target.dtype)


def save_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    stored: torch.dtype,
    computed: torch.dtype,
) -> None:
    """Write a model that ``AutoModelForCausalLM`` and ``AutoTokenizer`` load, whole or not at all.

    Parameters
    ----------
    computed
        Precision that they load in. Storing in half precision may only save space: a CPU is slow
        at computing in it.
    """
    half = model.eval().to("cpu", stored)
    scratch = folder.with_name(f".writing-{folder.name}")
    shutil.rmtree(scratch, ignore_errors=True)
    half.save_pretrained(scratch)
    tokenizer.save_pretrained(scratch)
    config = json.loads((scratch / "config.json").read_text())
    config["dtype"] = str(computed).removeprefix("torch.")
    (scratch / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    _replace(folder, scratch)


def save_adapter(model: Any, folder: Path, *, stored: torch.dtype) -> None:
    """Write an adapter, whole or not at all."""
    from peft import get_peft_model_state_dict

    scratch = folder.with_name(f".writing-{folder.name}")
    shutil.rmtree(scratch, ignore_errors=True)
    weights = {
        name: tensor.detach().to("cpu", stored)
        for name, tensor in get_peft_model_state_dict(model).items()
    }
    model.save_pretrained(scratch)
    save_file(weights, scratch / "adapter_model.safetensors", metadata={"format": "pt"})
    _replace(folder, scratch)


def _replace(folder: Path, scratch: Path) -> None:
    for file in scratch.iterdir():
        file.chmod(0o644)
    shutil.rmtree(folder, ignore_errors=True)
    scratch.rename(folder)


def loss_curve(losses: Sequence[float], points: int = 50) -> list[list[Any]]:
    """Return ``[last step, mean loss]`` for each of at most so many stretches of a run.

    Examples
    --------
    >>> loss_curve([4.0, 2.0, 1.0, 1.0], points=2)
    [[2, 3.0], [4, 1.0]]
    """
    length = max(1, -(-len(losses) // points))
    parts = [losses[i : i + length] for i in range(0, len(losses), length)]
    ends = [min(i + length, len(losses)) for i in range(0, len(losses), length)]
    return [[end, round(sum(part) / len(part), 6)] for end, part in zip(ends, parts, strict=True)]


ALL_LINEAR = "all-linear"
"""All linear layers but the output layer."""


def causal_adapters(rank: int, alpha: int, modules: str = ALL_LINEAR) -> LoraConfig:
    """Return adapters to train, without dropout.

    Parameters
    ----------
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

"""DAPO as a configuration of TRL: batches, steps, rates and adapters."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from trl import GRPOConfig

from lm_eval_ext.errors import UserError
from lm_eval_ext.training.dapo.settings import Optimization
from lm_eval_ext.training.saved_model import causal_adapters

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel

CLIP_LOW = 0.2
CLIP_HIGH = 0.28
"""The paper's asymmetric clip."""


def process_state() -> PartialState:
    """Return which process of how many this is, as transformers will find it."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


def grpo_config(
    optimization: Optimization,
    *,
    output: str,
    n_processes: int,
    sampling: dict[str, Any],
    runtime: dict[str, Any],
) -> GRPOConfig:
    """Return TRL's configuration.

    Parameters
    ----------
    sampling
        TRL's settings of sampling: ``temperature``, ``max_completion_length``, ``seed``.
    runtime
        Settings of transformers that do not change the result: ``save_steps``, ``report_to``, ...
    """
    with without_renaming_warnings():
        config = _config(optimization, output, n_processes, sampling, runtime)
    if config.world_size != n_processes:
        raise UserError(
            f"{config.world_size} processes train, but {n_processes} were counted: set "
            "ACCELERATE_USE_CPU=true for several processes on CPUs"
        )
    return config


@contextmanager
def without_renaming_warnings() -> Iterator[None]:
    """Pass over transformers' warnings of a name that TRL still uses."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*gradient_checkpointing.*", category=FutureWarning
        )
        yield


def _config(
    o: Optimization,
    output: str,
    n_processes: int,
    sampling: dict[str, Any],
    runtime: dict[str, Any],
) -> GRPOConfig:
    accumulation = o.rollouts(n_processes) // o.micro_batch_size
    return GRPOConfig(
        output_dir=output,
        loss_type="dapo",
        epsilon=CLIP_LOW,
        epsilon_high=CLIP_HIGH,
        beta=0.0,
        # Rollouts are sampled without dropout.
        disable_dropout=True,
        # The trainer masks them, for TRL does not know stop strings.
        mask_truncated_completions=False,
        # The questions come in the order of the run.
        shuffle_dataset=False,
        num_generations=o.group_size,
        per_device_train_batch_size=o.micro_batch_size,
        gradient_accumulation_steps=accumulation,
        steps_per_generation=accumulation * o.updates_per_rollout,
        max_steps=o.steps,
        optim=o.optimizer,
        learning_rate=o.learning_rate,
        warmup_steps=o.warmup_steps,
        lr_scheduler_type=o.schedule,
        weight_decay=o.weight_decay,
        max_grad_norm=o.max_grad_norm,
        bf16=o.bf16,
        gradient_checkpointing=o.gradient_checkpointing,
        logging_steps=1,
        # One of them may be half written.
        save_total_limit=2,
        dataloader_pin_memory=torch.cuda.is_available(),
        **sampling,
        **runtime,
    )


def freeze(model: PreTrainedModel, trainable: str) -> None:
    """Freeze the parameters that are not to be trained.

    Parameters
    ----------
    trainable
        Text in the names of those to train; empty for all.

    Raises
    ------
    UserError
        If no name contains it.
    """
    names = [name for name, _ in model.named_parameters() if trainable in name]
    if not names:
        raise UserError(
            f"trainable={trainable} is in no parameter's name: look at model.named_parameters()"
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)


def peft_config(optimization: Optimization) -> LoraConfig | None:
    """Return the adapters to train, or None to train all weights."""
    if optimization.lora_rank == 0:
        return None
    return causal_adapters(
        optimization.lora_rank, optimization.lora_alpha, optimization.lora_modules
    )

"""DAPO as a configuration of TRL: batches, steps, rates and adapters."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from transformers import get_scheduler
from transformers.training_args import OptimizerNames
from trl import GRPOConfig

from lm_eval_ext.checks import check_at_least, check_choice
from lm_eval_ext.errors import UserError
from lm_eval_ext.training.adapters import ALL_LINEAR, causal_adapters

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel

CLIP_LOW = 0.2
CLIP_HIGH = 0.28
"""The paper's asymmetric clip."""


@dataclass(frozen=True)
class Optimization:
    """Batches, steps and rates.

    Parameters
    ----------
    steps
        Updates.
    groups_per_step
        Groups of an update, over all processes.
    group_size
        Rollouts of a group.
    updates_per_rollout
        Updates taken from one generation batch, each on its own part of it. With 1 every update
        is exactly on-policy and the clip never acts.
    micro_batch_size
        Rollouts of one forward and backward pass of a process.
    optimizer
        Name of one of transformers' optimizers, such as ``"adamw_torch_fused"`` or ``"sgd"``.
    learning_rate, warmup_steps, schedule, weight_decay, max_grad_norm
        As in transformers.
    bf16, gradient_checkpointing
        As in transformers.
    trainable
        Train only parameters whose name contains this text, such as ``"norm"``; empty for all.
    lora_rank
        Rank of the adapters, or 0 to train the weights themselves.
    lora_alpha, lora_modules
        As in peft; modules are joined by ``+``.
    """

    steps: int = 100
    groups_per_step: int = 16
    group_size: int = 8
    updates_per_rollout: int = 1
    micro_batch_size: int = 8
    optimizer: str = "adamw_torch_fused"
    learning_rate: float = 1e-6
    warmup_steps: int = 10
    schedule: str = "constant_with_warmup"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    bf16: bool = False
    gradient_checkpointing: bool = False
    trainable: str = ""
    lora_rank: int = 0
    lora_alpha: int = 32
    lora_modules: str = ALL_LINEAR

    def __post_init__(self) -> None:
        check_at_least(
            self, steps=1, groups_per_step=1, group_size=2, updates_per_rollout=1,
            micro_batch_size=1, warmup_steps=0, weight_decay=0, lora_rank=0, lora_alpha=1,
        )  # fmt: skip
        if self.trainable and self.lora_rank:
            raise UserError(
                f"trainable={self.trainable} and lora_rank={self.lora_rank} exclude each other: "
                "adapters are trained, or parameters of the model"
            )
        known = [name.value for name in OptimizerNames]
        check_choice("optimizer", self.optimizer, known)
        for name in ("learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name}={getattr(self, name)} must be positive")
        self._check_schedule()

    def _check_schedule(self) -> None:
        """Make the schedule once: it may be unknown, or need what cannot be given here."""
        reason = "it follows an evaluation, and there is none"
        try:
            made = get_scheduler(
                self.schedule,
                torch.optim.SGD([torch.zeros(1)], lr=self.learning_rate),
                num_warmup_steps=self.warmup_steps,
                num_training_steps=self.steps,
            )
        except (ValueError, TypeError) as error:
            made, reason = None, str(error).partition("\n")[0]
        if not isinstance(made, torch.optim.lr_scheduler.LambdaLR):
            raise UserError(
                f"schedule={self.schedule} cannot be used: {reason}; use constant_with_warmup, "
                "constant, linear or cosine"
            )

    def check(self, n_processes: int, checkpoint_every: int) -> None:
        """Raise `UserError` for batches that cannot be divided."""
        if self.groups_per_step % n_processes:
            raise UserError(
                f"groups_per_step={self.groups_per_step} must be a multiple of the {n_processes} "
                "processes"
            )
        if self.rollouts(n_processes) % self.micro_batch_size:
            raise UserError(
                f"micro_batch_size={self.micro_batch_size} must divide the "
                f"{self.rollouts(n_processes)} rollouts of an update on one process "
                f"(groups_per_step={self.groups_per_step} times group_size={self.group_size})"
            )
        if checkpoint_every % self.updates_per_rollout:
            raise UserError(
                f"checkpoint_every={checkpoint_every} must be a multiple of updates_per_rollout="
                f"{self.updates_per_rollout}: rollouts are not saved"
            )

    def rollouts(self, n_processes: int) -> int:
        """Return the rollouts of an update on one process."""
        return self.groups_per_step * self.group_size // n_processes

    @property
    def n_questions(self) -> int:
        """Questions that the steps ask, without refills."""
        batches = -(-self.steps // self.updates_per_rollout)
        return batches * self.updates_per_rollout * self.groups_per_step


def process_state() -> PartialState:
    """Return which process of how many this is, as transformers will find it."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


def grpo_config(
    optimization: Optimization,
    *,
    output: str,
    n_processes: int,
    sampling: dict[str, Any],
    upkeep: dict[str, Any],
) -> GRPOConfig:
    """Return TRL's configuration.

    Parameters
    ----------
    optimization
        Batches, steps and rates.
    output
        Folder of the checkpoints.
    n_processes
        Processes of the run.
    sampling
        TRL's settings of sampling: ``temperature``, ``max_completion_length``, ``seed``.
    upkeep
        Settings of transformers that do not change the result: ``save_steps``, ``report_to``, ...
    """
    with without_renaming_warnings():
        config = _config(optimization, output, n_processes, sampling, upkeep)
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
    upkeep: dict[str, Any],
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
        **upkeep,
    )


def freeze(model: PreTrainedModel, trainable: str) -> None:
    """Freeze the parameters that are not to be trained.

    Parameters
    ----------
    model
        The model.
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

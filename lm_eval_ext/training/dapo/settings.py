"""What decides a DAPO run: the options of ``train dapo``; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lm_eval_ext.checks import check_at_least, check_choice, option, required
from lm_eval_ext.errors import UserError
from lm_eval_ext.training.options import PromptOptions, RuntimeOptions, check_above_zero

if TYPE_CHECKING:
    from lm_eval_ext.training.prompts import Problem

_DTYPES = ("float32", "bfloat16", "float16", "float64", "auto")


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """Batches, steps and rates."""

    steps: int = option("updates", 100)
    groups_per_step: int = option(
        "groups of an update, each the rollouts of one prompt, over all processes", 16
    )
    group_size: int = option("rollouts of a group", 8)
    updates_per_rollout: int = option(
        "updates from one generation batch, each on its own part of it. With 1 every update "
        "is exactly on-policy and the clip never acts",
        1,
    )
    micro_batch_size: int = option("rollouts of one forward and backward pass of a process", 8)
    optimizer: str = option(
        "name of one of transformers' optimizers (--optim)", "adamw_torch_fused"
    )
    learning_rate: float = option("peak rate; adapters want 1e-5 and more", 1e-6)
    warmup_steps: int = option("as in transformers", 10)
    schedule: str = option("as in transformers", "constant_with_warmup")
    weight_decay: float = option("as in transformers", 0.0)
    max_grad_norm: float = option("as in transformers", 1.0)
    bf16: bool = option("mixed precision, on a GPU", False)
    gradient_checkpointing: bool = option("as in transformers", False)
    trainable: str = option("train only parameters with this text in their name, such as norm", "")
    lora_rank: int = option("rank of adapters; 0 trains the weights themselves", 0)
    lora_alpha: int = option("as in peft", 32)
    lora_modules: str = option("modules that get an adapter, joined by +", "all-linear")

    def __post_init__(self) -> None:
        check_at_least(
            self, steps=1, groups_per_step=1, group_size=2, updates_per_rollout=1,
            micro_batch_size=1, warmup_steps=0, weight_decay=0, lora_rank=0, lora_alpha=1,
        )  # fmt: skip
        check_above_zero(self, "learning_rate", "max_grad_norm")
        if self.trainable and self.lora_rank:
            raise UserError(
                f"trainable={self.trainable} and lora_rank={self.lora_rank} exclude each other: "
                "adapters are trained, or parameters of the model"
            )

    def check_batches(self, n_processes: int, checkpoint_steps: int) -> None:
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
        if checkpoint_steps % self.updates_per_rollout:
            raise UserError(
                f"checkpoint_steps={checkpoint_steps} must be a multiple of updates_per_rollout="
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


@dataclass(frozen=True, kw_only=True)
class SoftPrompts:
    """Random soft prompts in the rollouts."""

    rsp_length: int = option("vectors drawn for each rollout; 0 draws none", 0)
    rsp_scale: float = option("factor on their standard deviation", 1.0)
    rsp_position: Literal["auto", "end_of_user", "after_prompt", "prefix"] = option(
        "where they go; see the argument position of --model rsp", "auto"
    )
    rsp_update: Literal["same", "clean"] = option(
        "the update reads the rollout's own vectors (same), or the prompt alone with the "
        "explicit importance ratio (clean)",
        "same",
    )

    def __post_init__(self) -> None:
        check_at_least(self, rsp_length=0, rsp_scale=0)


@dataclass(frozen=True, kw_only=True)
class Rollouts:
    """Rollouts and rewards."""

    temperature: float = option("of rollouts and update", 1.0)
    max_new_tokens: int | None = option(
        "most tokens of a rollout; by default those of the problems' source"
    )
    overlong_buffer: int = option(
        "tokens before that over which a penalty grows from 0 to -1; 0: no penalty", 0
    )
    stop: tuple[str, ...] | None = option(
        "string that ends a rollout, repeatable; by default those of the problems' source",
        repeat=True,
    )
    dynamic_sampling: bool = option(
        "drop groups without right and wrong rollouts, and refill", True
    )
    sampler: Literal["engine", "transformers"] = option(
        "the package's decoder, or TRL's own generation", "engine"
    )

    def __post_init__(self) -> None:
        check_above_zero(self, "temperature")
        check_at_least(self, max_new_tokens=1)
        if self.max_new_tokens is not None:
            check_overlong_buffer(self.max_new_tokens, self.overlong_buffer)

    def completed(self, problems: Sequence[Problem]) -> Rollouts:
        """Return the settings with what they leave to the source of the problems."""
        stop = dict.fromkeys(text for problem in problems for text in problem.stop)
        longest = max(problem.max_new_tokens for problem in problems)
        return replace(
            self,
            stop=tuple(stop) if self.stop is None else self.stop,
            max_new_tokens=self.max_new_tokens or longest,
        )


def check_overlong_buffer(max_new_tokens: int, overlong_buffer: int) -> None:
    """Raise `UserError` for a buffer outside 0 to ``max_new_tokens``."""
    if not 0 <= overlong_buffer <= max_new_tokens:
        raise UserError(
            f"overlong_buffer={overlong_buffer} must be between 0 (no penalty) and "
            f"max_new_tokens={max_new_tokens}"
        )


@dataclass(frozen=True, kw_only=True)
class DapoJob:
    """Everything that decides the result of a run."""

    pretrained: str = option("Hub id, folder or shipped model", "tiny")
    problems: str = option(
        "gsm8k:train, gsm8k_zero_shot:train, tiny_gsm8k:train_hard, ..., a task of lm-eval "
        "such as gsm8k_train_passn_chat, a JSON Lines file of records, or several joined by +",
        "gsm8k_zero_shot:train",
    )
    num_problems: int | None = option(
        "most problems of each source; by default all, and 4,000 generated ones"
    )
    grader: Literal["gsm8k", "math", "mbpp"] | None = option("grades the records of a file")
    seed: int = option("of rollouts, vectors and order", 0)
    dtype: str = option("precision of the weights", "float32")
    prompts: PromptOptions = field(default_factory=PromptOptions)
    rollouts: Rollouts = field(default_factory=Rollouts)
    soft_prompts: SoftPrompts = field(default_factory=SoftPrompts)
    calibrate: bool = option(
        "after each update, take one on judging its rollouts, as train epicar teaches it", False
    )
    optimization: Optimization = field(default_factory=Optimization)

    def __post_init__(self) -> None:
        check_choice("dtype", self.dtype, _DTYPES)


@dataclass(frozen=True, kw_only=True)
class DapoRuntime(RuntimeOptions):
    """How the work is done, without effect on the result: a resumed run may change it."""

    checkpoint_steps: int = option("optimizer steps between checkpoints", 20)
    max_refills: int = option(
        "most refill rounds of a step; a run that hit it may resume with a higher one", 10
    )
    report_to: tuple[str, ...] = option(
        "as in transformers: none, tensorboard, wandb, ...", ("none",)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, max_refills=0)


@dataclass(frozen=True, kw_only=True)
class DapoOptions(DapoJob):
    """Train a model on graded questions with DAPO and soft prompts.

    Repeat the command to resume it from the last checkpoint. Several processes (accelerate launch
    -m lm_eval_ext train dapo ...) share the groups of a step.

    Example: lm-eval-ext train dapo --problems tiny_gsm8k:train_hard --rsp-length 8
    --output runs/dapo
    """

    output: Path = required("folder of the run")
    runtime: DapoRuntime = field(default_factory=DapoRuntime)

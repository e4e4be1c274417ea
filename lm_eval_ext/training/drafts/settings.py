"""What decides the drafts of a run: the options of ``train drafts``; imports nothing heavy."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from lm_eval_ext.checks import check_at_least, check_choice, option, required
from lm_eval_ext.errors import UserError
from lm_eval_ext.training.options import PromptOptions, RuntimeOptions, check_above_zero

Split = Literal["disjoint", "same", "bootstrap"]
"""How prompts are divided: every prompt to one draft, all to all, or drawn with replacement."""

TeacherKind = Literal["osd", "clean", "exact"]
"""One fresh perturbation per step, the target itself, or the average over several."""

Direction = Literal["forward", "reverse"]
"""KL(teacher || student) or KL(student || teacher)."""

_FINAL_RATE = 0.02  # share of the peak rate at the last step


@dataclass(frozen=True, kw_only=True)
class ResponseSettings:
    """The target's responses."""

    responses_per_prompt: int = option("responses to each prompt", 1)
    temperature: float = option("of sampling, without other filters; 0 is greedy", 1.0)
    max_new_tokens: int = option("most tokens of a response", 256)
    stop: tuple[str, ...] | None = option(
        "string that ends a response, repeatable; by default those of the prompts' source",
        repeat=True,
    )

    def __post_init__(self) -> None:
        check_at_least(self, responses_per_prompt=1, temperature=0, max_new_tokens=1)
        if self.temperature == 0 and self.responses_per_prompt > 1:
            raise UserError(
                f"temperature=0 gives {self.responses_per_prompt} equal responses: set "
                "responses_per_prompt to 1 or raise the temperature"
            )

    def generation_kwargs(self) -> dict[str, Any]:
        """Return the settings as a task's ``generation_kwargs``."""
        sampling: dict[str, Any] = {"do_sample": False}
        if self.temperature > 0:
            sampling = {
                "do_sample": True,
                "temperature": self.temperature,
                "top_k": 0,
                "top_p": 1.0,
            }
        return {**sampling, "until": list(self.stop or ()), "max_gen_toks": self.max_new_tokens}


@dataclass(frozen=True, kw_only=True)
class TeacherSettings:
    """What a draft imitates."""

    teacher: TeacherKind = option(
        "osd: a copy of the target with fresh noise in its weights at every step; clean: the "
        "target itself; exact: the average over several such copies per step",
        "osd",
    )
    teacher_samples: int = option("copies that exact averages", 10)
    rank: int = option("rank of the noise", 8)
    sigma: float = option("its standard deviation", 0.1)
    modules: tuple[str, ...] = option("modules that get noise", ("q_proj", "v_proj"))

    def __post_init__(self) -> None:
        check_choice("teacher", self.teacher, get_args(TeacherKind))
        check_at_least(self, teacher_samples=1)
        # The last release joined them by +.
        modules = tuple(name for part in self.modules for name in part.split("+"))
        object.__setattr__(self, "modules", modules)


@dataclass(frozen=True, kw_only=True)
class OptimizationSettings:
    """How a draft is fitted."""

    steps: int = option("optimizer steps of each draft", 1000)
    learning_rate: float = option("peak rate of AdamW; it falls by a cosine to a fiftieth", 1e-3)
    batch_size: int = option("responses per step", 32)
    warmup_steps: int = option("steps of linear warm-up", 50)
    weight_decay: float = option("on matrices only", 0.01)
    kl: Direction = option("KL(teacher || draft) or the reverse", "forward")

    def __post_init__(self) -> None:
        check_at_least(self, steps=1, batch_size=1, warmup_steps=0, weight_decay=0)
        check_above_zero(self, "learning_rate")
        check_choice("kl", self.kl, get_args(Direction))

    def rate(self, step: int) -> float:
        """Return the learning rate of a step.

        Examples
        --------
        >>> settings = OptimizationSettings(steps=100, learning_rate=0.1, warmup_steps=10)
        >>> [round(settings.rate(step), 4) for step in (0, 10, 100)]
        [0.01, 0.0976, 0.002]
        """
        warmup = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        fall = (1 + math.cos(math.pi * min(1.0, step / self.steps))) / 2
        return self.learning_rate * warmup * (_FINAL_RATE + (1 - _FINAL_RATE) * fall)


@dataclass(frozen=True, kw_only=True)
class DraftJob:
    """Everything that decides the drafts of a run."""

    pretrained: str = option("the target: Hub id, folder or shipped model", "tiny")
    draft_init: str = option(
        "first:N (the target's first N layers), first:N,mlp:W (and W neurons of each MLP), a "
        "model with the same tokenizer, or a configuration for random weights",
        "first:2",
    )
    num_drafts: int = option("number of drafts", 4)
    problems: str = option(
        "prompts: gsm8k:train (eight-shot), gsm8k_zero_shot:train, tiny_gsm8k:train, a task "
        'of lm-eval such as gsm8k_train_passn_chat, a JSON Lines file with a field "prompt", '
        "or several joined by +",
        "gsm8k:train",
    )
    num_problems: int | None = option(
        "most prompts of each source; by default all, and 4,000 generated ones"
    )
    split: Split = option(
        "how prompts are divided: each to one draft, all to all, or drawn with replacement",
        "disjoint",
    )
    seed: int = option("of responses, split, order and teachers", 0)
    dtype: str = option("the target's precision", "auto")
    prompts: PromptOptions = field(default_factory=PromptOptions)
    responses: ResponseSettings = field(default_factory=ResponseSettings)
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    optimization: OptimizationSettings = field(default_factory=OptimizationSettings)

    def __post_init__(self) -> None:
        check_at_least(self, num_drafts=1, num_problems=1)


@dataclass(frozen=True, kw_only=True)
class DraftOptions(DraftJob):
    """Distil small drafts of a model, for --model draft-eu.

    Repeat the command to resume it. Several processes (accelerate launch -m lm_eval_ext train
    drafts ...) share the responses and then the drafts, with the same result.

    Example: lm-eval-ext train drafts --pretrained tiny --problems tiny_gsm8k:train --output drafts
    """

    output: Path = required("folder of the run")
    runtime: RuntimeOptions = field(default_factory=RuntimeOptions)

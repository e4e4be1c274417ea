"""Everything that decides the outcome of a self-training run, checked."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from lm_eval_ext.checks import check_at_least, check_choice
from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.self_evaluation.template import SelfEvalTemplate, read_template

Method = Literal["epicar", "star"]
"""With and without the rows in which the model judges its attempts."""

InitFrom = Literal["base", "previous"]
"""The model that each round's fine-tuning starts from."""

Schedule = Literal["mixed", "sequential", "eval_only"]
"""All rows shuffled together, the reasoning rows before the self-evaluation rows, or the latter
only: the second stage of a model that has learned to reason already."""

Balance = Literal["none", "undersample", "oversample"]
"""How many self-evaluation rows there are of each label: as found, the fewer of both, the more."""

BoxCompletion = Literal["auto", "on", "off"]
"""Whether attempts without a closed box are completed; ``auto`` is for problems of MATH only."""


@dataclass(frozen=True)
class SamplingSettings:
    """How the model answers its training problems.

    Parameters
    ----------
    attempts
        K, attempts at each problem.
    temperature
        Of sampling, above 0 unless there is one attempt; no other filter is applied.
    max_new_tokens
        Most tokens of an attempt, or None for the number of the problem's source.
    stop
        Strings that end an attempt, or None for those of the problem's source.
    box_completion
        See `BoxCompletion`.
    generator
        Name of the model wrapper, as lm-eval's ``--model`` knows it.
    generator_args
        More arguments for it, as in ``--model_args``.
    """

    attempts: int = 8
    temperature: float = 0.7
    max_new_tokens: int | None = None
    stop: tuple[str, ...] | None = None
    box_completion: BoxCompletion = "auto"
    generator: str = "sampled"
    generator_args: str = ""

    def __post_init__(self) -> None:
        check_at_least(self, attempts=1, temperature=0, max_new_tokens=1)
        check_choice("box_completion", self.box_completion, get_args(BoxCompletion))
        if self.temperature == 0 and self.attempts > 1:
            raise UserError(
                f"temperature=0 gives {self.attempts} equal attempts: set attempts to 1 or raise "
                "the temperature"
            )

    def generation_kwargs(self) -> dict[str, Any]:
        """Return the sampling as a task's ``generation_kwargs``, without limits."""
        if self.temperature == 0:
            return {"do_sample": False}
        return {"do_sample": True, "temperature": self.temperature, "top_k": 0, "top_p": 1.0}


@dataclass(frozen=True)
class RowSettings:
    """What is learned from graded attempts.

    Parameters
    ----------
    dedup
        Learn each correct response to a problem once, however often it was sampled.
    balance
        See `Balance`.
    max_length
        Most tokens of a row; longer ones are cut from the left.
    self_eval_prompt, self_eval_labels
        The question about an attempt and its labels, or None for the wrapper's own; see
        `lm_eval_ext.methods.self_evaluation.template`.
    """

    dedup: bool = True
    balance: Balance = "none"
    max_length: int = 2048
    self_eval_prompt: str | None = None
    self_eval_labels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_at_least(self, max_length=8)
        check_choice("balance", self.balance, get_args(Balance))
        self.template()

    def template(self) -> SelfEvalTemplate:
        """Return the question about an attempt."""
        return read_template(self.self_eval_prompt, self.self_eval_labels)


@dataclass(frozen=True)
class TuningSettings:
    """How a round's model is fitted.

    Parameters
    ----------
    schedule
        See `Schedule`.
    alpha
        Weight of the reasoning rows' mean loss against that of the labels, in [0, 1]; None is
        one mean over all tokens.
    epochs
        Passes over the rows, unless ``steps`` says how many optimizer steps there are.
    steps
        Optimizer steps of a round, or None.
    learning_rate
        Peak rate; None is 1e-4 with LoRA and 1e-5 without.
    warmup_ratio
        Share of the steps in which the rate rises; afterwards it falls linearly to 0.
    weight_decay
        AdamW's.
    batch_size
        Rows in one pass of one process.
    gradient_accumulation
        Passes to an optimizer step.
    num_processes
        Processes that train (and generate) together.
    lora_rank
        Rank of the adapter on all linear layers; 0 trains all weights.
    merge
        Write the model with the adapter merged into it, beside the adapter.
    save_dtype
        Precision that weights are stored in; ``auto`` is that of the initial model's file.
    precision
        ``float32``, ``bfloat16`` (mixed), or ``auto``: the latter on a GPU that has it.
    gradient_checkpointing
        Compute activations twice and keep fewer.
    """

    schedule: Schedule = "mixed"
    alpha: float | None = None
    epochs: float = 1.0
    steps: int | None = None
    learning_rate: float | None = None
    warmup_ratio: float = 0.03
    weight_decay: float = 0.0
    batch_size: int = 16
    gradient_accumulation: int = 1
    num_processes: int = 1
    lora_rank: int = 16
    merge: bool = False
    save_dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        check_choice("schedule", self.schedule, get_args(Schedule))
        check_at_least(
            self, steps=1, warmup_ratio=0, weight_decay=0, batch_size=1, gradient_accumulation=1,
            num_processes=1, lora_rank=0,
        )  # fmt: skip
        for name in ("epochs", "learning_rate"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"{name}={value} must be above 0 and finite")
        if self.warmup_ratio > 1:
            raise UserError(f"warmup_ratio={self.warmup_ratio} must be in [0, 1]")
        if self.alpha is not None and not 0 <= self.alpha <= 1:
            raise UserError(f"alpha={self.alpha} must be in [0, 1]")
        if self.alpha is not None and self.schedule != "mixed":
            raise UserError(
                "alpha weighs the two kinds of rows within a step, and "
                f"schedule={self.schedule} never has both in one: leave one of them out"
            )
        if self.merge and not self.lora_rank:
            raise UserError("merge=True has no effect without an adapter: add --lora-rank")

    @property
    def rate(self) -> float:
        """The peak learning rate."""
        default = 1e-4 if self.lora_rank else 1e-5
        return default if self.learning_rate is None else self.learning_rate


@dataclass(frozen=True)
class SelfTraining:
    """A run.

    Parameters
    ----------
    method
        See `Method`.
    pretrained
        The base model: Hub id, folder, or shipped model.
    problems, num_problems, grader
        The training problems; see `lm_eval_ext.training.prompts.load_problems`.
    rounds
        T.
    init_from
        See `InitFrom`.
    held_out_share
        Share of the problems that is never trained on, in [0, 1).
    seed
        Of attempts, order and initial adapter weights.
    sampling, rows, tuning
        Settings of the phases.
    """

    method: Method = "epicar"
    pretrained: str = "tiny"
    problems: str = "gsm8k:train"
    num_problems: int | None = None
    grader: str | None = None
    rounds: int = 3
    init_from: InitFrom = "base"
    held_out_share: float = 0.1
    seed: int = 0
    sampling: SamplingSettings = SamplingSettings()
    rows: RowSettings = RowSettings()
    tuning: TuningSettings = TuningSettings()

    def __post_init__(self) -> None:
        check_choice("method", self.method, get_args(Method))
        check_choice("init_from", self.init_from, get_args(InitFrom))
        check_at_least(self, rounds=1, num_problems=1)
        if not 0 <= self.held_out_share < 1:
            raise UserError(f"held_out_share={self.held_out_share} must be in [0, 1)")
        if self.method == "star" and self.tuning.schedule == "eval_only":
            raise UserError("schedule=eval_only leaves star nothing to learn: use epicar")
        if self.method == "star" and self.tuning.alpha is not None:
            raise UserError("alpha has no effect in star, which has no labels to learn: leave it")

    def flat(self) -> dict[str, Any]:
        """Return all settings by name, as JSON has them."""
        values: dict[str, Any] = {}
        for name, value in dataclasses.asdict(self).items():
            values.update(value if name in _GROUPS else {name: value})
        flat: dict[str, Any] = json.loads(json.dumps(values))
        return flat

    @staticmethod
    def from_flat(values: Mapping[str, Any]) -> SelfTraining:
        """Return what `flat` described; other names are ignored.

        Examples
        --------
        >>> SelfTraining.from_flat({"rounds": 2, "attempts": 4}).sampling.attempts
        4
        """
        groups = {name: _only(values, kind) for name, kind in _GROUPS.items()}
        own = {k: v for k, v in _only(values, SelfTraining).items() if k not in _GROUPS}
        return SelfTraining(
            sampling=SamplingSettings(**groups["sampling"]),
            rows=RowSettings(**groups["rows"]),
            tuning=TuningSettings(**groups["tuning"]),
            **own,
        )


_GROUPS: dict[str, type] = {
    "sampling": SamplingSettings,
    "rows": RowSettings,
    "tuning": TuningSettings,
}


def _only(values: Mapping[str, Any], kind: type) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in names}


@dataclass(frozen=True)
class Workings:
    """What may differ when a run is continued: none of it changes the outcome.

    Parameters
    ----------
    generation_batch_size
        Attempts decoded at once, or ``"auto"``.
    attempts_per_save
        Attempts made between two writes: the most that a kill loses.
    steps_per_checkpoint
        Optimizer steps between two checkpoints.
    trust_remote_code
        Allow the model's own code.
    attempts_from
        Folder that the first round takes its attempts from, or None; what is in it is noted in the
        settings of the run.
    """

    generation_batch_size: int | str = "auto"
    attempts_per_save: int = 1024
    steps_per_checkpoint: int = 200
    trust_remote_code: bool = False
    attempts_from: str | None = None

    def __post_init__(self) -> None:
        check_at_least(self, attempts_per_save=1, steps_per_checkpoint=1)

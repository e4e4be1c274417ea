"""What decides a self-training run: the options of ``train epicar|star``; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from lm_eval_ext.checks import check_at_least, check_choice, option, required
from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.self_evaluation.template import SelfEvalTemplate, read_template
from lm_eval_ext.training.options import PromptOptions, RuntimeOptions, check_above_zero

Method = Literal["epicar", "star"]
"""With and without the rows in which the model judges its attempts."""

Balance = Literal["none", "undersample", "oversample"]
"""How many self-evaluation rows there are of each label: as found, the fewer of both, the more."""


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """The model's attempts at its training problems."""

    attempts: int = option("K, attempts at each problem", 8)
    temperature: float = option(
        "of sampling, without other filters; 0 is greedy, for one attempt", 0.7
    )
    max_new_tokens: int | None = option(
        "most tokens of an attempt; by default those of the problems' source"
    )
    stop: tuple[str, ...] | None = option(
        "string that ends an attempt, repeatable; by default those of the problems' source",
        repeat=True,
    )
    box_completion: Literal["auto", "on", "off"] = option(
        "append a lead-in to attempts without a closed box; auto: of MATH problems only", "auto"
    )
    generator: str = option("model wrapper that samples, as lm_eval --model knows it", "sampled")
    generator_args: str = option("more --model_args for it", "")

    def __post_init__(self) -> None:
        check_at_least(self, attempts=1, temperature=0, max_new_tokens=1)
        check_choice("box_completion", self.box_completion, ("auto", "on", "off"))
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


@dataclass(frozen=True, kw_only=True)
class RowSettings:
    """The rows that are learned from graded attempts."""

    dedup: bool = option(
        "learn each correct response to a problem once, however often it was sampled", True
    )
    balance: Balance = option(
        "make as many self-evaluation rows that say yes as rows that say no", "none"
    )
    max_length: int = option("most tokens of a row; longer ones are cut from the left", 2048)
    self_eval_prompt: str | None = option(
        "the question about an attempt; by default that of --model epicar"
    )
    self_eval_labels: tuple[str, ...] | None = option(
        "its labels, that of a correct attempt first, joined by +", repeat=True
    )

    def __post_init__(self) -> None:
        check_at_least(self, max_length=8)
        check_choice("balance", self.balance, get_args(Balance))
        if self.self_eval_labels is not None:
            labels = tuple(label for part in self.self_eval_labels for label in part.split("+"))
            object.__setattr__(self, "self_eval_labels", labels)
        self.template()

    def template(self) -> SelfEvalTemplate:
        """Return the question about an attempt."""
        return read_template(self.self_eval_prompt, self.self_eval_labels)


@dataclass(frozen=True, kw_only=True)
class TuningSettings:
    """The fine-tuning of a round."""

    schedule: Literal["mixed", "sequential", "eval_only"] = option(
        "mixed: all rows shuffled together; sequential: solutions before self-evaluation, as "
        "the published models of EpiCaR's authors; eval_only: self-evaluation only, the "
        "second stage of a model that has learned to reason already",
        "mixed",
    )
    alpha: float | None = option(
        "weight of the solutions' mean loss against that of the labels, in [0, 1]; by default "
        "there is one mean over all tokens"
    )
    epochs: float = option("passes over the rows, unless --steps is given", 1.0)
    steps: int | None = option("optimizer steps of a round")
    learning_rate: float | None = option("peak rate; by default 1e-4 with LoRA and 1e-5 without")
    warmup_ratio: float = option(
        "share of the steps in which the rate rises; afterwards it falls linearly to 0", 0.03
    )
    weight_decay: float = option("AdamW's", 0.0)
    batch_size: int = option("rows in one pass of one process", 16)
    gradient_accumulation: int = option("passes to an optimizer step", 1)
    num_processes: int = option("processes that generate and train together", 1)
    lora_rank: int = option("rank of an adapter on all linear layers; 0 trains all weights", 16)
    merge: bool = option("also write the model with the adapter merged into it", False)
    save_dtype: Literal["auto", "float32", "float16", "bfloat16"] = option(
        "precision of the stored weights; auto: that of the initial model", "auto"
    )
    precision: Literal["auto", "float32", "bfloat16"] = option(
        "of training; auto: mixed bfloat16 on a GPU that has it", "auto"
    )
    gradient_checkpointing: bool = option("compute activations twice and keep fewer", False)

    def __post_init__(self) -> None:
        check_choice("schedule", self.schedule, ("mixed", "sequential", "eval_only"))
        check_at_least(
            self, steps=1, warmup_ratio=0, weight_decay=0, batch_size=1, gradient_accumulation=1,
            num_processes=1, lora_rank=0,
        )  # fmt: skip
        check_above_zero(self, "epochs", "learning_rate")
        for name in ("warmup_ratio", "alpha"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise UserError(f"{name}={value} must be in [0, 1]")
        if self.alpha is not None and self.schedule != "mixed":
            raise UserError(
                f"alpha={self.alpha} weighs the two kinds of rows within a step, and "
                f"schedule={self.schedule} never has both in one: leave one of them out"
            )
        if self.merge and not self.lora_rank:
            raise UserError("merge=True has no effect without an adapter: add --lora-rank")

    @property
    def rate(self) -> float:
        """The peak learning rate."""
        default = 1e-4 if self.lora_rank else 1e-5
        return default if self.learning_rate is None else self.learning_rate


@dataclass(frozen=True, kw_only=True)
class SelfTraining:
    """A run."""

    method: ClassVar[Method] = "epicar"

    pretrained: str = option("base model: Hub id, folder or shipped model", "tiny")
    problems: str = option(
        "gsm8k:train (eight-shot), gsm8k_zero_shot:train, mbpp_zero_shot:train, "
        "tiny_gsm8k:train, tiny_math:train, tiny_mbpp:train (or :train_hard), a task of lm- "
        "eval such as gsm8k_train_passn_chat, a JSON Lines file of records, or several joined "
        "by +",
        "gsm8k:train",
    )
    num_problems: int | None = option(
        "most problems of each source; by default all, and 4,000 generated ones"
    )
    grader: Literal["gsm8k", "math", "mbpp"] | None = option("grades the records of a file")
    rounds: int = option("T, how often the model answers and learns", 3)
    init_from: Literal["base", "previous"] = option(
        "model that each round's fine-tuning starts from", "base"
    )
    held_out_share: float = option(
        "share of the problems that is never trained on, for temperature.json and tau.json", 0.1
    )
    seed: int = option("of attempts, order and initial adapters", 0)
    prompts: PromptOptions = field(default_factory=PromptOptions)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    rows: RowSettings = field(default_factory=RowSettings)
    tuning: TuningSettings = field(default_factory=TuningSettings)

    def __post_init__(self) -> None:
        check_choice("init_from", self.init_from, ("base", "previous"))
        check_at_least(self, rounds=1, num_problems=1)
        if not 0 <= self.held_out_share < 1:
            raise UserError(f"held_out_share={self.held_out_share} must be in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class Star(SelfTraining):
    """A run without the rows in which the model judges its attempts."""

    method: ClassVar[Method] = "star"

    def __post_init__(self) -> None:
        super().__post_init__()
        tuning, balance = self.tuning, self.rows.balance
        used = {"schedule": tuning.schedule, "alpha": tuning.alpha, "balance": balance}
        for name, value in used.items():
            if value not in ("mixed", None, "none"):
                raise UserError(
                    f"{name}={value} is about self-evaluation, which star does not learn: leave it "
                    "out, or use epicar"
                )


def from_flat(values: Mapping[str, Any]) -> SelfTraining:
    """Return the run that `lm_eval_ext.training.run.flat` described; other names are ignored.

    Examples
    --------
    >>> from_flat({"method": "star", "attempts": 4}).sampling.attempts
    4
    """
    run: SelfTraining = _filled(Star if values.get("method") == "star" else SelfTraining, values)
    return run


def _filled(kind: Any, values: Mapping[str, Any]) -> Any:
    given = {}
    for one in fields(kind):
        if is_dataclass(one.default_factory):
            given[one.name] = _filled(one.default_factory, values)
        elif one.name in values:
            value = values[one.name]
            given[one.name] = tuple(value) if isinstance(value, list) else value
    return kind(**given)


@dataclass(frozen=True, kw_only=True)
class SelfTrainingRuntime(RuntimeOptions):
    """How the work is done, without effect on the result: a resumed run may change it."""

    checkpoint_steps: int = option("optimizer steps between checkpoints", 200)
    attempts_per_save: int = option(
        "attempts made between two writes: the most that a kill loses", 1024
    )
    attempts_from: str | None = option(
        "take the first round's attempts from this folder, an lm_eval run over the same "
        "problems or another training, instead of sampling them"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, attempts_per_save=1)


@dataclass(frozen=True, kw_only=True)
class EpicarOptions(SelfTraining):
    """Teach a model to solve problems and to judge its answers.

    Each round the model answers the training problems, a grader says which attempts are right, and
    the model is fine-tuned on the right ones and on judging all of them (EpiCaR, arXiv:2601.06786).
    Repeat the command to resume it.

    Example: lm-eval-ext train epicar --problems tiny_gsm8k:train_hard --num-problems 500
    --output runs/tiny
    """

    output: Path = required("folder of the run")
    confirm_run_unsafe_code: bool = option(
        "let the grader of code run programs that the model wrote", False
    )
    runtime: SelfTrainingRuntime = field(default_factory=SelfTrainingRuntime)


@dataclass(frozen=True, kw_only=True)
class StarOptions(EpicarOptions, Star):
    """The baseline of train epicar: learn correct answers only.

    Each round the model is fine-tuned on its right attempts: STaR (arXiv:2203.14465) without
    rationalization. Repeat the command to resume it.

    Example: lm-eval-ext train star --problems tiny_gsm8k:train_hard --num-problems 500
    --output runs/star
    """

"""Options that several training commands share; imports nothing heavy."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lm_eval_ext.checks import check_at_least, option
from lm_eval_ext.errors import UserError


@dataclass(frozen=True, kw_only=True)
class PromptOptions:
    """Prompts, as lm_eval renders them."""

    apply_chat_template: bool = option(
        "put each prompt into the model's chat template, as a message of the user", False
    )
    system_instruction: str | None = option(
        "text before each prompt: the system's message of a chat"
    )
    num_fewshot: int | None = option(
        "solved problems in each prompt, of problems that are a task of lm-eval; by default "
        "the task's own number"
    )
    fewshot_as_multiturn: bool = option(
        "make them turns of the chat, instead of parts of one message", False
    )

    def __post_init__(self) -> None:
        check_at_least(self, num_fewshot=0)


@dataclass(frozen=True, kw_only=True)
class RuntimeOptions:
    """How the work is done, without effect on the result: a resumed run may change it."""

    generation_batch_size: str = option("attempts decoded at once, or auto", "auto")
    checkpoint_steps: int = option("optimizer steps between checkpoints", 100)
    trust_remote_code: bool = option("allow the model's own code", False)

    def __post_init__(self) -> None:
        check_at_least(self, checkpoint_steps=1)
        size = self.generation_batch_size
        if size != "auto" and not (size.isdigit() and int(size)):
            raise UserError(f"generation_batch_size={size} must be auto or a number above 0")


def check_above_zero(settings: object, *names: str) -> None:
    """Raise `UserError` unless attributes are finite and above 0; None passes."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"{name}={value} must be above 0 and finite")

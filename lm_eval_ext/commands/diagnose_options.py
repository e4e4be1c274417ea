"""The options of ``lm-eval-ext diagnose``; imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lm_eval_ext.checks import check_at_least, option


@dataclass(frozen=True, kw_only=True)
class RspOptions:
    """Show what random soft prompts do to the first tokens.

    Example: lm-eval-ext diagnose rsp --pretrained tiny --model-args length=16
    """

    pretrained: str = option("Hub id, folder or shipped model", "tiny")
    model_args: str = option("more arguments, as for lm_eval --model rsp", "length=8")
    tasks: str = option("task whose prompts are used", "tiny_gsm8k_passn")
    limit: int = option("questions", 32)
    attempts: int = option("draws per question", 16)
    tokens: int = option("token positions", 16)
    temperature: float = option("of the sampled attempts", 0.7)
    apply_chat_template: bool = option("as lm-eval's option", False)
    output: Path = option("folder for plot and JSON", Path("rsp_diagnosis"))

    def __post_init__(self) -> None:
        check_at_least(self, limit=1, attempts=2, tokens=1)

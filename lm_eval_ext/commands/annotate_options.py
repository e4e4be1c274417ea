"""The options of ``lm-eval-ext annotate``; imports nothing heavy."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Literal

from lm_eval_ext.checks import option, required


@dataclass(frozen=True)
class AnnotateOptions:
    """Add confidences and uncertainties to attempts of any model, without generating them again.

    `lm-eval-ext score` then computes every metric.

    Example: lm-eval-ext annotate out/samples_gsm8k_passn_2026-01-01.jsonl --model epicar
    --pretrained MODEL --output annotated
    """

    samples: tuple[Path, ...] = required(
        "sample files of lm_eval --log_samples at a task with attempts; or JSON Lines of another "
        "tool, with prompt (text or chat messages), response or responses, and what else there is"
    )
    _: KW_ONLY
    model: Literal["draft-eu", "epicar"] = required("what annotates them, as lm_eval --model")
    pretrained: str = option("Hub id, folder or shipped model that reads them", "tiny")
    model_args: str = option("more arguments, as for lm_eval --model", "")
    grader: str | None = option(
        "for another tool's lines: family of lm-eval-ext's graders that judges the responses "
        "against the line's own fields, as gsm8k against its answer"
    )
    output: Path = required("folder for the annotated run")

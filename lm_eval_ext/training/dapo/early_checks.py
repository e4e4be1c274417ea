"""What can be known to be wrong before anything is written."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, get_scheduler
from transformers.integrations.integration_utils import get_reporting_integration_callbacks
from transformers.training_args import OptimizerNames
from transformers.utils import is_torch_bf16_gpu_available, is_torch_xla_available

from lm_eval_ext.checks import check_choice
from lm_eval_ext.errors import UserError
from lm_eval_ext.training.dapo.settings import Optimization
from lm_eval_ext.training.saved_model import ALL_LINEAR


def check_optimizer(optimization: Optimization) -> None:
    """Raise `UserError` for an optimizer or a schedule that transformers cannot make here."""
    check_choice("optimizer", optimization.optimizer, [name.value for name in OptimizerNames])
    reason = "it follows an evaluation, and there is none"
    try:
        made = get_scheduler(
            optimization.schedule,
            torch.optim.SGD([torch.zeros(1)], lr=optimization.learning_rate),
            num_warmup_steps=optimization.warmup_steps,
            num_training_steps=optimization.steps,
        )
    except (ValueError, TypeError) as error:
        made, reason = None, str(error).partition("\n")[0]
    if not isinstance(made, torch.optim.lr_scheduler.LambdaLR):
        raise UserError(
            f"schedule={optimization.schedule} cannot be used: {reason}; use constant_with_warmup, "
            "constant, linear or cosine"
        )


def check_mixed_precision(bf16: bool) -> None:
    """Raise `UserError` for mixed precision on a machine that has none."""
    if bf16 and not (is_torch_bf16_gpu_available() or is_torch_xla_available()):
        raise UserError(
            "bf16=True needs a GPU that computes in bfloat16, and there is none: leave --bf16 out"
        )


def check_reports(report_to: Sequence[str]) -> None:
    """Raise `UserError` for something to report to that is unknown or not installed."""
    if tuple(report_to) in (("none",), ("all",)):
        return
    for name in report_to:
        try:
            for callback in get_reporting_integration_callbacks([name]):
                callback()  # says what it needs
        except (ValueError, RuntimeError, ImportError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise UserError(
                f"report_to={name}: {reason} (or leave --report-to out: log.jsonl has every figure)"
            ) from error


def check_adapted_modules(model: PreTrainedModel, modules: str) -> None:
    """Raise `UserError` for modules that cannot get an adapter."""
    if modules == ALL_LINEAR:
        return
    tied = []
    if getattr(model.config, "tie_word_embeddings", False):
        tied = [model.get_input_embeddings(), model.get_output_embeddings()]
    for name in modules.split("+"):
        # As peft matches them.
        found = [m for n, m in model.named_modules() if n == name or n.endswith(f".{name}")]
        if not name or not found:
            raise UserError(
                f"lora_modules={modules}: the model has no module {name!r}; look at "
                "model.named_modules()"
            )
        for module in found:
            weight = getattr(module, "weight", None)
            if weight is None or weight.ndim < 2:
                raise UserError(
                    f"lora_modules={modules}: {name!r} is a {type(module).__name__}, and adapters "
                    "need a layer with a matrix, such as q_proj"
                )
            if any(module is other for other in tied):
                raise UserError(
                    f"lora_modules={modules}: {name!r} shares its matrix with another layer, so "
                    "an adapter cannot be merged into it; leave it out"
                )


def check_positions(*, n_positions: int, max_new_tokens: int, rsp_length: int) -> None:
    """Raise `UserError` if rollouts leave no room for a prompt."""
    if n_positions - max_new_tokens - rsp_length < 1:
        vectors = f" and rsp_length={rsp_length}" if rsp_length else ""
        raise UserError(
            f"max_new_tokens={max_new_tokens}{vectors} leave no room for a prompt in the model's "
            f"{n_positions} positions: give a smaller --max-new-tokens"
        )

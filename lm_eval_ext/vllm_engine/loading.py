"""Load a model in vLLM with what attempts need, and turn its refusals into one line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lm_eval_ext.errors import UserError

if TYPE_CHECKING:
    from transformers import GenerationConfig, PretrainedConfig

LOGITS_PROCESSORS = {
    "0": "lm_eval_ext.vllm_engine.attempt_sampler:AttemptSampler",
    "1": "lm_eval_ext.vllm_engine.second_runner:SecondRunnerSampler",
}
"""By the value of `RUNNER`: the processor for vLLM's first and for its second model runner."""

WORKER_EXTENSION = "lm_eval_ext.vllm_engine.worker.AttemptWorker"

RUNNER = "VLLM_USE_V2_MODEL_RUNNER"
"""vLLM's variable that chooses a model runner: 0 for the first, which is our default, 1 for the
second."""

_OURS = ("logits_processors", "worker_extension_cls")


def with_attempt_sampler(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return vLLM's arguments with ours added, and set up its environment.

    Raises
    ------
    UserError
        For what cannot go together with attempts' own random streams.
    """
    for name in _OURS:
        if arguments.get(name):
            raise UserError(
                f"{name}={arguments[name]!r}: the wrappers for vLLM bring their own; leave it out, "
                "or use --model vllm"
            )
    if arguments.get("speculative_config"):
        raise UserError(
            "speculative_config: vLLM takes no logits processors then, and attempts are sampled by "
            "one; leave it out, or use --model vllm"
        )
    if arguments.get("truncation_side", "left") != "left":
        raise UserError(
            f"truncation_side={arguments['truncation_side']!r}: prompts are cut from the left; "
            "leave it out"
        )
    runner = os.environ.setdefault(RUNNER, "0")
    if runner not in LOGITS_PROCESSORS:
        raise UserError(f"{RUNNER}={runner} must be 0, the default, or 1")
    if runner == "1" and _on_cpu():
        raise UserError(
            f"{RUNNER}=1: vLLM's second model runner fails on CPUs at the first forward pass; "
            f"unset {RUNNER}"
        )
    if arguments.get("distributed_executor_backend") == "ray" and _on_cpu():
        raise UserError(
            "distributed_executor_backend=ray: vLLM's CPU build has no Ray executor; leave it out "
            "(data_parallel_size=2 starts Ray's actors without it)"
        )
    return {
        **arguments,
        "logits_processors": [LOGITS_PROCESSORS[runner]],
        "worker_extension_cls": WORKER_EXTENSION,
    }


def model_runner(arguments: Mapping[str, Any]) -> int:
    """Return which of vLLM's model runners, 1 or 2, arguments of `with_attempt_sampler` are for."""
    return 1 if arguments["logits_processors"] == [LOGITS_PROCESSORS["0"]] else 2


def _on_cpu() -> bool:
    try:
        from vllm.platforms import current_platform
    except ImportError:
        return False  # which `lm_eval_class` says
    return bool(current_platform.is_cpu())


def check_head_size(pretrained: str, **config_arguments: Any) -> None:
    """Refuse a model whose heads vLLM's CPU build has no attention for.

    Raises
    ------
    UserError
        Naming the sizes there are.
    """
    from transformers import AutoConfig

    if not _on_cpu():
        return
    try:
        from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend
    except ImportError:
        return  # another release: it will say itself what it lacks
    config = AutoConfig.from_pretrained(pretrained, **config_arguments)
    size = _head_size(config)
    sizes = CPUAttentionBackend.get_supported_head_sizes()
    if size is not None and size not in sizes:
        raise UserError(
            f"pretrained={pretrained}: its attention heads have {size} dimensions, and vLLM's CPU "
            f"build has kernels for {', '.join(map(str, sizes))}; use --model sampled, rsp or "
            "epicar, or a GPU"
        )


def _head_size(config: PretrainedConfig) -> int | None:
    size = getattr(config, "head_dim", None)
    if size:
        return int(size)
    heads = getattr(config, "num_attention_heads", None)
    return int(config.hidden_size) // int(heads) if heads else None


def generation_defaults(
    pretrained: str, config: PretrainedConfig, revision: str | None
) -> GenerationConfig:
    """Return the model's own generation settings, from its configuration where no file has them."""
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(pretrained, revision=revision)
    except OSError:
        return GenerationConfig.from_model_config(config)


def refusal(pretrained: str, error: Exception) -> UserError:
    """Return what vLLM said while it loaded a model, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, TypeError) and "unexpected keyword argument" in str(error):
        return UserError(
            f"--model_args: {lines[0].rpartition(') ')[2] or lines[0]}; check its spelling against "
            "the arguments of this wrapper, of --model vllm and of vLLM"
        )
    # pydantic begins with how many errors there are and for which class.
    first = next((line for line in lines if "validation error" not in line), type(error).__name__)
    if isinstance(error, RuntimeError):
        first = f"vLLM did not start: {first.rstrip('.')}; its log above says why"
    return UserError(
        f"pretrained={pretrained}: {first.removeprefix('Value error, ')} (see docs/vllm.md)"
    )

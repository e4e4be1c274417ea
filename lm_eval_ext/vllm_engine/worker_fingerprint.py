"""What a model in vLLM is, in a few characters that change when it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lm_eval_ext.models.digests import canonical, digest
from lm_eval_ext.models.fingerprint import tokenizer_fingerprint, without_provenance

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# What vLLM makes of its arguments beside the configuration of the model, where it changes what is
# computed and not only where or how fast. Releases differ in what they have of these.
_OF_THE_MODEL = (
    "quantization",
    "quantization_config",
    "disable_sliding_window",
    "model_impl",
    "model_class_overrides",
)
_OF_THE_CACHE = (
    "cache_dtype",
    "calculate_kv_scales",
    "kv_cache_dtype_skip_layers",
    "sliding_window",
    "mamba_cache_dtype",
    "mamba_ssm_cache_dtype",
)


def model_settings(vllm_config: Any) -> dict[str, Any]:
    """Return what vLLM computes, as far as it is not in the weights.

    The configuration in an engine's ``VllmConfig`` is the one that is run, with ``hf_overrides``
    and the like applied.
    """
    model, cache = vllm_config.model_config, vllm_config.cache_config
    return {
        "config": without_provenance(model.hf_config.to_dict()),
        "dtype": str(model.dtype).removeprefix("torch."),
        **{f"model.{name}": getattr(model, name, None) for name in _OF_THE_MODEL},
        **{f"cache.{name}": getattr(cache, name, None) for name in _OF_THE_CACHE},
    }


def worker_fingerprints(engine: Any, tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """Return the fingerprints of a model in a loop or replicas of vLLM, and of its tokenizer.

    vLLM joins weights and divides them among its workers, so they are not those of
    `lm_eval_ext.models.fingerprint.fingerprints`, and change with the number of workers. vLLM's
    release and the precision it computes in change texts like weights do, and count too, as does
    what its arguments make of the model; see `model_settings`.
    """
    import vllm

    about = {"settings": engine.facts()["model_settings"], "vllm": str(vllm.__version__)}
    weights = [str(part) for part in engine.ask("lm_eval_ext_fingerprint")]
    return {
        "model": digest("vllm model", canonical(about), *weights),
        "tokenizer": tokenizer_fingerprint(tokenizer),
    }

"""What a model in vLLM is, in a few characters that change when it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lm_eval_ext.store.fingerprint import tokenizer_fingerprint
from lm_eval_ext.store.key import canonical, digest

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from lm_eval_ext.vllm_engine.engine_loop import EngineLoop
    from lm_eval_ext.vllm_engine.replicas import Replicas

# Settings that say where a model came from, not what it computes.
_PROVENANCE = ("_name_or_path", "transformers_version")


def worker_fingerprints(
    engine: EngineLoop | Replicas, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase
) -> dict[str, str]:
    """Return the fingerprints of a model in vLLM and of its tokenizer.

    vLLM joins weights and divides them among its workers, so they are not those of
    `lm_eval_ext.store.fingerprint.fingerprints`, and change with the number of workers. vLLM's
    release and the precision it computes in change texts like weights do, and count too.

    Parameters
    ----------
    engine
        What holds the model.
    config
        Its configuration.
    tokenizer
        Its tokenizer.
    """
    import vllm

    about = {
        "config": {k: v for k, v in config.to_dict().items() if k not in _PROVENANCE},
        "vllm": str(vllm.__version__),
        "dtype": engine.facts()["dtype"],
    }
    weights = [str(part) for part in engine.ask("lm_eval_ext_fingerprint")]
    return {
        "model": digest("vllm model", canonical(about), *weights),
        "tokenizer": tokenizer_fingerprint(tokenizer),
    }

"""Sizes of a model, from its configuration alone: no weights are read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from lm_eval_ext.engine.memory import (
    key_value_numbers_per_token,
    layer_configurations,
)
from lm_eval_ext.errors import UserError
from lm_eval_ext.models.model_loading import MODEL_NAMES, model_location

BYTES_OF_DTYPE = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of a number, by the name of its type."""

# What a configuration has that the cost model does not count.
_UNCOUNTED = {
    "kv_lora_rank": "compressed keys and values",
    "quantization_config": "quantized weights",
    "attn_layer_period": "layers without attention",
    "layers_block_type": "layers without attention",
    "hybrid_override_pattern": "layers without attention",
}
_ATTENTION_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}
_EXPERTS_PER_TOKEN = ("num_experts_per_tok", "moe_k", "top_k_experts")
_ROUTED_EXPERT = re.compile(r"\.experts\.")


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a model: the weights that a pass reads, and the cache that it keeps.

    Parameters
    ----------
    name
        The model as it was named.
    parameters
        Number of weights, tied ones once.
    embedding
        Weights of embeddings that a pass only looks up: of tokens, of positions, of layers (Gemma
        3n). Not those that are also the output layer.
    routed
        Weights of experts a token is routed to; 0 without experts.
    experts, experts_per_token
        Routed experts of a layer, and how many of them a token passes; 1 and 1 without.
    cache_numbers
        Numbers that one token adds to the key/value cache.
    vocabulary
        Entries of the vocabulary.
    dtype
        Type the weights are stored in.
    """

    name: str
    parameters: int
    embedding: int
    routed: int
    experts: int
    experts_per_token: int
    layers: int
    cache_numbers: int
    vocabulary: int
    dtype: str

    @property
    def active(self) -> float:
        """Weights that take part in a token's matrix products, the output layer included."""
        unused = self.routed * (1 - self.experts_per_token / self.experts)
        return self.parameters - self.embedding - unused

    def weights_read(self, tokens: float) -> float:
        """Return how many weights a pass over so many tokens reads.

        An expert is read if any token is routed to it; routing is taken to be uniform.
        """
        untouched = (1 - self.experts_per_token / self.experts) ** tokens
        return self.parameters - self.embedding - self.routed * untouched


def read_shape(source: str) -> ModelShape:
    """Read a model's configuration and count its weights.

    The model is built without memory for its weights, which counts them exactly for every
    architecture that transformers knows.

    Parameters
    ----------
    source
        Hub id, folder or ``config.json`` of a causal model, or the name of one that is shipped or
        fetched.

    Raises
    ------
    UserError
        If there is no such configuration, or it describes something that is not counted here: an
        encoder, layers without attention, compressed keys and values, quantized weights.
    """
    from transformers import AutoConfig
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    location = model_location(source, argument="--pretrained")
    try:
        config = AutoConfig.from_pretrained(location)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"--pretrained={source}: {reason} (give a Hub id, a folder, a config.json, or one of "
            f"{', '.join(MODEL_NAMES)})"
        ) from error
    return shape_of(config, name=source)


def shape_of(config: Any, *, name: str) -> ModelShape:
    """Return the sizes of a model with this configuration of transformers'; see `read_shape`."""
    text = config.get_text_config()
    _refuse_uncounted(config, text, name)
    model = _empty_model(text, name)
    routed = sum(p.numel() for path, p in model.named_parameters() if _ROUTED_EXPERT.search(path))
    experts, per_token = _routing(text, routed, name)
    stored = getattr(text, "dtype", None) or getattr(config, "dtype", None)
    return ModelShape(
        name=name,
        parameters=sum(p.numel() for p in model.parameters()),
        embedding=_looked_up(model, model.get_output_embeddings().weight),
        routed=routed,
        experts=experts,
        experts_per_token=per_token,
        layers=len(layer_configurations(text)),
        cache_numbers=_cache_numbers(text, name),
        vocabulary=text.vocab_size,
        dtype="float32" if stored is None else str(stored).removeprefix("torch."),
    )


def _refuse_uncounted(config: Any, text: Any, name: str) -> None:
    """Raise where the cost model would be wrong."""
    if getattr(config, "is_encoder_decoder", False):
        raise UserError(f"--pretrained={name} has an encoder: only causal models are planned")
    layers = layer_configurations(text) if hasattr(text, "num_hidden_layers") else [text]
    found = [
        reason
        for key, reason in _UNCOUNTED.items()
        if any(getattr(one, key, None) is not None for one in (*layers, config))
    ]
    if set(getattr(text, "layer_types", None) or ()) - _ATTENTION_LAYERS:
        found.append("layers without softmax attention")
    if not all(getattr(one, "num_attention_heads", None) for one in layers):
        found.append("no attention")
    if found:
        raise UserError(
            f"--pretrained={name} ({text.model_type}) has {found[0]}, which the cost model does "
            "not count: time a run with --limit instead"
        )


def _empty_model(text: Any, name: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(text)
    except (ValueError, ImportError) as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise UserError(
            f"--pretrained={name}: transformers builds no causal model of it ({reason}): name a "
            "causal language model"
        ) from error


def _looked_up(model: Any, outputs: Any) -> int:
    """Return the weights of embeddings, without one that is also the output layer."""
    from torch import nn

    weights = {id(m.weight): m.weight for m in model.modules() if isinstance(m, nn.Embedding)}
    return sum(weight.numel() for weight in weights.values() if weight is not outputs)


def _cache_numbers(text: Any, name: str) -> int:
    try:
        return key_value_numbers_per_token(text)
    except UserError as error:
        reason = str(error).rpartition(":")[0]
        raise UserError(
            f"--pretrained={name}: {reason}: time a run with --limit instead"
        ) from error


def _routing(text: Any, routed: int, name: str) -> tuple[int, int]:
    """Return the routed experts of a layer, and how many of them a token passes."""
    if not routed:
        return 1, 1
    names = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    experts = next((getattr(text, key) for key in names if getattr(text, key, None)), None)
    per_token = next(
        (getattr(text, key) for key in _EXPERTS_PER_TOKEN if getattr(text, key, None)), None
    )
    if experts is None or per_token is None:
        raise UserError(
            f"--pretrained={name} ({text.model_type}) has experts, but its configuration does "
            "not say how many a token passes: time a run with --limit instead"
        )
    return int(experts), int(per_token)

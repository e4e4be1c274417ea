"""Heads and blocks removed for good, with the tensors they took up.

The rest must be a model that ``AutoModelForCausalLM`` loads: of the same architecture with another
configuration, so with one number of query heads and one of key/value heads for all layers. Llama's
configuration also demands a number of heads that divides the hidden size. Where it does not, the
model becomes a Mistral without sliding window, which computes the same.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import nn
from transformers import AutoModelForCausalLM, MistralConfig, MistralForCausalLM, PreTrainedModel

from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.sinks.block_layout import Block, Layout, find_layout, plain_weight
from lm_eval_ext.methods.sinks.masks import channels_of, pruned, remove_blocks
from lm_eval_ext.methods.sinks.selection import Removal

_INPUTS = ("q_proj", "k_proj", "v_proj")
_TOLERANCE = 1e-3  # of the spread of the logits; half precision is given more
_TOLERANCE_HALF_PRECISION = 0.1


class Kept(NamedTuple):
    """Key/value heads and query heads that a layer keeps."""

    groups: list[int]
    heads: list[int]


def kept_parts(layout: Layout, removal: Removal) -> list[Kept]:
    """Return what each layer keeps; a `UserError` if layers or groups would differ in shape."""
    parts, sizes = [], {}
    for layer in range(layout.n_layers):
        removed = set(removal.heads_of(layer))
        by_group = [
            [head for head in layout.heads_of_group(group) if head not in removed]
            for group in range(layout.n_kv_heads)
        ]
        groups = [group for group, heads in enumerate(by_group) if heads]
        per_group = {len(by_group[group]) for group in groups}
        if len(per_group) != 1:
            raise UserError(
                f"layer {layer} would keep {' or '.join(map(str, sorted(per_group))) or 'no'} "
                "query heads per key/value head, and an architecture has one number for all: add "
                "allocation=even, or export the zeroed form"
            )
        sizes[(len(groups), per_group.pop())] = layer
        parts.append(Kept(groups, [head for heads in by_group for head in heads]))
    if len(sizes) > 1:
        (one, layer), (other, other_layer) = list(sizes.items())[:2]
        raise UserError(
            f"layer {layer} would keep {one[0] * one[1]} heads and layer {other_layer} "
            f"{other[0] * other[1]}, and {layout.config.model_type} has one number of heads for "
            "all layers: add allocation=even, or export the zeroed form"
        )
    return parts


def shrink(model: PreTrainedModel, removal: Removal) -> PreTrainedModel:
    """Remove heads or blocks from a model, its tensors and its configuration, for good.

    The result, the model itself or a Mistral of the same tensors, is compared with the masked model
    on a few tokens. The model must be neither quantized nor with adapters.

    Raises
    ------
    UserError
        If the architecture cannot express the smaller model.
    """
    layout = find_layout(model)
    with pruned(model, removal):
        expected = _probe(model)
    if removal.blocks:
        remove_blocks(layout, removal)
    else:
        _shrink_heads(model, layout, removal)
    model = _valid(model)
    _check_loadable(model)
    difference = float((_probe(model) - expected).square().mean().sqrt() / expected.std())
    half = model.dtype in (torch.float16, torch.bfloat16)
    if not difference <= (_TOLERANCE_HALF_PRECISION if half else _TOLERANCE):
        raise UserError(
            f"{type(model).__name__} with smaller tensors gives other logits than masked "
            f"(off by {difference:.2g} of their spread): export the zeroed form"
        )
    return model


def _shrink_heads(model: PreTrainedModel, layout: Layout, removal: Removal) -> None:
    parts = kept_parts(layout, removal)
    for block in layout.blocks:
        missing = [name for name in _INPUTS if not hasattr(block.attention, name)]
        if missing:
            raise UserError(
                f"{type(block.attention).__name__} has no {', '.join(missing)}: heads of "
                f"{layout.config.model_type} cannot be cut out; export the zeroed form"
            )
        plain_weight(block)
    n_groups, n_heads = len(parts[0].groups), len(parts[0].heads)
    for block, kept in zip(layout.blocks, parts, strict=True):
        _cut(block, kept)
        block.attention.num_key_value_groups = n_heads // n_groups  # type: ignore[assignment]
    config = layout.config
    config.head_dim = layout.blocks[0].head_dim
    config.num_attention_heads = n_heads
    config.num_key_value_heads = n_groups


@torch.no_grad()
def _cut(block: Block, kept: Kept) -> None:
    """Keep the rows and columns of some heads in the projections of one attention."""
    for name, heads in zip(_INPUTS, (kept.heads, kept.groups, kept.groups), strict=True):
        linear = getattr(block.attention, name)
        rows = channels_of(heads, block.head_dim).to(linear.weight.device)
        linear.weight = nn.Parameter(linear.weight[rows].clone(), requires_grad=False)
        if linear.bias is not None:
            linear.bias = nn.Parameter(linear.bias[rows].clone(), requires_grad=False)
        linear.out_features = len(rows)
    projection = block.projection
    weight = plain_weight(block)
    columns = channels_of(kept.heads, block.head_dim).to(weight.device)
    projection.weight = nn.Parameter(weight[:, columns].clone(), requires_grad=False)
    projection.in_features = len(columns)  # type: ignore[assignment]


def _valid(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model under a configuration that loads."""
    config = model.config
    try:
        type(config).from_dict(config.to_dict())
    except Exception as error:  # transformers wraps the reason in an error of its own
        if config.model_type == "llama" and not (config.attention_bias or config.mlp_bias):
            return _as_mistral(model)
        reason = str(error.__cause__ or error).strip().partition("\n")[0].rstrip(".")
        raise UserError(
            f"{type(model).__name__} cannot express what is left ({reason}): choose another ratio, "
            "or export the zeroed form"
        ) from error
    return model


def _as_mistral(model: PreTrainedModel) -> PreTrainedModel:
    """Return a Llama as a Mistral that holds the same tensors."""
    settings = model.config.to_dict()
    for name in ("model_type", "architectures", "attention_bias", "mlp_bias", "pretraining_tp"):
        settings.pop(name, None)
    config = MistralConfig.from_dict({**settings, "sliding_window": None})
    with torch.device("meta"):
        other = MistralForCausalLM(config)
    other.load_state_dict(model.state_dict(), assign=True)
    other.tie_weights()
    other.model.rotary_emb = model.model.rotary_emb  # its buffers are not in the state
    other.generation_config = model.generation_config
    return other.eval()


def _check_loadable(model: PreTrainedModel) -> None:
    """Check that the configuration describes the tensors."""
    with torch.device("meta"):
        described = AutoModelForCausalLM.from_config(copy.deepcopy(model.config)).state_dict()
    ours = model.state_dict()
    names = [
        name
        for name in {**described, **ours}
        if name not in ours or name not in described or ours[name].shape != described[name].shape
    ]
    if names:
        raise UserError(
            f"{type(model).__name__} cannot express what is left (no place for {names[0]}): export "
            "the zeroed form"
        )


@torch.inference_mode()
def _probe(model: PreTrainedModel) -> torch.Tensor:
    """Return the logits of a few tokens."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.config.get_text_config().vocab_size
    ids = torch.randint(vocabulary, (2, 16), generator=generator).to(model.device)
    return model(input_ids=ids, use_cache=False).logits.float()

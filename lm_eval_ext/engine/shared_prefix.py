"""Attention over shared prompts, computed once for all rows below them.

Every row (an attempt) attends to the keys of its prompt and to its own. What rows have in common is
attended to once: one matrix product over their stacked queries. The parts are merged by their
log-sum-exp, which is exact. This is the decomposition of Hydragen (Juravsky et al. 2024,
arXiv:2402.05099, section 3) and of cascade attention, over a tree of prompts, written as an
attention function that transformers calls in place of its own.

`prefill` reads prompts, `SharedPrefix` lays the prompts of a batch out, and `forward` runs any
number of further positions per row against them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from lm_eval_ext.engine.attention_override import attention_override
from lm_eval_ext.engine.inputs import padded
from lm_eval_ext.engine.partial_attention import (
    HiddenKeys,
    Scratch,
    attend_to_own,
    merge_parts,
    softcapped_attention,
)
from lm_eval_ext.engine.private_cache import PrivateCache
from lm_eval_ext.engine.prompt_layout import PromptCache, SharedPrefix
from lm_eval_ext.engine.timing import Timing

ATTENTION_NAME = "lm_eval_ext_shared_prefix"

# Prompts are read in batches of at most this many tokens, padding included.
PREFILL_TOKENS = 8192
# On CPUs a pass of a large model is shorter, so that a progress bar moves within seconds: at most
# this many multiplications, but always enough tokens to fill a matrix product.
_CPU_MULTIPLICATIONS, _CPU_TOKENS = 2**38, 512
# The rest of a prompt after a parent is read this many positions at a time.
_CHUNK = 512


@dataclass(eq=False)
class _Step:
    """One forward pass: the positions of the queries, and which keys they may see."""

    prefix: SharedPrefix
    positions: torch.Tensor  # (n_rows, n_queries), on the CPU
    starts: torch.Tensor  # (n_rows,): first real private column
    n_columns: int  # private columns, those of this pass included
    masks: dict[Any, Any] = field(default_factory=dict)
    scratch: Scratch = field(default_factory=Scratch)

    @property
    def causal(self) -> bool:
        """Whether every query sees the private columns up to its own, and there are no others."""
        return self.positions.shape[1] == self.n_columns and not bool(self.starts.any())

    def prefix_masks(self, group: int, window: int | None) -> list[list[HiddenKeys | None]]:
        key = ("prefix", group, window)
        if key not in self.masks:
            self.masks[key] = self.prefix.masks(self.positions, group, window)
        return self.masks[key]

    def private_mask(self, window: int | None, device: torch.device) -> HiddenKeys | None:
        """Return which own keys are hidden, shape (n_rows, 1, n_queries, keys), if any.

        None too where only those after a query are, in a `causal` pass.
        """
        key = ("private", window, device)
        if key not in self.masks:
            hidden = self._private_mask(window)
            self.masks[key] = None if hidden is None else hidden.to(device)
        return self.masks[key]

    def _private_mask(self, window: int | None) -> HiddenKeys | None:
        n_queries, n_columns = self.positions.shape[1], self.n_columns
        if window is not None and n_columns <= window:
            window = None
        if window is None and (self.causal or (n_queries == 1 and not bool(self.starts.any()))):
            return None
        columns = torch.arange(n_columns)
        queries = columns[n_columns - n_queries :, None]
        # Padding on the left is hidden, but sees itself: a query without any key would be NaN.
        hidden = (columns < self.starts[:, None, None]) & (columns != queries)
        hidden = hidden | (columns > queries)
        if window is not None:
            hidden = hidden | (queries - columns >= window)
        return HiddenKeys.where(hidden[:, None])


def shared_prefix_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    shared_prefix: _Step | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend to the shared prompts and to the row's own keys.

    Queries have the shape (n_rows, heads, n_queries, head_dim), the row's own keys and values
    (n_rows, kv_heads, n_columns, head_dim). Without `shared_prefix` (a prefill) this is SDPA.
    """
    if shared_prefix is None:
        if softcap is not None:
            return softcapped_attention(query, key, value, attention_mask, scaling, softcap), None
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    layer: int = module.layer_idx  # type: ignore[assignment]
    kv_heads = key.shape[1]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    # (n_rows, kv_heads, group, n_queries, head_dim): query heads that share a key/value head.
    query = (query * scale).unflatten(1, (kv_heads, -1))
    hidden = shared_prefix.private_mask(sliding_window, query.device)
    causal = hidden is None and shared_prefix.causal
    scratch = shared_prefix.scratch
    attention = attend_to_own(query, key, value, hidden, softcap, causal=causal, scratch=scratch)
    masks = shared_prefix.prefix_masks(query.shape[2], sliding_window)
    on_prompt = shared_prefix.prefix.attend(layer, query, masks, softcap, scratch)
    if on_prompt is not None:
        attention = merge_parts(attention, on_prompt)
    output = attention.normalised().to(value.dtype)  # (rows, kv_heads, group, q, dim)
    return output.flatten(1, 2).transpose(1, 2).contiguous(), None


def shared_prefix_mode(model: PreTrainedModel) -> AbstractContextManager[None]:
    """Let the model attend through `shared_prefix_attention` until the end of the block."""
    return attention_override(model, name=ATTENTION_NAME, attention=shared_prefix_attention)


def tokens_per_pass(model: PreTrainedModel) -> int:
    """Return how many tokens of prompts the model reads in one pass."""
    if model.device.type != "cpu":
        return PREFILL_TOKENS
    n_tokens = _CPU_MULTIPLICATIONS // max(1, model.num_parameters())
    return min(PREFILL_TOKENS, max(_CPU_TOKENS, n_tokens))


def prefill(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    parents: Sequence[PromptCache | None] | None = None,
    *,
    timing: Timing | None = None,
) -> list[PromptCache]:
    """Read prompts, each after its parent if it has one, inside `shared_prefix_mode`.

    Padding is on the right, where causal attention keeps it from touching anything. Empty prompts
    are allowed.
    """
    timing = timing or Timing()
    max_tokens = tokens_per_pass(model)
    before = [None] * len(prompts) if parents is None else list(parents)
    caches: list[PromptCache | None] = [None] * len(prompts)
    # Those that follow something are read apart from beginnings, which have a faster way.
    order = sorted(range(len(prompts)), key=lambda i: (before[i] is None, -len(prompts[i])))
    while order:
        longest = max(1, len(prompts[order[0]]))
        follows = before[order[0]] is not None
        count = sum((before[i] is not None) == follows for i in order)
        n = min(count, max(1, max_tokens // longest))
        batch, order = order[:n], order[n:]
        # An empty prompt reads a token too, and keeps nothing of it.
        ids, _ = padded([prompts[i] or (0,) for i in batch], device=model.device)
        parents_of_batch = [parent for i in batch if (parent := before[i]) is not None]
        with timing.part("prefill", sum(len(prompts[i]) for i in batch)):
            layers = _read(model, ids, parents_of_batch)
        for row, i in enumerate(batch):
            length = len(prompts[i])
            own = tuple(
                (_copy(keys[row, :, :length].transpose(-1, -2)), _copy(values[row, :, :length]))
                for keys, values in layers
            )
            caches[i] = PromptCache(own, length, before[i])
    return [cache for cache in caches if cache is not None]


def _copy(states: torch.Tensor) -> torch.Tensor:
    """Copy a part of a padded batch, which a view would keep in memory."""
    return states.clone(memory_format=torch.contiguous_format)


def _read(
    model: PreTrainedModel, ids: torch.Tensor, parents: Sequence[PromptCache]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return every layer's keys and values, shape (n_rows, kv_heads, length, head_dim).

    `parents` has one for every row, or is empty.
    """
    cache: DynamicCache | PrivateCache
    if not parents:
        cache = DynamicCache()
        model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    else:
        distinct = list(dict.fromkeys(parents))
        prefix = SharedPrefix(distinct, [distinct.index(parent) for parent in parents])
        cache = PrivateCache([0] * len(ids))
        for chunk in ids.split(_CHUNK, dim=1):
            forward(model, chunk, prefix=prefix, cache=cache, logits_to_keep=1)
    return [(layer.keys, layer.values) for layer in cache.layers]


def forward(
    model: PreTrainedModel,
    inputs: torch.Tensor,
    *,
    prefix: SharedPrefix,
    cache: PrivateCache,
    logits_to_keep: int = 0,
) -> torch.Tensor:
    """Run the next positions of every row inside `shared_prefix_mode`, and add them to the cache.

    Inputs are token ids of shape (n_rows, n_queries), or embeddings of shape (n_rows, n_queries,
    hidden), padded on the left as ``cache.starts`` says. Returns the logits of the last positions,
    shape (n_rows, logits_to_keep, vocabulary); 0 keeps all.
    """
    columns = torch.arange(cache.width, cache.width + inputs.shape[1])
    offsets = prefix.row_lengths - cache.starts
    positions = (columns + offsets[:, None]).clamp_min(0)
    step = _Step(prefix, positions, cache.starts, cache.width + inputs.shape[1])
    named = {"inputs_embeds": inputs} if inputs.is_floating_point() else {"input_ids": inputs}
    output = model(
        **named,
        position_ids=positions.to(inputs.device),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=logits_to_keep,
        shared_prefix=step,
    )
    return output.logits

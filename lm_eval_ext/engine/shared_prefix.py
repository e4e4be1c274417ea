"""Attention over a shared prompt, computed once per prompt for all its attempts.

Every row (an attempt) attends to the keys of its prompt and to its own. The prompt's part is one
matrix product per prompt over the stacked queries of its rows; the own part is an ordinary short
attention; the two are merged by their log-sum-exp, which is exact. This is the decomposition of
Hydragen (Juravsky et al. 2024, arXiv:2402.05099, section 3) and of cascade attention, written as
an attention function that transformers calls in place of its own.

The interface is narrow: `prefill` reads prompts, `SharedPrefix` lays the prompts of a batch out,
and `forward` runs any number of further positions per row against them. Decoding uses it one
token at a time; scoring finished responses uses it with the whole response at once.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.cache_utils import DynamicCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from lm_eval_ext.engine.partial_attention import (
    HiddenKeys,
    PartialAttention,
    attend_partly,
    merge_parts,
    softcapped_attention,
)
from lm_eval_ext.engine.private_cache import PrivateCache
from lm_eval_ext.engine.timing import Timing

ATTENTION_NAME = "lm_eval_ext_shared_prefix"

# Prompts are read in batches of at most this many tokens, padding included.
PREFILL_TOKENS = 8192


class PromptCache(NamedTuple):
    """Keys and values of one prompt.

    Parameters
    ----------
    layers
        One (keys, values) pair per layer, each of shape (kv_heads, length, head_dim).
    length
        Number of prompt tokens.
    """

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    length: int


class SharedPrefix:
    """The prompts of a batch and which row belongs to which.

    Parameters
    ----------
    prompts
        The distinct prompts of the batch.
    prompt_of_row
        Index into `prompts` for every row, shape (n_rows,).
    """

    def __init__(self, prompts: Sequence[PromptCache], prompt_of_row: Sequence[int]) -> None:
        self.n_prompts = len(prompts)
        self.lengths = torch.tensor([prompt.length for prompt in prompts])
        self.longest = max(1, int(self.lengths.max()))  # empty prompts have one hidden column
        self.layers = [
            self._stack([prompt.layers[i] for prompt in prompts])
            for i in range(len(prompts[0].layers))
        ]
        self._lay_out(np.asarray(prompt_of_row, dtype=np.int64))

    def with_rows(self, prompt_of_row: Sequence[int]) -> SharedPrefix:
        """Return the same prompts with other rows, without copying keys and values."""
        other = copy.copy(self)
        other._lay_out(np.asarray(prompt_of_row, dtype=np.int64))
        return other

    def _lay_out(self, prompt_of_row: NDArray[np.int64]) -> None:
        """Place the rows on a grid of prompts x slots, so that one product serves all prompts.

        Unused cells repeat row 0 and are never read back.
        """
        n_rows = len(prompt_of_row)
        self.row_lengths = self.lengths[torch.from_numpy(prompt_of_row)]
        order = np.argsort(prompt_of_row, kind="stable")
        counts = np.bincount(prompt_of_row, minlength=self.n_prompts)
        first = np.concatenate([[0], np.cumsum(counts)[:-1]])
        slots = np.empty(n_rows, dtype=np.int64)
        slots[order] = np.arange(n_rows) - np.repeat(first, counts)
        self.n_slots = int(counts.max())
        cells = prompt_of_row * self.n_slots + slots
        grid = np.zeros(self.n_prompts * self.n_slots, dtype=np.int64)
        grid[cells] = np.arange(n_rows)
        in_place = len(grid) == n_rows and bool((cells == np.arange(n_rows)).all())
        self._row_of_cell = None if in_place else torch.from_numpy(grid)
        self._cell_of_row = None if in_place else torch.from_numpy(cells)

    def _stack(
        self, layer: Sequence[tuple[torch.Tensor, torch.Tensor]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Pad one layer's prompts on the right to shape (n_prompts, kv_heads, longest, dim)."""
        stacked = []
        for states in zip(*layer, strict=True):
            heads, _, size = states[0].shape
            padded = states[0].new_zeros((self.n_prompts, heads, self.longest, size))
            for target, source in zip(padded, states, strict=True):
                target[:, : source.shape[1]] = source
            stacked.append(padded)
        return stacked[0], stacked[1]

    def to_cells(self, rows: torch.Tensor) -> torch.Tensor:
        """Arrange a tensor of shape (n_rows, ...) as (n_prompts, n_slots, ...)."""
        if self._row_of_cell is not None:
            rows = rows.index_select(0, self._row_of_cell.to(rows.device))
        return rows.unflatten(0, (self.n_prompts, self.n_slots))

    def to_rows(self, cells: torch.Tensor) -> torch.Tensor:
        """Undo `to_cells`."""
        rows = cells.flatten(0, 1)
        if self._cell_of_row is not None:
            rows = rows.index_select(0, self._cell_of_row.to(rows.device))
        return rows


@dataclass(eq=False)
class _Step:
    """One forward pass: where the queries stand, and which keys they may see."""

    prefix: SharedPrefix
    query_positions: torch.Tensor  # (n_rows, n_queries)
    starts: torch.Tensor  # (n_rows,): first real private column
    masks: dict[tuple[str, int | None], HiddenKeys | None] = field(default_factory=dict)

    def prefix_mask(self, window: int | None) -> HiddenKeys | None:
        """Return which prompt keys are hidden: broadcasts to (prompts, 1, slots, 1, q, keys)."""
        key = ("prefix", window)
        if key not in self.masks:
            device = self.query_positions.device
            lengths = self.prefix.lengths.to(device)
            columns = torch.arange(self.prefix.longest, device=device)
            hidden = (columns >= lengths[:, None])[:, None, None, None, None, :]
            if window is not None:
                positions = self.prefix.to_cells(self.query_positions)[:, None, :, None, :, None]
                hidden = hidden | (positions - columns >= window)
            self.masks[key] = HiddenKeys.where(hidden)
        return self.masks[key]

    def private_mask(self, n_columns: int, window: int | None) -> HiddenKeys | None:
        """Return which own keys are hidden, of shape (n_rows, 1, 1, n_queries, n_columns)."""
        key = ("private", window)
        if key not in self.masks:
            device = self.query_positions.device
            n_queries = self.query_positions.shape[1]
            columns = torch.arange(n_columns, device=device)
            queries = columns[n_columns - n_queries :, None]
            # Padding on the left is hidden, but sees itself: a query without any key would be NaN.
            padding = (columns < self.starts.to(device)[:, None, None]) & (columns != queries)
            hidden = (columns > queries) | padding
            if window is not None:
                hidden = hidden | (queries - columns >= window)
            self.masks[key] = HiddenKeys.where(hidden[:, None, None])
        return self.masks[key]


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
    """Attend to the shared prompt and to the row's own keys.

    Has the signature of transformers' attention functions. Without `shared_prefix` (a prefill) it
    is transformers' SDPA.

    Parameters
    ----------
    query
        Shape (n_rows, heads, n_queries, head_dim).
    key, value
        The row's own keys and values, shape (n_rows, kv_heads, n_columns, head_dim).
    shared_prefix
        The prompts and positions of this pass.
    """
    if shared_prefix is None:
        if softcap is not None:
            return softcapped_attention(query, key, value, attention_mask, scaling, softcap), None
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    prefix = shared_prefix.prefix
    prefix_keys, prefix_values = prefix.layers[module.layer_idx]  # type: ignore[index]
    n_columns, kv_heads = key.shape[2], key.shape[1]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    # (n_rows, kv_heads, group, n_queries, head_dim): query heads that share a key/value head.
    query = (query * scale).unflatten(1, (kv_heads, -1))

    cells = prefix.to_cells(query).transpose(1, 2)  # (prompts, kv_heads, slots, group, q, dim)
    hidden = shared_prefix.prefix_mask(sliding_window)
    on_prompt = attend_partly(cells, prefix_keys, prefix_values, hidden, softcap)
    prompt_part = PartialAttention(*(prefix.to_rows(part.transpose(1, 2)) for part in on_prompt))

    hidden = shared_prefix.private_mask(n_columns, sliding_window)
    own_part = attend_partly(query, key, value, hidden, softcap)

    output = merge_parts(prompt_part, own_part).to(value.dtype)  # (rows, kv_heads, group, q, dim)
    return output.flatten(1, 2).transpose(1, 2).contiguous(), None


@contextmanager
def shared_prefix_mode(model: PreTrainedModel) -> Iterator[None]:
    """Let the model attend through `shared_prefix_attention`, and restore it afterwards."""
    # The mask function must be registered under the same name: without it transformers would
    # build no mask at all for the prefill.
    AttentionInterface.register(ATTENTION_NAME, shared_prefix_attention)
    AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)
    previous = model.config._attn_implementation
    model.set_attn_implementation(ATTENTION_NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(previous)


def prefill(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], *, timing: Timing | None = None
) -> list[PromptCache]:
    """Read prompts and return their keys and values.

    Prompts are batched with padding on the right, where causal attention keeps it from touching
    anything.

    Parameters
    ----------
    model
        A model inside `shared_prefix_mode`.
    prompts
        Token ids; empty prompts are allowed.
    timing
        Measures it.
    """
    timing = timing or Timing()
    caches: list[PromptCache | None] = [None] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    while order:
        longest = max(1, len(prompts[order[0]]))
        batch, order = _split_at(order, max(1, PREFILL_TOKENS // longest))
        ids = torch.zeros((len(batch), longest), dtype=torch.int64)
        for row, i in zip(ids, batch, strict=True):
            row[: len(prompts[i])] = torch.tensor(prompts[i], dtype=torch.int64)
        cache = DynamicCache()
        inputs = ids.to(model.device)
        with timing.part("prefill", sum(len(prompts[i]) for i in batch)):
            model(input_ids=inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
        for row_index, i in enumerate(batch):
            length = len(prompts[i])
            layers = tuple(
                # Copies: a view would keep the whole padded batch alive.
                tuple(
                    states[row_index, :, :length].clone() for states in (layer.keys, layer.values)
                )
                for layer in cache.layers
            )
            caches[i] = PromptCache(layers, length)
    return [cache for cache in caches if cache is not None]


def _split_at(items: list[int], count: int) -> tuple[list[int], list[int]]:
    return items[:count], items[count:]


def forward(
    model: PreTrainedModel,
    inputs: torch.Tensor,
    *,
    prefix: SharedPrefix,
    cache: PrivateCache,
    logits_to_keep: int = 0,
) -> torch.Tensor:
    """Run the next positions of every row.

    Parameters
    ----------
    model
        A model inside `shared_prefix_mode`.
    inputs
        Token ids of shape (n_rows, n_queries), or embeddings of shape (n_rows, n_queries, hidden).
        Rows shorter than the others are padded on the left, as ``cache.starts`` says.
    prefix
        The prompts of the rows.
    cache
        The rows' own keys and values; this pass is appended.
    logits_to_keep
        Return only the last so many positions; 0 returns all.

    Returns
    -------
    torch.Tensor
        Logits of shape (n_rows, kept, vocabulary).
    """
    device = inputs.device
    columns = torch.arange(cache.width, cache.width + inputs.shape[1])
    offsets = prefix.row_lengths - cache.starts
    positions = (columns + offsets[:, None]).clamp_min(0).to(device)
    step = _Step(prefix=prefix, query_positions=positions, starts=cache.starts)
    named = {"inputs_embeds": inputs} if inputs.is_floating_point() else {"input_ids": inputs}
    output = model(
        **named,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=logits_to_keep,
        shared_prefix=step,
    )
    return output.logits

"""Prompts and responses in one row of tokens, and the attention within it.

The beginning that all prompts share, the rest of each prompt, and the responses follow one another,
so that no layer computes padding and nothing is read twice. The attention gathers the tokens into
prompts and attempts, lets each attempt see its prompt and itself, and scatters the result back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from lm_eval_ext.engine import request
from lm_eval_ext.engine.partial_attention import (
    HiddenKeys,
    PartialAttention,
    attend_partly,
    attend_to_own,
    merge_parts,
    softcapped_attention,
)

# Fewer tokens in common than these are read with every prompt.
_SHORTEST = 32


class ForcedAttempt(NamedTuple):
    """Tokens of a prompt and of a finished response to it, at least one each."""

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]


class Scoring(NamedTuple):
    """How a layer scores keys, as transformers passes it to attention functions.

    `scaling` is a factor, by default the inverse root of head_dim; `window` is how many positions a
    token sees, itself included; `softcap` squashes scores to this range by tanh.
    """

    scaling: float | None
    window: int | None
    softcap: float | None

    def scale(self, query: torch.Tensor) -> float:
        """Return the factor for queries of shape (..., head_dim)."""
        return query.shape[-1] ** -0.5 if self.scaling is None else self.scaling


class PackedAttempts:
    """Prompts and responses laid out in one row of tokens.

    The row holds the beginning that all prompts share, what the distinct prompts add to it, each
    without its last token, and then for every stream and attempt the last prompt token and all
    response tokens but the last: the inputs whose outputs predict the response.

    Attributes
    ----------
    token_ids, positions
        Tokens and their positions, int64 of shape (1, n_tokens).
    """

    def __init__(self, attempts: Sequence[ForcedAttempt], *, n_streams: int = 1) -> None:
        shared = [attempt.prompt_ids[:-1] for attempt in attempts]
        n = n_common(list(dict.fromkeys(shared)))
        self._n_context = n
        begun = shared[0][:n]
        rests = [prompt[n:] for prompt in shared]
        prompts = list(dict.fromkeys(rest for rest in rests if rest))
        index = {prompt: i for i, prompt in enumerate(prompts)}
        self.n_streams = n_streams
        self.lengths = [len(attempt.response_ids) for attempt in attempts]
        self.n_response_tokens = sum(self.lengths)
        tokens = [*begun, *(token for prompt in prompts for token in prompt)]
        positions = [*range(n), *(n + i for prompt in prompts for i in range(len(prompt)))]
        self._n_prompt_tokens = len(tokens)
        for attempt in list(attempts) * n_streams:
            first = len(attempt.prompt_ids) - 1
            tokens += (attempt.prompt_ids[-1], *attempt.response_ids[:-1])
            positions += range(first, first + len(attempt.response_ids))
        self.token_ids = torch.tensor([tokens], dtype=torch.int64)
        self.positions = torch.tensor([positions], dtype=torch.int64)
        self._prompts = _Grid([len(prompt) for prompt in prompts], n) if prompts else None
        self._attempts = _Grid(self.lengths, self._n_prompt_tokens)
        # An attempt without a shared prompt points at any and sees none of it.
        self._prompt_of_row = torch.tensor([index.get(rest, 0) for rest in rests])
        self._shared_lengths = torch.tensor([len(rest) for rest in rests])
        self._on_device: dict[Any, Any] = {}

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scoring: Scoring,
    ) -> torch.Tensor:
        """Compute the attention of all tokens, shape (n_tokens, heads, head_dim).

        Parameters
        ----------
        query
            Shape (n_tokens, heads, head_dim).
        key, value
            Shape (n_tokens, kv_heads, head_dim).
        """
        device, n, window = query.device, self._n_context, scoring.window
        parts = []
        if n:
            begun = [states[None, :n].transpose(1, 2) for states in (query, key, value)]
            mask = self._cached("context", device, window, lambda w: _causal(n, w))
            parts.append(_attention(begun[0], begun[1], begun[2], mask, scoring)[0])
        seen = self._on_context(query, key, value, scoring) if n else None
        columns: list[tuple[torch.Tensor, torch.Tensor]] = []
        if self._prompts is not None:
            grid = self._prompts
            own = grid.gather(key), grid.gather(value)
            mask = self._cached("prompt", device, window, lambda w: _causal(grid.width, w))
            rest = slice(0, grid.n_tokens)
            parts.append(_merged(grid, grid.gather(query), *own, mask, scoring, seen, rest))
            rows = self._cached("rows", device, None, lambda _: self._prompt_of_row)
            columns.append((own[0].index_select(0, rows), own[1].index_select(0, rows)))
        grid = self._attempts
        first = grid.gather(key), grid.gather(value)
        for stream in range(self.n_streams):
            kind = "noisy" if stream else "clean"
            shift = stream * self.n_response_tokens
            own = (grid.gather(key, shift), grid.gather(value, shift)) if stream else first
            others = [*columns, first, own] if stream else [*columns, own]
            keys, values = (torch.cat(part, dim=2) for part in zip(*others, strict=True))
            make = self._noisy_mask if stream else self._clean_mask
            mask = self._cached(kind, device, window, make)
            at = self._n_prompt_tokens - n + shift
            rest = slice(at, at + grid.n_tokens)
            queries = grid.gather(query, shift)
            parts.append(_merged(grid, queries, keys, values, mask, scoring, seen, rest))
        return torch.cat(parts)

    def _on_context(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scoring: Scoring
    ) -> PartialAttention:
        """Attend from all later tokens to what they share, shape (n_tokens, heads, ...)."""
        n, kv_heads = self._n_context, key.shape[1]
        grouped = (query[n:] * scoring.scale(query)).unflatten(1, (kv_heads, -1)).transpose(0, 1)
        keys, values = key[:n].permute(1, 2, 0), value[:n].transpose(0, 1)
        hidden = None
        if scoring.window is not None:
            far = self._cached("far", query.device, scoring.window, self._context_far)
            hidden = HiddenKeys(0, far.repeat_interleave(grouped.shape[2], dim=0)[None, None])
        stacked = grouped.flatten(1, 2)[None]
        part = attend_partly(stacked, keys[None], values[None], hidden, scoring.softcap)
        shape = grouped.shape[1:3]
        return PartialAttention(
            *(states[0].unflatten(1, shape).transpose(0, 1).flatten(1, 2) for states in part)
        )

    def _cached(self, kind: str, device: torch.device, window: int | None, make: Any) -> Any:
        """Build a mask once per pass, not once per layer."""
        key = (kind, device, window)
        if key not in self._on_device:
            self._on_device[key] = make(window).to(device)
        return self._on_device[key]

    def _context_far(self, window: int) -> torch.Tensor:
        n = self._n_context
        return self.positions[0, n:, None] - torch.arange(n) >= window

    def _prefix_mask(self, window: int | None) -> torch.Tensor:
        """Return which prompt keys are seen, shape (n_rows, 1, width or 1, longest prompt)."""
        longest = 0 if self._prompts is None else self._prompts.width
        columns = torch.arange(longest)
        seen = (columns < self._shared_lengths[:, None])[:, None, None, :]
        if window is None:
            return seen.expand(-1, 1, self._attempts.width, -1)
        queries = self._shared_lengths[:, None] + torch.arange(self._attempts.width)
        return seen & (queries[:, None, :, None] - columns < window)

    def _clean_mask(self, window: int | None) -> torch.Tensor:
        own = _causal(self._attempts.width, window).expand(len(self.lengths), 1, -1, -1)
        return torch.cat([self._prefix_mask(window), own], dim=-1)

    def _noisy_mask(self, window: int | None) -> torch.Tensor:
        itself = torch.eye(self._attempts.width, dtype=torch.bool)[None, None]
        before = _causal(self._attempts.width, window) & ~itself
        own = torch.cat([before, itself], dim=-1).expand(len(self.lengths), 1, -1, -1)
        return torch.cat([self._prefix_mask(window), own], dim=-1)


class _Grid:
    """Consecutive runs of tokens as the rows of a grid, padded on the right."""

    def __init__(self, lengths: Sequence[int], first: int) -> None:
        self.width = max(lengths)
        sizes = torch.tensor(lengths)
        starts = first + sizes.cumsum(0) - sizes
        offsets = torch.arange(self.width).expand(len(lengths), -1)
        real = offsets < sizes[:, None]
        # Padding repeats the first token of its row; no real token sees it.
        self._tokens = torch.where(real, starts[:, None] + offsets, starts[:, None]).flatten()
        self._cells = real.flatten().nonzero().squeeze(1)
        self._dense = bool(real.all())
        self.n_tokens = len(self._cells)
        self._shape = (len(lengths), self.width)

    def gather(self, tokens: torch.Tensor, shift: int = 0) -> torch.Tensor:
        """Arrange (n_tokens, heads, dim) as (n_rows, heads, width, dim)."""
        index = (self._tokens + shift if shift else self._tokens).to(tokens.device)
        return tokens.index_select(0, index).unflatten(0, self._shape).transpose(1, 2)

    def scatter(self, cells: torch.Tensor) -> torch.Tensor:
        """Undo `gather`: (n_rows, width, heads, dim) to (tokens of this grid, heads, dim)."""
        flat = cells.flatten(0, 1)
        return flat if self._dense else flat.index_select(0, self._cells.to(flat.device))


def _causal(width: int, window: int | None) -> torch.Tensor:
    """Return which tokens see which, shape (1, 1, width, width)."""
    seen = torch.ones(1, 1, width, width, dtype=torch.bool).tril()
    return seen if window is None else seen.triu(1 - window)


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    scoring: Scoring,
) -> torch.Tensor:
    """Attend where the mask is true; returns (n_rows, n_queries, heads, dim)."""
    if scoring.softcap is not None:
        return softcapped_attention(query, key, value, mask, scoring.scaling, scoring.softcap)
    group = query.shape[1] // key.shape[1]
    if group > 1:
        key, value = (states.repeat_interleave(group, dim=1) for states in (key, value))
    out = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scoring.scaling
    )
    return out.transpose(1, 2)


def _merged(
    grid: _Grid,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    scoring: Scoring,
    seen: PartialAttention | None,
    rest: slice,
) -> torch.Tensor:
    """Attend within a grid and to what comes before it; (tokens of the grid, heads, dim)."""
    if seen is None:
        return grid.scatter(_attention(query, key, value, mask, scoring))
    grouped = (query * scoring.scale(query)).unflatten(1, (key.shape[1], -1))
    part = attend_to_own(grouped, key, value, HiddenKeys(0, ~mask), scoring.softcap, causal=False)
    own = (grid.scatter(states.flatten(1, 2).transpose(1, 2)) for states in part)
    before = PartialAttention(*(states[rest] for states in seen))
    return merge_parts(PartialAttention(*map(torch.clone, own)), before).normalised().to(query)


def n_common(prompts: Sequence[tuple[int, ...]]) -> int:
    """Return how many tokens at the start of distinct prompts are worth reading apart.

    Examples
    --------
    >>> n_common([(5,) * 40 + (6,), (5,) * 40 + (7, 8)]), n_common([(5, 6), (5, 7)])
    (40, 0)
    """
    # Of sorted prompts the first and the last differ the most.
    n = request.n_common(min(prompts), max(prompts)) if len(prompts) > 1 else 0
    return n if n >= _SHORTEST else 0

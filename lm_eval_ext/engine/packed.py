"""Logits along finished responses, in one unpadded pass over prompts and responses.

Teacher forcing needs no cache and no steps: the distinct prompts of a batch and the responses to
them are laid one after the other into a single row of tokens, so that no layer computes padding
and a prompt is read once for all its attempts. Only the attention function looks at the layout: it
gathers the tokens into prompts and attempts, lets each attempt see its prompt and itself, and puts
the result back.

A response may be read several times at once: the further copies ("streams") see the first one's
keys before their own position and their own key at it, which is what noise on single tokens with a
clean context needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from lm_eval_ext.engine.partial_attention import softcapped_attention
from lm_eval_ext.engine.support import misfit

ATTENTION_NAME = "lm_eval_ext_packed"


class ForcedAttempt(NamedTuple):
    """A finished response and the prompt it answers.

    Parameters
    ----------
    prompt_ids
        Tokens of the prompt, at least one.
    response_ids
        Tokens of the response, at least one.
    """

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]


class PackedAttempts:
    """Prompts and responses laid out in one row of tokens.

    The row holds the distinct prompts, each without its last token, and then for every stream and
    attempt the last prompt token and all response tokens but the last: the inputs whose outputs
    predict the response. There are as many of them as response tokens.

    Parameters
    ----------
    attempts
        The attempts; those of one prompt share its tokens.
    n_streams
        How often each response is read.

    Attributes
    ----------
    token_ids, positions
        Tokens and their positions, int64 of shape (1, n_tokens).
    n_response_tokens
        Response tokens of all attempts, in one stream.
    lengths
        Response tokens of each attempt.
    """

    def __init__(self, attempts: Sequence[ForcedAttempt], *, n_streams: int = 1) -> None:
        shared = [attempt.prompt_ids[:-1] for attempt in attempts]
        prompts = list(dict.fromkeys(prompt for prompt in shared if prompt))
        place = {prompt: i for i, prompt in enumerate(prompts)}
        self.n_streams = n_streams
        self.lengths = [len(attempt.response_ids) for attempt in attempts]
        self.n_response_tokens = sum(self.lengths)
        tokens: list[int] = [token for prompt in prompts for token in prompt]
        positions = [i for prompt in prompts for i in range(len(prompt))]
        self._n_prompt_tokens = len(tokens)
        for attempt in list(attempts) * n_streams:
            first = len(attempt.prompt_ids) - 1
            tokens += (attempt.prompt_ids[-1], *attempt.response_ids[:-1])
            positions += range(first, first + len(attempt.response_ids))
        self.token_ids = torch.tensor([tokens], dtype=torch.int64)
        self.positions = torch.tensor([positions], dtype=torch.int64)
        self._prompts = _Grid([len(prompt) for prompt in prompts], 0) if prompts else None
        self._attempts = _Grid(self.lengths, self._n_prompt_tokens)
        # An attempt without a shared prompt points at any and sees none of it.
        self._prompt_of_row = torch.tensor([place.get(prompt, 0) for prompt in shared])
        self._shared_lengths = torch.tensor([len(prompt) for prompt in shared])
        self._on_device: dict[Any, Any] = {}

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        scaling: float | None,
        window: int | None,
        softcap: float | None,
    ) -> torch.Tensor:
        """Compute the attention of all tokens, shape (n_tokens, heads, head_dim).

        Parameters
        ----------
        query
            Shape (n_tokens, heads, head_dim).
        key, value
            Shape (n_tokens, kv_heads, head_dim).
        scaling
            Factor on the scores; the inverse root of head_dim by default.
        window
            How many positions a token sees, itself included; None sees all.
        softcap
            Scores are squashed to this range by tanh.
        """
        device = query.device
        parts = []
        columns: list[tuple[torch.Tensor, torch.Tensor]] = []
        if self._prompts is not None:
            grid = self._prompts
            own = grid.gather(key), grid.gather(value)
            mask = self._cached("prompt", device, window, self._prompt_mask)
            out = _attention(grid.gather(query), *own, mask, scaling, softcap)
            parts.append(grid.scatter(out))
            rows = self._cached("rows", device, None, lambda _: self._prompt_of_row)
            columns.append((own[0].index_select(0, rows), own[1].index_select(0, rows)))
        grid = self._attempts
        first = grid.gather(key), grid.gather(value)
        for stream in range(self.n_streams):
            kind = "noisy" if stream else "clean"
            shift = stream * self.n_response_tokens
            own = (grid.gather(key, shift), grid.gather(value, shift)) if stream else first
            seen = [*columns, first, own] if stream else [*columns, own]
            keys, values = (torch.cat(part, dim=2) for part in zip(*seen, strict=True))
            make = self._noisy_mask if stream else self._clean_mask
            mask = self._cached(kind, device, window, make)
            out = _attention(grid.gather(query, shift), keys, values, mask, scaling, softcap)
            parts.append(grid.scatter(out))
        return torch.cat(parts)

    def _cached(self, kind: str, device: torch.device, window: int | None, make: Any) -> Any:
        """Build a mask once per pass, not once per layer."""
        key = (kind, device, window)
        if key not in self._on_device:
            self._on_device[key] = make(window).to(device)
        return self._on_device[key]

    def _prompt_mask(self, window: int | None) -> torch.Tensor:
        assert self._prompts is not None
        return _causal(self._prompts.width, window)[None, None]

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
        itself = torch.eye(self._attempts.width, dtype=torch.bool)
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
    seen = torch.ones(width, width, dtype=torch.bool).tril()
    return seen if window is None else seen.triu(1 - window)


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    scaling: float | None,
    softcap: float | None,
) -> torch.Tensor:
    """Attend where the mask is true; returns (n_rows, n_queries, heads, dim)."""
    if softcap is not None:
        return softcapped_attention(query, key, value, mask, scaling, softcap)
    group = query.shape[1] // key.shape[1]
    if group > 1:
        key, value = (states.repeat_interleave(group, dim=1) for states in (key, value))
    out = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scaling
    )
    return out.transpose(1, 2)


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    packed: PackedAttempts | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within a packed row; has the signature of transformers' attention functions.

    Parameters
    ----------
    query, key, value
        Shape (1, heads, n_tokens, head_dim).
    packed
        The layout of the row.
    """
    assert packed is not None
    flat = (states[0].transpose(0, 1) for states in (query, key, value))
    out = packed.attend(*flat, scaling=scaling, window=sliding_window, softcap=softcap)
    return out[None], None


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """Build no mask: the layout of the row has it all."""


@contextmanager
def packed_mode(*models: PreTrainedModel) -> Iterator[None]:
    """Let models attend through `packed_attention`, and restore them afterwards."""
    AttentionInterface.register(ATTENTION_NAME, packed_attention)
    AttentionMaskInterface.register(ATTENTION_NAME, _no_mask)
    previous = [(model, model.config._attn_implementation) for model in models]
    try:
        for model in models:
            model.set_attn_implementation(ATTENTION_NAME)
        yield
    finally:
        for model, name in reversed(previous):
            model.set_attn_implementation(name)


def packed_logits(model: PreTrainedModel, packed: PackedAttempts) -> torch.Tensor:
    """Return the logits that predict the response tokens.

    Parameters
    ----------
    model
        A model inside `packed_mode`.
    packed
        The layout.

    Returns
    -------
    torch.Tensor
        Shape (n_streams * n_response_tokens, vocabulary), attempts in order within a stream.
    """
    output = model(
        input_ids=packed.token_ids.to(model.device),
        position_ids=packed.positions.to(model.device),
        use_cache=False,
        logits_to_keep=packed.n_streams * packed.n_response_tokens,
        packed=packed,
    )
    return output.logits[0]


@torch.inference_mode()
def packed_misfit(model: PreTrainedModel) -> str | None:
    """Return why packed passes do not fit a model, or None if they fit.

    Parameters
    ----------
    model
        A causal language model.

    Returns
    -------
    str or None
        The reason, as the end of a sentence that begins with the model's class.
    """
    reason = misfit(model)
    if reason is not None:
        return reason
    draws = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.get_text_config().vocab_size, (12,), generator=draws).tolist()
    probe = ForcedAttempt(tuple(ids[:5]), tuple(ids[5:9]))
    other = ForcedAttempt(probe.prompt_ids, tuple(ids[9:]))
    try:
        with packed_mode(model):
            packed = packed_logits(model, PackedAttempts([probe, other])).float()
    except Exception as error:  # any failure means the same thing: use plain passes
        first_line = str(error).partition("\n")[0]
        return f"fails with packed responses ({type(error).__name__}: {first_line})"
    plain = plain_logits(model, [probe, other]).float()
    difference = float((packed - plain).square().mean().sqrt() / plain.std())
    if not difference <= (1e-3 if model.dtype in (torch.float32, torch.float64) else 0.1):
        return f"gives other logits when packed (off by {difference:.2g} of their spread)"
    return None


def plain_logits(model: PreTrainedModel, attempts: Sequence[ForcedAttempt]) -> torch.Tensor:
    """Return what `packed_logits` returns, from a padded pass with the model's own attention.

    Parameters
    ----------
    model
        Any causal model.
    attempts
        The attempts; each is read with its whole prompt.
    """
    rows = [[*attempt.prompt_ids, *attempt.response_ids[:-1]] for attempt in attempts]
    longest = max(len(row) for row in rows)
    # On the right, where causal layers of any kind keep padding from touching anything.
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    logits = model(
        input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False
    ).logits
    return torch.cat(
        [
            logits[i, len(attempt.prompt_ids) - 1 : len(rows[i])]
            for i, attempt in enumerate(attempts)
        ]
    )

"""Prompts as a tree of keys and values, laid out so that each is attended to once.

What several prompts have in common is one `PromptCache`; what one of them adds is another, whose
parent it is. Every row of a batch has a path from a root to the end of its prompt. Caches at the
same depth share no row and make a level; levels are merged by their log-sum-exp.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch

from lm_eval_ext.engine.partial_attention import (
    HiddenKeys,
    PartialAttention,
    Scratch,
    attend_partly,
    merge_parts,
)

# A cache with this many rows fills a matrix product by itself; smaller ones are stacked.
_WIDE = 8
# Caches are stacked with others of at least this share of their length, or this many tokens less.
_SIMILAR, _SLACK = 0.75, 32
# A stack is kept while rows use at least this share of it: making another copies keys and values.
_USED = 0.5


@dataclass(frozen=True, eq=False)
class PromptCache:
    """Keys and values of a prompt, or of its part after `parent`.

    Layers are pairs of shapes (kv_heads, head_dim, length) and (kv_heads, length, head_dim).
    """

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    length: int
    parent: PromptCache | None = None

    @property
    def end(self) -> int:
        """Position after its last token."""
        return self.length + (0 if self.parent is None else self.parent.end)

    def path(self) -> tuple[PromptCache, ...]:
        """Return the caches from the root to this one, without empty ones."""
        before = () if self.parent is None else self.parent.path()
        return (*before, self) if self.length else before


@dataclass(eq=False)
class _Stack:
    """Caches of similar length, padded on the right to one; a single one is not copied.

    Layers have the shapes (kv_heads, n, head_dim, longest) and (kv_heads, n, longest, head_dim).
    """

    caches: tuple[PromptCache, ...]
    layers: list[tuple[torch.Tensor, torch.Tensor]]

    @classmethod
    def of(cls, caches: Sequence[PromptCache]) -> _Stack:
        if len(caches) == 1:
            layers = [(k[:, None], v[:, None]) for k, v in caches[0].layers]
            return cls(tuple(caches), layers)
        longest = max(cache.length for cache in caches)
        layers = []
        for pairs in zip(*(cache.layers for cache in caches), strict=True):
            heads, size = pairs[0][0].shape[:2]
            keys = pairs[0][0].new_zeros((heads, len(caches), size, longest))
            values = pairs[0][1].new_zeros((heads, len(caches), longest, pairs[0][1].shape[-1]))
            for i, (key, value) in enumerate(pairs):
                keys[:, i, :, : key.shape[-1]] = key
                values[:, i, : value.shape[1]] = value
            layers.append((keys, values))
        return cls(tuple(caches), layers)

    @property
    def longest(self) -> int:
        return max(cache.length for cache in self.caches)


@dataclass(eq=False)
class _Bundle:
    """A stack and the rows on it, as a grid of caches x slots.

    `cells` has the row in each cell, in order of the caches; unused cells repeat a row. `used` are
    the cells that are read back (None: all), and `rows` the rows in them.
    """

    stack: _Stack
    cells: list[int]
    used: torch.Tensor | None
    rows: list[int]
    _taken: slice | torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        first = self.cells[0]
        in_order = self.cells == list(range(first, first + len(self.cells)))
        self._taken = (
            slice(first, first + len(self.cells)) if in_order else torch.tensor(self.cells)
        )

    @classmethod
    def of(cls, stack: _Stack, rows_of: dict[PromptCache, list[int]]) -> _Bundle:
        rows = [rows_of.get(cache, []) for cache in stack.caches]
        slots = max(map(len, rows))
        filler = next(some[0] for some in rows if some)
        cells = [i for some in rows for i in [*some, *[filler] * (slots - len(some))]]
        used = [n * slots + slot for n, some in enumerate(rows) for slot in range(len(some))]
        dense = len(used) == len(cells)
        return cls(
            stack, cells, None if dense else torch.tensor(used), list(chain.from_iterable(rows))
        )

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        hidden: HiddenKeys | None,
        softcap: float | None,
        scratch: Scratch | None,
    ) -> PartialAttention:
        """Attend from queries of shape (kv_heads, n_rows, n_queries, head_dim)."""
        keys, values = self.stack.layers[layer]
        n = len(self.stack.caches)
        if isinstance(self._taken, slice):
            cells = query[:, self._taken]
        else:
            cells = query.index_select(1, self._taken.to(query.device))
        n_cells, n_queries = cells.shape[1:3]
        cells = cells.reshape(len(query), n, n_cells // n * n_queries, cells.shape[-1])
        part = attend_partly(cells, keys, values, hidden, softcap, scratch)
        part = PartialAttention(
            *(states.reshape(len(query), n_cells, n_queries, states.shape[-1]) for states in part)
        )
        return part if self.used is None else part.take(self.used)

    def hidden(self, positions: torch.Tensor, group: int, window: int | None) -> HiddenKeys | None:
        """Return which keys are hidden; broadcasts to (kv_heads, n, queries of a cache, keys)."""
        caches = self.stack.caches
        lengths = torch.tensor([cache.length for cache in caches])
        longest = self.stack.longest
        columns = torch.arange(longest)
        hidden = (columns >= lengths[:, None])[None, :, None, :]
        starts = torch.tensor([cache.end - cache.length for cache in caches])
        if window is not None:
            taken = positions[self._taken]
            if int(taken.max()) - int(starts.min()) >= window:
                at = taken.reshape(len(caches), -1, 1, taken.shape[-1])
                at = at.expand(-1, -1, group, -1).reshape(len(caches), -1)
                far = (at - starts[:, None])[..., None] - columns >= window
                return HiddenKeys.where(hidden | far[None])
        if int(lengths.min()) == longest:
            return None
        return HiddenKeys.where(hidden)


class _Level:
    """Caches that share no row."""

    def __init__(self, bundles: Iterable[_Bundle], n_rows: int) -> None:
        self.bundles = list(bundles)
        rows = [i for bundle in self.bundles for i in bundle.rows]
        others = sorted(set(range(n_rows)) - set(rows))
        self._n_others = len(others)
        rows += others
        in_order = rows == list(range(n_rows))
        self._back = None if in_order else torch.tensor(rows).argsort()

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        hidden: Sequence[HiddenKeys | None],
        softcap: float | None,
        scratch: Scratch | None,
    ) -> PartialAttention:
        """Attend from queries of shape (kv_heads, n_rows, n_queries, head_dim)."""
        parts = [
            bundle.attend(layer, query, mask, softcap, scratch)
            for bundle, mask in zip(self.bundles, hidden, strict=True)
        ]
        if self._n_others:  # rows that see nothing here drop out of the merge
            heads, _, n_queries, _ = query.shape
            none = query.new_zeros(
                (heads, self._n_others, n_queries, parts[0].weighted.shape[-1]),
                dtype=parts[0].weighted.dtype,
            )
            total = none[..., :1]
            lowest = torch.full_like(total, torch.finfo(torch.float32).min)
            parts.append(PartialAttention(none, lowest, total))
        if len(parts) == 1 and self._back is None:
            return parts[0]
        whole = PartialAttention(*(torch.cat(part, dim=1) for part in zip(*parts, strict=True)))
        return whole if self._back is None else whole.take(self._back)


class SharedPrefix:
    """The prompts of a batch, and the index of each row's, shape (n_rows,).

    Copies of keys and values are those of an earlier layout (`reuse`) where possible. `row_lengths`
    are the tokens of each row's prompt, shape (n_rows,); on the CPU.
    """

    def __init__(
        self,
        prompts: Sequence[PromptCache],
        prompt_of_row: Sequence[int],
        *,
        reuse: SharedPrefix | None = None,
    ) -> None:
        rows = [int(i) for i in prompt_of_row]
        self.row_lengths = torch.tensor([prompts[i].end for i in rows])
        paths = [prompt.path() for prompt in prompts]
        depth = max((len(paths[i]) for i in rows), default=0)
        kept = [] if reuse is None else [b.stack for level in reuse.levels for b in level.bundles]
        # Depth first, so that the rows on a cache stand together.
        number: dict[PromptCache, int] = {}
        for i in rows:
            for cache in paths[i]:
                number.setdefault(cache, len(number))
        order = sorted(range(len(rows)), key=lambda row: [number[c] for c in paths[rows[row]]])
        in_order = order == list(range(len(rows)))
        self._order = None if in_order else torch.tensor(order)
        self._back = None if self._order is None else self._order.argsort()
        ordered = [paths[rows[row]] for row in order]
        self.levels: list[_Level] = [
            _Level(_bundles([path[k : k + 1] for path in ordered], kept), len(rows))
            for k in range(depth)
        ]

    def masks(
        self, positions: torch.Tensor, group: int, window: int | None
    ) -> list[list[HiddenKeys | None]]:
        """Return the hidden keys of every level's bundles.

        Positions of queries have the shape (n_rows, n_queries) and are on the CPU. The window is
        how many positions a query sees, itself included; None is all.
        """
        if self._order is not None:
            positions = positions[self._order]
        return [
            [bundle.hidden(positions, group, window) for bundle in level.bundles]
            for level in self.levels
        ]

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        masks: Sequence[Sequence[HiddenKeys | None]],
        softcap: float | None,
        scratch: Scratch | None = None,
    ) -> PartialAttention | None:
        """Attend to the prompts, or return None where there is none.

        Scaled queries have the shape (n_rows, kv_heads, group, n_queries, head_dim), as the result,
        and `masks` are those of this pass and the layer's window.
        """
        if not self.levels:
            return None
        shape = query.shape[2:4]
        stacked = query.transpose(0, 1).flatten(2, 3)
        if self._order is not None:
            stacked = stacked.index_select(1, self._order.to(query.device))
        whole: PartialAttention | None = None
        for level, hidden in zip(self.levels, masks, strict=True):
            part = level.attend(layer, stacked, hidden, softcap, scratch)
            whole = part if whole is None else merge_parts(whole, part)
        assert whole is not None
        if self._back is not None:
            whole = whole.take(self._back)
        return PartialAttention(*(s.unflatten(2, shape).transpose(0, 1) for s in whole))


def _bundles(at_level: Sequence[Sequence[Any]], kept: Sequence[_Stack]) -> Iterator[_Bundle]:
    """Yield the bundles of a level, given the cache of every row there (one or none)."""
    rows_of: dict[PromptCache, list[int]] = {}
    for row, caches in enumerate(at_level):
        for cache in caches:
            rows_of.setdefault(cache, []).append(row)
    narrow = []
    for cache, rows in rows_of.items():
        if len(rows) >= _WIDE:
            yield _Bundle.of(_Stack.of([cache]), rows_of)
        else:
            narrow.append(cache)
    for stack in kept:
        if len(stack.caches) > 1 and set(stack.caches) & set(narrow):
            used = [cache for cache in stack.caches if cache in narrow]
            if len(used) >= _USED * len(stack.caches):
                # Those that have become wide have their own product.
                yield _Bundle.of(stack, {cache: rows_of[cache] for cache in used})
                narrow = [cache for cache in narrow if cache not in used]
    yield from (_Bundle.of(_Stack.of(similar), rows_of) for similar in _similar(narrow))


def _similar(caches: Sequence[PromptCache]) -> Iterator[list[PromptCache]]:
    """Divide caches into runs of similar length, each in the given order."""
    index = {cache: i for i, cache in enumerate(caches)}
    run: list[PromptCache] = []
    for cache in sorted(caches, key=lambda cache: -cache.length):
        if run and cache.length < min(_SIMILAR * run[0].length, run[0].length - _SLACK):
            yield sorted(run, key=index.__getitem__)
            run = []
        run.append(cache)
    if run:
        yield sorted(run, key=index.__getitem__)

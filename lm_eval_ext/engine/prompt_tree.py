"""The beginnings that prompts of a run share, read once and kept while they are needed.

Prompts with the same examples or the same system message begin alike. The distinct beginnings make
a tree: a node holds the tokens that all prompts below it share, after those of its parent. The rest
of a prompt is a leaf where several attempts use it; it is read by the attempts themselves where
only one does, or where it is short.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedModel

from lm_eval_ext.engine.prompt_layout import PromptCache, SharedPrefix
from lm_eval_ext.engine.request import AttemptRequest, n_common
from lm_eval_ext.engine.shared_prefix import prefill
from lm_eval_ext.engine.timing import Timing

# Fewer tokens in common than these are not worth attention of their own at every step.
_SHORTEST = 32
# Levels of common beginnings; every one costs some attention at every step.
_DEEPEST = 4

Tokens = tuple[int, ...]


@dataclass(eq=False)
class _Node:
    """Tokens after those of the parent; `needed` requests below have still to end."""

    token_ids: Tokens
    parent: _Node | None
    needed: int = 0
    cache: PromptCache | None = None
    n_parents: int = field(init=False)

    def __post_init__(self) -> None:
        self.n_parents = 0 if self.parent is None else self.parent.n_parents + 1

    def path(self) -> Iterator[_Node]:
        """Yield the node and those above it, up to the root."""
        node: _Node | None = self
        while node is not None:
            yield node
            node = node.parent


class Size(NamedTuple):
    """Tokens of a run's longest prompts.

    A prompt has at most `common` tokens in common with others, adds at most `own` for all its
    attempts (`attempts_per_prompt` on average), and an attempt reads at most `private` for itself.
    """

    common: int
    own: int
    private: int
    attempts_per_prompt: float


class PromptTree:
    """The beginnings that all requests of a run share, each kept until its last is released."""

    def __init__(self, requests: Sequence[AttemptRequest]) -> None:
        users: dict[Tokens, list[AttemptRequest]] = {}
        for request in requests:
            users.setdefault(request.shared_ids, []).append(request)
        self._leaf: dict[Tokens, _Node | None] = {}
        self._rank: dict[Tokens, int] = {}
        prompts = sorted(users)
        for prompt, parent, n_before in _beginnings(prompts):
            rest = prompt[n_before:]
            again = len(rest) * (len(users[prompt]) - 1)  # tokens read more than once without it
            # Vectors stand between what is shared and what is not.
            free = all(request.vectors is None for request in users[prompt])
            leaf = parent if not rest or (free and again < _SHORTEST) else _Node(rest, parent)
            self._leaf[prompt] = leaf
            for node in () if leaf is None else leaf.path():
                node.needed += len(users[prompt])
        self._order_prompts(prompts)
        self.size = self._size(requests)

    def _order_prompts(self, prompts: Sequence[Tokens]) -> None:
        """Put the prompts of a node together, and among equals the longest first."""
        longest: dict[_Node, int] = {}
        for prompt in prompts:
            for node in self._path(prompt):
                longest[node] = max(len(prompt), longest.get(node, 0))
        number = {node: i for i, node in enumerate(longest)}
        order = sorted(
            prompts,
            key=lambda prompt: (
                [(-longest[node], number[node]) for node in self._path(prompt)]
                + [(-len(prompt), -1)],
                prompt,
            ),
        )
        self._rank = {prompt: i for i, prompt in enumerate(order)}

    def _path(self, prompt: Tokens) -> list[_Node]:
        """Return the nodes of a prompt, the root first."""
        leaf = self._leaf[prompt]
        return [] if leaf is None else list(leaf.path())[::-1]

    def _size(self, requests: Sequence[AttemptRequest]) -> Size:
        n_prompts = Counter(node for prompt in self._leaf for node in self._path(prompt))
        common = own = 0
        for prompt in self._leaf:
            lengths = {node: len(node.token_ids) for node in self._path(prompt)}
            of_many = sum(n for node, n in lengths.items() if n_prompts[node] > 1)
            common, own = max(common, of_many), max(own, sum(lengths.values()) - of_many)
        held = {prompt: sum(len(n.token_ids) for n in self._path(prompt)) for prompt in self._leaf}
        private = max(
            (len(r.shared_ids) - held[r.shared_ids] + r.private_length for r in requests),
            default=0,
        )
        return Size(common, own, private, len(requests) / max(1, len(self._leaf)))

    def order(self, requests: Sequence[AttemptRequest]) -> list[int]:
        """Return the indices of requests in the order in which to begin them.

        Long prompts go first, so that the most memory is needed at the start; prompts that share a
        beginning go together.
        """
        return sorted(range(len(requests)), key=lambda i: self._rank[requests[i].shared_ids])

    def placed(self, request: AttemptRequest) -> AttemptRequest:
        """Return a request with only that shared which the tree holds of its prompt."""
        n_held = sum(len(node.token_ids) for node in self._path(request.shared_ids))
        if n_held == len(request.shared_ids):
            return request
        rest = request.shared_ids[n_held:]
        return replace(
            request,
            shared_ids=request.shared_ids[:n_held],
            private_ids=(*rest, *request.private_ids),
        )

    def read(
        self,
        model: PreTrainedModel,
        requests: Sequence[AttemptRequest],
        *,
        timing: Timing | None = None,
    ) -> None:
        """Read the beginnings of requests that are not read yet, inside `shared_prefix_mode`."""
        # Each once, and in an order of its own: batches should be the same in every run.
        nodes = {n: None for r in requests for n in self._path(r.shared_ids) if n.cache is None}
        for depth in sorted({node.n_parents for node in nodes}):
            level = [node for node in nodes if node.n_parents == depth]
            before = [None if node.parent is None else node.parent.cache for node in level]
            read = prefill(model, [node.token_ids for node in level], before, timing=timing)
            for node, cache in zip(level, read, strict=True):
                node.cache = cache

    def release(self, requests: Sequence[AttemptRequest]) -> bool:
        """Drop caches that only these requests needed; return whether any was dropped."""
        gone = False
        for request in requests:
            for node in self._path(request.shared_ids):
                node.needed -= 1
                if not node.needed:
                    node.cache, gone = None, True
        return gone

    def prefix(
        self, requests: Sequence[AttemptRequest], *, reuse: SharedPrefix | None = None
    ) -> SharedPrefix:
        """Lay the rows of requests out over their beginnings, which must have been read."""
        ends = [self._leaf[request.shared_ids] for request in requests]
        caches = [_NOTHING if end is None or end.cache is None else end.cache for end in ends]
        distinct = list(dict.fromkeys(caches))
        index = {cache: i for i, cache in enumerate(distinct)}
        return SharedPrefix(distinct, [index[cache] for cache in caches], reuse=reuse)


_NOTHING = PromptCache((), 0)


def _beginnings(prompts: Sequence[Tokens]) -> Iterator[tuple[Tokens, _Node | None, int]]:
    """Yield each prompt, the node of what it shares with others, and how many tokens that is.

    Prompts must be distinct and sorted, so that those that begin alike stand together.
    """
    arrays = [np.asarray(prompt, dtype=np.int64) for prompt in prompts]
    in_common = [n_common(a, b) for a, b in pairwise(arrays)]
    # (first prompt, after the last, node above, tokens down to it)
    waiting: list[tuple[int, int, _Node | None, int]] = [(0, len(prompts), None, 0)]
    while waiting:
        first, last, parent, n_before = waiting.pop()
        if first == last:
            continue
        if last - first == 1:
            yield prompts[first], parent, n_before
            continue
        inside = in_common[first : last - 1]
        shortest = min(inside)
        deep = parent is not None and parent.n_parents + 1 >= _DEEPEST
        if shortest - n_before >= _SHORTEST and not deep:
            parent = _Node(prompts[first][n_before:shortest], parent)
            n_before = shortest
        # Divide where neighbours have no more in common than all.
        borders = [first + i + 1 for i, n in enumerate(inside) if n == shortest]
        edges = [first, *borders, last]
        waiting.extend((a, b, parent, n_before) for a, b in pairwise(edges))

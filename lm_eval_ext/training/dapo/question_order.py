"""The order in which questions come."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from typing import Any


class QuestionOrder:
    """An endless order of questions: seeded permutations of all of them, one after the other.

    Examples
    --------
    >>> order = QuestionOrder(["a", "b", "c"], seed=0)
    >>> sorted(order[i] for i in range(3)), sorted(order[i] for i in range(3, 6))
    (['a', 'b', 'c'], ['a', 'b', 'c'])
    """

    def __init__(self, questions: Sequence[Any], seed: int) -> None:
        self.questions = questions
        self._permutation = lru_cache(maxsize=4)(lambda epoch: self._shuffled(seed, epoch))

    def _shuffled(self, seed: int, epoch: int) -> list[int]:
        numbers = list(range(len(self.questions)))
        random.Random(f"{seed}:questions:{epoch}").shuffle(numbers)
        return numbers

    def index(self, position: int) -> int:
        """Return which question is at a position, from 0."""
        epoch, place = divmod(position, len(self.questions))
        return self._permutation(epoch)[place]

    def __getitem__(self, position: int) -> Any:
        """Return the question at a position, from 0."""
        return self.questions[self.index(position)]

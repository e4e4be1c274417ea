"""Splits of the generated problems: seeded, disjoint by construction, in published record shapes.

Whether a problem belongs to train, validation or test is read off a hash of the problem itself,
so no seed and no size can move one from one split to another.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from lm_eval_ext.checks import check_choice
from lm_eval_ext.data.tiny.code_problems import code_problem
from lm_eval_ext.data.tiny.formats import check_family
from lm_eval_ext.data.tiny.math_problems import math_problem
from lm_eval_ext.data.tiny.word_problems import word_problem

if TYPE_CHECKING:
    from datasets import DatasetDict

SPLITS = ("train", "validation", "test")
SEED = 1234
# Number of problems when no size is asked; the train stream itself has no end.
DEFAULT_SIZES = {
    "gsm8k": {"train": 2000, "validation": 1000, "test": 1000},
    "math": {"train": 2000, "validation": 500, "test": 500},
    "mbpp": {"train": 2000, "validation": 500, "test": 500},
}
# Share of each difficulty: (steps, size of numbers) for word problems, level for the others.
# Training sees every difficulty, easy ones often enough to learn the single steps.
TRAIN_MIX: dict[str, dict[Any, float]] = {
    "gsm8k": {
        (steps, size): step_share * size_share
        for steps, step_share in {2: 0.25, 3: 0.25, 4: 0.2, 5: 0.15, 6: 0.15}.items()
        for size, size_share in {1: 0.3, 2: 0.45, 3: 0.25}.items()
    },
    "math": {1: 0.2, 2: 0.2, 3: 0.2, 4: 0.2, 5: 0.2},
    "mbpp": {1: 0.15, 2: 0.2, 3: 0.25, 4: 0.2, 5: 0.2},
}
# Validation and test: the hard end of what was trained on. Chosen after training, from greedy
# accuracy on validation problems: .98 (2 steps, small numbers) to .63 (6 steps, large numbers)
# for word problems, .89 (level 1) to .57 (level 5) for mathematics.
TEST_MIX: dict[str, dict[Any, float]] = {
    "gsm8k": {
        (steps, size): step_share * size_share
        for steps, step_share in {4: 0.2, 5: 0.3, 6: 0.5}.items()
        for size, size_share in {2: 0.1, 3: 0.9}.items()
    },
    "math": {1: 0.05, 2: 0.1, 3: 0.2, 4: 0.3, 5: 0.35},
    "mbpp": TRAIN_MIX["mbpp"],
}
# Problems that many seeds would repeat are skipped within a split; this many misses in a row
# mean that the space of problems is exhausted.
_MAX_MISSES = 20_000


def problem_key(family: str, record: dict[str, Any]) -> str:
    """Return the text that identifies a problem: its wording, for code also the function.

    The wording of a code problem may leave a constant to its asserts, so two problems with equal
    words can differ; no function appears in two splits with the same words.
    """
    if family == "gsm8k":
        return str(record["question"])
    if family == "math":
        return str(record["problem"])
    return f"{record['text']}\n{record['code']}"


def split_of(key: str) -> str:
    """Return the split a problem belongs to: 80% train, 10% validation, 10% test."""
    bucket = hashlib.sha256(key.encode()).digest()[0] / 256
    return "test" if bucket < 0.1 else "validation" if bucket < 0.2 else "train"


def draw_problem(family: str, rng: random.Random, mix: dict[Any, float]) -> dict[str, Any]:
    """Draw one problem, its difficulty from ``mix``, without asking which split it is in."""
    difficulty = rng.choices(list(mix), weights=list(mix.values()))[0]
    if family == "gsm8k":
        return word_problem(rng, *difficulty)
    return (math_problem if family == "math" else code_problem)(rng, difficulty)


def _identify(family: str, split: str, index: int, record: dict[str, Any]) -> dict[str, Any]:
    """Add the identifiers that the published data sets have."""
    if family == "math":
        subject = record["type"].lower().replace(" & ", "_and_").replace(" ", "_")
        return {**record, "unique_id": f"{split}/{subject}/{index}.json"}
    if family == "mbpp":
        return {"task_id": SPLITS.index(split) * 1_000_000 + index + 1, **record}
    return record


def iter_problems(
    family: str, split: str, seed: int | str = SEED, mix: dict[Any, float] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the problems of a split in their fixed order.

    Parameters
    ----------
    split : str
        ``train`` (endless, may repeat), ``validation`` or ``test`` (no problem twice).
    seed : int or str
        Order and choice of the problems; the splits are disjoint for every pair of seeds.
    mix : dict, optional
        Share of each difficulty; `TRAIN_MIX` or `TEST_MIX` by default.

    Raises
    ------
    ValueError
        For an unknown family or split, or when a split has no further problems.
    """
    check_family(family)
    check_choice("split", split, SPLITS)
    mix = mix or (TRAIN_MIX if split == "train" else TEST_MIX)[family]
    rng = random.Random(f"{seed}:{family}:{split}")
    seen: set[str] = set()
    index = misses = 0
    while misses < _MAX_MISSES:
        record = draw_problem(family, rng, mix)
        key = problem_key(family, record)
        if key in seen or split_of(key) != split:
            misses += 1
            continue
        if split != "train":
            seen.add(key)
        yield _identify(family, split, index, record)
        index, misses = index + 1, 0
    raise ValueError(f"{family} {split} has only {index} problems: ask for a smaller size")


def load_split(
    family: str, split: str, size: int | None = None, seed: int | str = SEED
) -> list[dict[str, Any]]:
    """Return the first ``size`` problems of a split.

    A larger size (`DEFAULT_SIZES` by default) only appends. The records have the fields of the
    published data set of that name. `ValueError` as for `iter_problems`.

    Examples
    --------
    >>> sorted(load_split("gsm8k", "test", 1)[0])
    ['answer', 'question']
    """
    stream = iter_problems(family, split, seed)
    return list(islice(stream, DEFAULT_SIZES[family][split] if size is None else size))


def _dataset(family: str, metadata: dict[str, Any]) -> DatasetDict:
    from datasets import Dataset, DatasetDict

    seed = metadata.get("problem_seed", SEED)
    return DatasetDict(
        {split: Dataset.from_list(load_split(family, split, seed=seed)) for split in SPLITS}
    )


def gsm8k_dataset(**metadata: Any) -> DatasetDict:
    """Return all splits of the word problems; a ``custom_dataset`` of an lm-eval task.

    lm-eval passes the whole task metadata; only ``problem_seed`` is read.
    """
    return _dataset("gsm8k", metadata)


def math_dataset(**metadata: Any) -> DatasetDict:
    """Return all splits of the mathematics problems; see `gsm8k_dataset`."""
    return _dataset("math", metadata)


def mbpp_dataset(**metadata: Any) -> DatasetDict:
    """Return all splits of the programming problems; see `gsm8k_dataset`."""
    return _dataset("mbpp", metadata)

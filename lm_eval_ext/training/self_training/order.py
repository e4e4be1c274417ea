"""The order in which rows are learned, fixed by seed: batches of rows of about equal length."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from lm_eval_ext.training.self_training.rows import Row
from lm_eval_ext.training.self_training.settings import TuningSettings

_BATCHES_PER_BUCKET = 50


def n_steps(n_rows: int, settings: TuningSettings) -> int:
    """Return the optimizer steps of a round.

    Examples
    --------
    >>> n_steps(100, TuningSettings(batch_size=8, epochs=2))
    25
    """
    return settings.steps or math.ceil(n_rows * settings.epochs / rows_per_step(settings))


def rows_per_step(settings: TuningSettings) -> int:
    """Return how many rows an optimizer step takes, over all processes."""
    return settings.batch_size * settings.gradient_accumulation * settings.num_processes


def training_order(rows: Sequence[Row], settings: TuningSettings, *, seed: str) -> list[int]:
    """Return the numbers of the rows in the order of training, all epochs one after the other.

    Every ``batch_size`` of them make a batch; sorting by length within large random buckets keeps
    padding small. With the schedule ``sequential`` all passes over D_reason come first.
    """
    total = n_steps(len(rows), settings) * rows_per_step(settings)
    if settings.steps is None:
        total = math.ceil(len(rows) * settings.epochs)
    lengths = [len(row.input_ids) for row in rows]
    rng = random.Random(seed)
    if settings.schedule != "sequential":
        return _shuffled(range(len(rows)), total, lengths, settings.batch_size, rng)
    reason = [i for i, row in enumerate(rows) if row.kind == "reason"]
    judged = [i for i, row in enumerate(rows) if row.kind == "eval"]
    # Each kind gets its share of the passes; whole batches, so that none mixes the two.
    n_first = round(total * len(reason) / len(rows))
    if judged and reason:
        n_first = max(1, round(n_first / settings.batch_size)) * settings.batch_size
        n_first = min(n_first, max(total - 1, 1))
    return [
        *_shuffled(reason, n_first, lengths, settings.batch_size, rng),
        *_shuffled(judged, total - n_first, lengths, settings.batch_size, rng),
    ]


def _shuffled(
    numbers: Sequence[int], total: int, lengths: Sequence[int], size: int, rng: random.Random
) -> list[int]:
    """Return so many numbers, each once before any twice, and likewise on."""
    order: list[int] = []
    waiting: list[int] = []
    while len(order) + len(waiting) < total:
        epoch = list(numbers)
        rng.shuffle(epoch)
        waiting += epoch[: total - len(order) - len(waiting)]
        # What makes no whole batch waits for the next epoch, or comes last.
        whole = len(waiting) - len(waiting) % size
        order += _grouped(waiting[:whole], lengths, size, rng)
        waiting = waiting[whole:]
    return order + waiting


def _grouped(
    numbers: Sequence[int], lengths: Sequence[int], size: int, rng: random.Random
) -> list[int]:
    bucket, batches = size * _BATCHES_PER_BUCKET, []
    for start in range(0, len(numbers), bucket):
        alike = sorted(numbers[start : start + bucket], key=lambda i: lengths[i])
        batches += [alike[i : i + size] for i in range(0, len(alike), size)]
    rng.shuffle(batches)
    return [number for batch in batches for number in batch]

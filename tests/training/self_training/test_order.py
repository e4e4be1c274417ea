"""The order of rows."""

from collections import Counter

import pytest

from lm_eval_ext.training.self_training.order import n_steps, training_order
from lm_eval_ext.training.self_training.rows import Row
from lm_eval_ext.training.self_training.settings import TuningSettings


def rows(n_reason, n_eval):
    kinds = ["reason"] * n_reason + ["eval"] * n_eval
    lengths = [(7 * i) % 23 + 2 for i in range(len(kinds))]
    return [Row(k, i, 0, (1,) * n, 1, False) for i, (k, n) in enumerate(zip(kinds, lengths))]  # noqa: B905


@pytest.mark.parametrize("epochs", [1, 2, 3.0])
@pytest.mark.parametrize("schedule", ["mixed", "sequential"])
def test_every_row_comes_once_an_epoch(schedule, epochs):
    settings = TuningSettings(batch_size=4, epochs=epochs, schedule=schedule)
    made = rows(16, 31)
    counts = Counter(training_order(made, settings, seed="0"))
    assert sum(counts.values()) == 47 * epochs
    assert set(counts) == set(range(47))
    assert max(counts.values()) - min(counts.values()) <= (0 if schedule == "mixed" else 1)


def test_sequential_puts_solutions_first():
    settings = TuningSettings(batch_size=4, epochs=2, schedule="sequential")
    order = training_order(rows(10, 30), settings, seed="0")
    first = [i for i in order if i < 10]
    assert order[: len(first)] == first
    assert len(first) == 20


def test_steps_decide_the_length():
    settings = TuningSettings(batch_size=4, gradient_accumulation=2, num_processes=2, steps=7)
    assert len(training_order(rows(3, 8), settings, seed="0")) == 7 * 16
    assert n_steps(11, settings) == 7
    assert n_steps(33, TuningSettings(batch_size=4, gradient_accumulation=2)) == 5


def test_batches_hold_rows_of_about_equal_length():
    made = rows(300, 500)
    order = training_order(made, TuningSettings(batch_size=8), seed="0")
    lengths = [len(made[i].input_ids) for i in order]
    padded = sum(max(lengths[i : i + 8]) * 8 for i in range(0, 800, 8))
    assert padded < 1.1 * sum(lengths)


def test_seed_fixes_the_order():
    settings = TuningSettings(batch_size=4)
    one, same, other = (training_order(rows(9, 9), settings, seed=s) for s in "001")
    assert one == same != other

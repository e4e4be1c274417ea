"""The beginning of a real run, and the estimate of the rest."""

import pytest

from lm_eval_ext.commands.plan.measure import Measurement, measure
from lm_eval_ext.commands.plan.workload import RunNumbers

TASK = "tiny_gsm8k_passn"


def test_a_run_that_ends_in_time_is_measured_as_a_whole():
    numbers = RunNumbers(attempts=2, questions=3, max_new_tokens=8)
    found = measure("tiny", TASK, numbers, seconds=600, batch_size=4, device="cpu")
    assert (found.n_ended, found.n_attempts, found.seconds_left) == (6, 6, 0)
    assert 6 <= found.n_tokens <= 6 * 8
    assert not found.is_bound
    assert "that was the whole run" in found.text()


def test_a_longer_run_is_ended_and_the_rest_estimated():
    numbers = RunNumbers(attempts=4, questions=100)
    found = measure("tiny", TASK, numbers, seconds=1, n_devices=2, batch_size=8, device="cpu")
    assert found.n_attempts == 200  # of the first of two devices
    assert found.n_ended < 200
    assert found.seconds >= 1
    assert found.seconds_left > 0


def test_what_is_measured_is_told_with_the_estimate():
    found = Measurement(seconds=60.0, seconds_left=540.0, n_ended=10, n_attempts=100, n_tokens=6000)
    assert found.text().splitlines() == [
        "measured  1 min 0 s: 10 of 100 attempts ended, 6,000 tokens, 100 tokens/s",
        "time      about 10 min 0 s of sampling",
    ]
    assert "at most about 10 min 0 s" in found._replace(is_bound=True).text()


@pytest.mark.parametrize("n_devices", [1, 3])
def test_attempts_at_a_question_stay_together(n_devices):
    numbers = RunNumbers(attempts=2, questions=4, max_new_tokens=2)
    found = measure("tiny", TASK, numbers, seconds=600, n_devices=n_devices, device="cpu")
    assert found.n_ended == 2 * -(-4 // n_devices)

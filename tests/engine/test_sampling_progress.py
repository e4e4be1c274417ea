"""The bar of a run: it moves with the tokens, and what is left is estimated."""

import sys

import numpy as np
import pytest

from lm_eval_ext.engine.request import AttemptRequest
from lm_eval_ext.engine.sampling_progress import SamplingProgress
from lm_eval_ext.harness.requests import GenerationRequest
from lm_eval_ext.models.generation import Generation, GenerationRecord

LIMIT = 100


def asked(n, limit=LIMIT):
    return [GenerationRequest("p", i, {}, (), limit) for i in range(n)]


def generation(n_tokens, attempt=0):
    return Generation("x", GenerationRecord(attempt, tuple(range(n_tokens)), "eos"))


def share(progress):
    return progress._bar.n / progress._bar.total


def test_until_the_first_attempt_ends_its_limit_is_the_estimate():
    progress = SamplingProgress(asked(10))
    assert progress.left == 10 * LIMIT
    for _ in range(30):
        progress.count("token choice", 10)
    assert progress.left == 10 * LIMIT - 300
    assert share(progress) == pytest.approx(0.3)


def test_attempts_that_end_tell_how_long_the_others_take():
    requests = asked(100)
    progress = SamplingProgress(requests)
    for _ in range(20):  # ten rows at once
        progress.count("token choice", 10)
    for request in requests[:10]:
        progress.ended(request, generation(20))
    assert progress.left == 90 * 20
    assert share(progress) == pytest.approx(0.1)


def test_no_attempt_is_expected_to_go_beyond_its_limit():
    requests = asked(10)
    progress = SamplingProgress(requests)
    for _ in range(90):
        progress.count("token choice", 10)
    progress.ended(requests[0], generation(90))
    # 900 tokens for one that has ended, and nine in flight with 10 left each.
    assert progress.left == 9 * 10


def test_limits_may_differ():
    requests = [*asked(2, limit=10), *asked(2, limit=1000)]
    progress = SamplingProgress(requests)
    assert progress.left == 2020
    progress.ended(requests[2], generation(0))
    assert progress.left == 0  # none made a token so far


def test_all_ended_is_the_end():
    requests = asked(3)
    progress = SamplingProgress(requests)
    progress.expect([attempt((1, 2, 3, 4))] * 3)
    progress.count("prefill", 2)
    progress.count("token choice", 50)
    for request in requests:
        progress.ended(request, generation(5))
    assert progress.left == 0
    assert share(progress) == 1


def test_kept_attempts_count_at_once_and_say_nothing_of_the_speed():
    requests = asked(10)
    progress = SamplingProgress(requests)
    for request in requests[:8]:
        progress.ended(request, generation(50), was_kept=True)
    assert share(progress) == pytest.approx(0.8)
    assert progress._bar.n == progress._bar.initial == 400
    progress.count("token choice", 10)
    assert progress._bar.n - progress._bar.initial == 10


def attempt(shared, private=(9,)):
    return AttemptRequest(tuple(shared), tuple(private), np.random.default_rng(0))


def test_reading_moves_it_from_the_first_prompt_on():
    progress = SamplingProgress(asked(4))
    shots = (1,) * 1000
    progress.expect([attempt((*shots, i, 5)) for i in (2, 3) for _ in range(2)])
    # The shots once, two tokens of each question, and the last one of each attempt.
    assert progress.left == 4 * LIMIT + 0.25 * (1000 + 2 * 2 + 4)
    before = share(progress)
    progress.count("prefill", 500)
    assert share(progress) > before
    assert progress.left == 4 * LIMIT + 0.25 * 508
    progress.count("prefill", 3000)  # read again for every question
    assert progress.left == 4 * LIMIT


def test_other_parts_are_no_work_of_the_bar():
    progress = SamplingProgress(asked(4))
    progress.count("decode", 8)
    progress.count("everything else", 0)
    assert progress._bar.n == 0


def test_vllm_counts_what_comes_out_of_it():
    progress = SamplingProgress(asked(4))
    progress.count("vllm", 200)
    assert share(progress) == 0.5


def test_what_is_shown(capsys):
    requests = asked(2)
    with SamplingProgress(requests) as progress:
        progress.count("token choice", 1500)
        for request in requests:
            progress.ended(request, generation(750))
    shown = capsys.readouterr().err
    last = shown.rstrip().rpartition("\r")[2]
    assert last.startswith("Sampling attempts: 100%|")
    assert last.endswith(", 2/2 attempts, 1,500 tokens]")


def test_a_file_gets_few_states(capsys):
    assert not sys.stderr.isatty()
    requests = asked(50)
    with SamplingProgress(requests) as progress:
        for request in requests:
            for _ in range(100):
                progress.count("token choice", 1)
            progress.ended(request, generation(100))
    assert capsys.readouterr().err.count("\r") <= 3


def test_disabled_it_shows_nothing(capsys):
    requests = asked(2)
    with SamplingProgress(requests, disable=True) as progress:
        progress.expect([attempt((1, 2))])
        progress.count("token choice", 3)
        progress.ended(requests[0], generation(3))
        progress.ended(requests[1], generation(3), was_kept=True)
    assert capsys.readouterr().err == ""


def test_no_requests(capsys):
    with SamplingProgress([]) as progress:
        progress.expect([])
        assert progress.left == 0

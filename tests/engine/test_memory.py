"""The row budget follows free memory and the size of the attempts."""

import pytest

from lm_eval_ext.engine import memory


@pytest.fixture
def fitting(random_model, make_requests, monkeypatch):
    def rows(free, *, n_attempts=64, max_new_tokens=100, limit=None):
        monkeypatch.setattr(memory, "free_bytes", lambda device: free)
        return memory.fitting_rows(
            random_model("llama"),
            make_requests(10, n_attempts),
            max_new_tokens=max_new_tokens,
            limit=limit,
        )

    return rows


def test_more_memory_more_rows_within_the_bounds(fitting):
    sizes = [fitting(2**power) for power in range(10, 40, 2)]
    assert sizes == sorted(sizes)
    assert sizes[0] == 1
    assert sizes[-1] == 512
    assert len(set(sizes)) > 4


def test_longer_attempts_fewer_rows(fitting):
    assert fitting(2**26, max_new_tokens=1000) < fitting(2**26, max_new_tokens=100)


def test_no_more_rows_than_attempts_or_limit(fitting):
    assert fitting(2**40, n_attempts=3) == 30
    assert fitting(2**40, limit=7) == 7


def test_bytes_per_token(random_model):
    # 2 (keys, values) x 3 layers x 4 heads x 16 x 4 bytes
    assert memory.key_value_bytes_per_token(random_model("llama")) == 2 * 3 * 4 * 16 * 4


def test_state_space_models_have_a_budget_too(random_model, make_requests):
    rows = memory.fitting_rows(random_model("mamba"), make_requests(50, 4), max_new_tokens=10)
    assert rows == 64


def test_what_prompts_have_in_common_is_counted_once(random_model, make_requests, monkeypatch):
    from dataclasses import replace

    model, beginning = random_model("llama"), tuple(range(5, 85)) * 20

    def rows(*, common, n_prompts=40, **settings):
        requests = [
            # A token of its own in front makes a prompt begin unlike all others.
            replace(one, shared_ids=(*((i,) if not common else ()), *beginning, *one.shared_ids))
            for i, one in enumerate(make_requests(n_prompts, 1))
        ]
        return memory.fitting_rows(model, requests, max_new_tokens=20, **settings)

    monkeypatch.setattr(memory, "free_bytes", lambda device: 2**26)
    assert rows(common=True) == 40
    assert 1 < rows(common=False) < 20
    assert rows(common=True, shares_beginnings=False) < 20
    # The beginning alone takes 2 x 1,600 tokens of 1.5 KiB, half of the memory may be used.
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2**23)
    assert rows(common=True) == 1

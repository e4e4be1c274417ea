"""The row budget follows free memory and the size of attempts, counted as transformers caches."""

from types import SimpleNamespace

import pytest

from lm_eval_ext.engine import memory
from lm_eval_ext.engine.memory import key_value_numbers_per_token
from lm_eval_ext.errors import UserError

WIDTHS = {"hidden_size": 32, "num_attention_heads": 4, "vocab_size": 50}
PER_LAYER = {
    **WIDTHS,
    "intermediate_size": 64,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size_per_layer_input": 50,
    "hidden_size_per_layer_input": 8,
}
CONFIGURATIONS = {
    "llama": {**WIDTHS, "num_hidden_layers": 2, "intermediate_size": 64, "num_key_value_heads": 2},
    "gpt_bigcode": {"n_embd": 32, "n_head": 4, "n_layer": 2, "vocab_size": 50},
    "falcon": {**WIDTHS, "num_hidden_layers": 2},
    "falcon many heads": {**WIDTHS, "num_hidden_layers": 2, "multi_query": False},
    "falcon grouped": {
        **WIDTHS,
        "num_hidden_layers": 2,
        "new_decoder_architecture": True,
        "num_kv_heads": 2,
    },
    "gemma3n_text": {
        **PER_LAYER,
        "num_hidden_layers": 10,
        "num_kv_shared_layers": 5,
        "laurel_rank": 4,
    },
    "gemma4_text": {**PER_LAYER, "num_hidden_layers": 6, "global_head_dim": 32},
    "gemma4_text shared": {
        **PER_LAYER,
        "num_hidden_layers": 12,
        "num_kv_shared_layers": 6,
        "global_head_dim": 32,
        "attention_k_eq_v": True,
        "num_global_key_value_heads": 1,
    },
}


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


def small_model(name):
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.for_model(name.partition(" ")[0], **CONFIGURATIONS[name])
    except ValueError as error:
        pytest.skip(f"an older transformers: {error}")
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_count_is_the_size_of_a_filled_cache(name):
    import torch

    model = small_model(name)
    with torch.no_grad():
        cache = model(input_ids=torch.ones(1, 3, dtype=torch.long), use_cache=True).past_key_values
    held = [layer for layer in cache.layers if layer.keys is not None]
    filled = sum(layer.keys.numel() + layer.values.numel() for layer in held)
    assert 3 * key_value_numbers_per_token(model.config) == filled


def test_rows_of_a_model_whose_layers_differ(make_requests, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2**24)
    found = memory.fitting_rows(
        small_model("gemma4_text"), make_requests(10, 64), max_new_tokens=100
    )
    assert 1 < found < 512


def test_unreadable_configuration_is_one_line_with_a_remedy():
    config = SimpleNamespace(model_type="odd", num_hidden_layers=2, hidden_size=8)
    with pytest.raises(UserError, match="odd model.*num_attention_heads.*--batch_size 16") as error:
        key_value_numbers_per_token(config)
    assert "\n" not in str(error.value)

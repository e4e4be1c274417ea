"""Sizes of known models, from configurations made here."""

import json

import pytest

from lm_eval_ext.commands.plan.model_shape import read_shape, shape_of
from lm_eval_ext.errors import UserError
from lm_eval_ext.models.shipped import model_path

QWEN3_06B = {
    "model_type": "qwen3",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
    "dtype": "bfloat16",
}


def config(**values):
    from transformers import AutoConfig

    return AutoConfig.for_model(values.pop("model_type"), **values)


def test_qwen3_06b(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(QWEN3_06B))
    for source in (str(tmp_path), str(path)):
        shape = read_shape(source)
        assert shape.parameters == 596_049_920
        assert shape.active == shape.parameters  # tied: the embedding is the output layer
        assert shape.cache_numbers == 2 * 28 * 8 * 128
        assert shape.dtype == "bfloat16"


def test_llama_8b_has_an_embedding_that_no_product_uses():
    values = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
    values |= {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256}
    shape = shape_of(config(model_type="llama", **values, tie_word_embeddings=False), name="8B")
    assert shape.parameters == 8_030_261_248
    assert shape.active == shape.parameters - 128256 * 4096
    assert shape.cache_numbers == 2 * 32 * 8 * 128


def test_mixture_of_experts():
    values = {
        "hidden_size": 2048,
        "num_hidden_layers": 48,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "vocab_size": 151936,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
        "tie_word_embeddings": False,
    }
    shape = shape_of(config(model_type="qwen3_moe", **values), name="30B-A3B")
    assert shape.parameters == 30_532_122_624
    assert shape.routed == 48 * 128 * 3 * 2048 * 768
    # Its name counts 3.3B active with the input embedding, which only is looked up.
    assert shape.active + shape.embedding == pytest.approx(3.35e9, rel=0.01)


def test_per_layer_embeddings_are_looked_up_and_not_multiplied():
    shape = shape_of(config(model_type="gemma3n_text"), name="3n")
    assert shape.embedding == 262144 * 35 * 256  # the tied input embedding is the output layer
    assert shape.active == shape.parameters - shape.embedding
    assert shape.active == pytest.approx(4.49e9, rel=1e-3)


def test_position_embeddings_are_looked_up():
    shape = shape_of(config(model_type="gpt2"), name="gpt2")
    assert shape.parameters == 124_439_808
    assert shape.embedding == 1024 * 768


def test_layers_that_differ_are_added_up():
    """Gemma 4: every sixth of 12 layers has heads twice as wide."""
    values = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 12}
    values |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 50}
    values |= {"head_dim": 16, "global_head_dim": 32, "hidden_size_per_layer_input": 0}
    shape = shape_of(config(model_type="gemma4_text", **values), name="gemma")
    assert shape.cache_numbers == 2 * 2 * (10 * 16 + 2 * 32)


def test_multi_query_falcon_caches_one_head():
    shape = shape_of(config(model_type="falcon"), name="7B")
    assert shape.cache_numbers == 2 * 32 * 64


def test_routed_experts_of_gemma4():
    values = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 6}
    values |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 50}
    values |= {"enable_moe_block": True, "num_experts": 8, "top_k_experts": 2}
    values |= {"moe_intermediate_size": 16, "hidden_size_per_layer_input": 0}
    shape = shape_of(config(model_type="gemma4_text", **values), name="gemma")
    assert (shape.experts, shape.experts_per_token) == (8, 2)
    assert shape.routed == 6 * 8 * 3 * 32 * 16


def test_cache_that_cannot_be_read_is_one_line(monkeypatch):
    from lm_eval_ext.engine import memory

    def unreadable(layer):
        raise AttributeError("no such name")

    monkeypatch.setattr(memory, "_key_value_heads", unreadable)
    with pytest.raises(UserError, match="--pretrained=odd: .*no such name.*--limit") as error:
        shape_of(config(model_type="gpt2"), name="odd")
    assert "--batch_size" not in str(error.value)
    assert "\n" not in str(error.value)


def test_shipped_model_is_counted_as_it_loads():
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_path("tiny"))
    assert read_shape("tiny").parameters == model.num_parameters()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"model_type": "mamba"}, "attention, which the cost model"),
        ({"model_type": "t5"}, "encoder"),
        ({"model_type": "llama", "quantization_config": {"bits": 4}}, "quantized"),
        ({"model_type": "deepseek_v3"}, "compressed keys"),
        ({"model_type": "bert"}, None),
    ],
)
def test_what_is_not_counted_is_refused(values, reason):
    if reason is None:  # an encoder that transformers makes a decoder of is counted as that
        assert shape_of(config(**values), name="bert").parameters > 1e8
        return
    with pytest.raises(UserError, match=reason):
        shape_of(config(**values), name="model")


def test_missing_configuration_is_one_line(tmp_path):
    with pytest.raises(UserError, match="--pretrained=.*nowhere") as error:
        read_shape(str(tmp_path / "nowhere"))
    assert "\n" not in str(error.value)

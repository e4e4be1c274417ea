"""Sizes of known models, from configurations made here."""

import json

import pytest

from lm_eval_ext.errors import UserError
from lm_eval_ext.planning.model_shape import read_shape, shape_of
from lm_eval_ext.tiny import model_path

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
        assert shape.head == 151936 * 1024
        assert shape.cache_numbers == 2 * 28 * 8 * 128
        assert shape.query_width == 2048
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
    with pytest.raises(UserError, match="--model-config=.*nowhere") as error:
        read_shape(str(tmp_path / "nowhere"))
    assert "\n" not in str(error.value)

"""Wider heads: the same logits."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from lm_eval_ext.errors import UserError
from lm_eval_ext.models.shipped import model_path
from lm_eval_ext.vllm_engine.widening import write_widened


@pytest.mark.parametrize("head_dim", [32, 64])
def test_logits_stay(tmp_path, tiny_tokenizer, head_dim):
    write_widened(model_path("tiny"), tmp_path, head_dim=head_dim)
    before = AutoModelForCausalLM.from_pretrained(model_path("tiny"))
    after = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert after.config.head_dim == head_dim
    text = "Question: Ann has 3 apples and buys 4 more. How many has she?\nAnswer: 3 + 4 = 7" * 5
    ids = torch.tensor([tiny_tokenizer(text)["input_ids"]])
    with torch.inference_mode():
        difference = before(ids).logits - after(ids).logits
    assert float(difference.abs().max()) < 2e-4
    assert float(before(ids).logits.detach().std()) > 1


def test_weights_are_exact_at_four_times_the_width(tmp_path):
    write_widened(model_path("tiny"), tmp_path)
    before = AutoModelForCausalLM.from_pretrained(model_path("tiny")).state_dict()
    after = AutoModelForCausalLM.from_pretrained(tmp_path).state_dict()
    for name, weight in before.items():
        scale = 2 if "q_proj" in name else 1
        values = after[name][after[name] != 0].sort().values
        assert torch.equal(values, (scale * weight[weight != 0]).sort().values), name


def test_a_width_that_is_no_multiple(tmp_path):
    with pytest.raises(UserError, match="head_dim=40 is not a multiple of the model's 16"):
        write_widened(model_path("tiny"), tmp_path, head_dim=40)

"""A smaller checkpoint gives the logits of the masked model, loaded by the plain class."""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM

from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.sinks.block_layout import find_layout
from lm_eval_ext.methods.sinks.masks import pruned, zero_heads
from lm_eval_ext.methods.sinks.selection import Removal
from lm_eval_ext.methods.sinks.structural import shrink

ARCHITECTURES = ("llama", "qwen3", "gemma3", "mistral")

# 8 query heads on 4 key/value heads: two per group.
REMOVALS = {
    "a group per layer": Removal(heads=((0, 2), (0, 3), (1, 0), (1, 1), (2, 6), (2, 7))),
    "a head per group": Removal(
        heads=tuple((i, 2 * g + (i + g) % 2) for i in range(3) for g in range(4))
    ),
    "two groups per layer": Removal(
        heads=tuple((i, h) for i in range(3) for h in range(8) if h // 2 in (i, 3))
    ),
    "both": Removal(
        heads=tuple(sorted({(i, h) for i in range(3) for h in (2 * i, 2 * i + 1, 7, 1, 3, 5)}))
    ),
}


def inputs(side):
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(5, 700, (2, 20), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, slice(0, 6) if side == "left" else slice(14, 20)] = 0
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions}


@torch.inference_mode()
def logits(model, side):
    batch = inputs(side)
    return model(**batch, use_cache=False).logits[batch["attention_mask"].bool()]


@pytest.mark.parametrize("removal", REMOVALS.values(), ids=REMOVALS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_masked_zeroed_and_smaller_are_one_model(random_model, tmp_path, name, removal):
    model = copy.deepcopy(random_model(name))
    masked = {}
    with pruned(model, removal):
        for side in ("left", "right"):
            masked[side] = logits(model, side)
    zeroed = copy.deepcopy(model)
    zero_heads(zeroed, removal)
    zeroed.save_pretrained(tmp_path / "zeroed")
    before = model.num_parameters()
    if name == "gemma3" and 64 % (8 - len(removal.heads) // 3):
        with pytest.raises(UserError, match="hidden size .64. is not a multiple.*other ratio"):
            shrink(model, removal)
        return
    model = shrink(model, removal)
    model.save_pretrained(tmp_path / "smaller")
    for form in ("zeroed", "smaller"):
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / form).eval()
        for side in ("left", "right"):
            torch.testing.assert_close(logits(loaded, side), masked[side], atol=1e-5, rtol=1e-5)
    layout = find_layout(loaded)
    assert loaded.num_parameters() < before
    assert layout.n_heads * 3 == 24 - len(removal.heads)
    assert loaded.config.head_dim == 16


@pytest.mark.parametrize("name", [*ARCHITECTURES, "gpt_neox"])
def test_blocks_are_removed_from_the_checkpoint(random_model, tmp_path, name):
    model = copy.deepcopy(random_model(name))
    removal = Removal(blocks=(1,))
    with pruned(model, removal):
        expected = logits(model, "left")
    model = shrink(model, removal)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert loaded.config.num_hidden_layers == len(find_layout(loaded).blocks) == 2
    torch.testing.assert_close(logits(loaded, "left"), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_smaller_model_generates_with_its_cache(random_model, name):
    model = copy.deepcopy(random_model(name))
    removal = REMOVALS["a head per group"]
    ids = inputs("left")["input_ids"][:1]
    with pruned(model, removal):
        expected = model.generate(ids, max_new_tokens=10, do_sample=False)
    model = shrink(model, removal)
    assert torch.equal(model.generate(ids, max_new_tokens=10, do_sample=False), expected)


@pytest.mark.parametrize(
    ("removal", "line"),
    [
        (Removal(heads=((1, 0), (1, 1))), "layer 2 would keep 8 heads and layer 1 6"),
        (Removal(heads=tuple((i, 0) for i in range(3))), "1 or 2 query heads per key/value"),
        (Removal(heads=tuple((1, h) for h in range(8))), "layer 1 would keep no query heads"),
    ],
)
def test_shapes_that_differ_are_refused(random_model, removal, line):
    model = copy.deepcopy(random_model("llama"))
    with pytest.raises(UserError, match=line) as error:
        shrink(model, removal)
    assert "\n" not in str(error.value)


def test_an_architecture_without_separate_projections_is_refused(random_model):
    model = copy.deepcopy(random_model("gpt_neox"))
    every = Removal(heads=tuple((i, h) for i in range(3) for h in (0, 5)))
    with pytest.raises(UserError, match="GPTNeoXAttention has no q_proj.*zeroed"):
        shrink(model, every)


def test_an_architecture_that_normalizes_over_all_heads_is_refused(random_model, tiny_tokenizer):
    from transformers import AutoConfig

    config = AutoConfig.for_model(
        "olmo2", vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, pad_token_id=0,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(UserError, match="Olmo2ForCausalLM.*(cannot express|fails)"):
        shrink(model, Removal(heads=((0, 0), (0, 1), (1, 2), (1, 3))))


def test_blocks_have_no_zeroed_form(random_model):
    with pytest.raises(UserError, match="form=structural"):
        zero_heads(random_model("llama"), Removal(blocks=(1,)))


def test_other_weights_than_floats_are_refused(random_model):
    model = copy.deepcopy(random_model("llama"))
    block = find_layout(model).blocks[0]

    class Linear4bit(torch.nn.Linear):
        pass

    block.attention.o_proj = Linear4bit(128, 64, bias=False)
    removal = Removal(heads=((0, 0),))
    with pytest.raises(UserError, match="Linear4bit"):
        zero_heads(model, removal)
    with pruned(model, removal):  # masking works all the same
        assert logits(model, "left").isfinite().all()

"""Heads and blocks are taken out exactly, by every route, and put back."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.sinks.block_layout import find_layout, projection_weight
from lm_eval_ext.methods.sinks.masks import pruned, zero_heads
from lm_eval_ext.methods.sinks.selection import Removal

ARCHITECTURES = ("llama", "qwen3", "gemma3", "mistral", "gpt_neox")
HEADS = Removal(heads=((0, 1), (1, 0), (1, 3), (1, 7), (2, 5)))


def padded(side):
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(5, 700, (3, 20), generator=generator)
    mask = torch.ones_like(ids)
    for row, length in enumerate((20, 9, 15)):
        mask[row, slice(0, 20 - length) if side == "left" else slice(length, 20)] = 0
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": (mask.cumsum(-1) - 1).clamp_min(0),
    }


@torch.inference_mode()
def logits(model, side):
    inputs = padded(side)
    return model(**inputs, use_cache=False).logits[inputs["attention_mask"].bool()]


@torch.inference_mode()
def cached_logits(model, n_steps=6):
    """Return the logits of left-padded rows, read first in one go and then token by token."""
    inputs = padded("left")
    split = 20 - n_steps
    cache, parts = None, []
    for start, stop in [(0, split), *((i, i + 1) for i in range(split, 20))]:
        output = model(
            input_ids=inputs["input_ids"][:, start:stop],
            attention_mask=inputs["attention_mask"][:, :stop],
            position_ids=inputs["position_ids"][:, start:stop],
            past_key_values=cache,
            use_cache=True,
        )
        cache = output.past_key_values
        parts.append(output.logits)
    return torch.cat(parts, dim=1)[inputs["attention_mask"].bool()]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_masking_is_zeroing_the_columns(random_model, name, side):
    model = random_model(name)
    dense = logits(model, side)
    with pruned(model, HEADS):
        masked = logits(model, side)
    assert torch.equal(logits(model, side), dense)
    zeroed = copy.deepcopy(model)
    zero_heads(zeroed, HEADS)
    torch.testing.assert_close(masked, logits(zeroed, side), atol=1e-5, rtol=1e-5)
    assert (masked - dense).abs().max() > 0.01


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_masking_is_the_output_without_those_heads(random_model, name):
    # By hand: subtract what the removed heads add to one block's attention.
    model = random_model(name)
    layout = find_layout(model)
    block = layout.blocks[1]
    seen = {}
    hook = block.projection.register_forward_hook(
        lambda _, args, output: seen.update(heads=args[0], output=output)
    )
    logits(model, "right")
    heads, full = seen["heads"].clone(), seen["output"].clone()
    only = Removal(heads=((1, 2),))
    with pruned(model, only):
        logits(model, "right")
    hook.remove()
    at = slice(2 * block.head_dim, 3 * block.head_dim)
    removed = heads[..., at] @ block.projection.weight[:, at].T
    torch.testing.assert_close(seen["output"], full - removed, atol=1e-5, rtol=1e-5)


class _Identity(nn.Module):
    def forward(self, hidden_states, **_):
        return hidden_states


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("block", [0, 1, 2])
def test_removing_a_block_is_putting_the_identity_there(random_model, name, block):
    model = random_model(name)
    layout = find_layout(model)
    dense = logits(model, "left")
    config = copy.deepcopy(model.config.to_dict())
    reference = copy.deepcopy(model)
    find_layout(reference).container[block] = _Identity()
    with pruned(model, Removal(blocks=(block,))):
        assert model.config.num_hidden_layers == len(layout.container) == 2
        for side in ("left", "right"):
            torch.testing.assert_close(
                logits(model, side), logits(reference, side), atol=1e-5, rtol=1e-5
            )
        torch.testing.assert_close(
            cached_logits(model), logits(reference, "left"), atol=1e-4, rtol=1e-4
        )
    assert model.config.to_dict() == config
    assert torch.equal(logits(model, "left"), dense)
    assert [part.attention.layer_idx for part in find_layout(model).blocks] == [0, 1, 2]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_masks_hold_with_a_cache(random_model, name):
    model = random_model(name)
    with pruned(model, HEADS):
        torch.testing.assert_close(
            cached_logits(model), logits(model, "left"), atol=1e-4, rtol=1e-4
        )


def test_the_model_is_put_back_after_an_error(random_model):
    model = random_model("llama")
    dense = logits(model, "right")
    for removal in (HEADS, Removal(blocks=(1,))):
        with pytest.raises(ZeroDivisionError), pruned(model, removal):
            raise ZeroDivisionError
        assert torch.equal(logits(model, "right"), dense)


def test_compensation_gives_out_the_mean(random_model):
    model = random_model("gpt_neox")
    layout = find_layout(model)
    size = layout.blocks[0].head_dim
    constant = np.random.default_rng(0).normal(size=(3, 8, size))
    seen = {}
    with pruned(model, Removal(heads=((1, 2), (1, 4))), replacement=constant):
        hook = layout.blocks[1].projection.register_forward_pre_hook(
            lambda _, args: seen.update(heads=args[0].unflatten(-1, (8, size)))
        )
        logits(model, "right")
        hook.remove()
    for head in (2, 4):
        expected = torch.from_numpy(constant[1, head]).float().expand_as(seen["heads"][..., 0, :])
        torch.testing.assert_close(seen["heads"][..., head, :], expected)
    assert seen["heads"][..., 3, :].std() > 0


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_weight_is_read_off_the_module(random_model, name):
    layout = find_layout(random_model(name))
    for block in layout.blocks:
        torch.testing.assert_close(
            projection_weight(block, layout.n_heads), block.projection.weight.data,
            atol=1e-6, rtol=1e-5,
        )  # fmt: skip


@pytest.mark.filterwarnings("ignore")
def test_heads_of_quantized_weights_are_masked_and_scored(random_model):
    quantize = pytest.importorskip("torch.ao.quantization").quantize_dynamic
    model = random_model("llama")
    quantized = quantize(copy.deepcopy(model), {nn.Linear})
    layout = find_layout(quantized)
    block = layout.blocks[1]
    assert type(block.projection) is not nn.Linear
    exact = find_layout(model).blocks[1].projection.weight
    weight = projection_weight(block, layout.n_heads)
    assert (weight - exact).abs().max() < 0.02 * exact.abs().max()
    seen = {}
    hook = block.projection.register_forward_hook(
        lambda _, args, output: seen.update(heads=args[0], output=output)
    )
    removal = Removal(heads=((1, 3),))
    with pruned(quantized, removal):
        logits(quantized, "left")
    hook.remove()
    at = slice(3 * block.head_dim, 4 * block.head_dim)
    assert not seen["heads"][..., at].any()
    assert torch.equal(seen["output"], block.projection(seen["heads"]))
    with pytest.raises(UserError, match="cannot be edited"):
        zero_heads(quantized, removal)


def test_a_model_without_heads_is_refused(random_model):
    with pytest.raises(UserError, match="no attention heads"):
        find_layout(random_model("mamba"))

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from deepening import deepen


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("after", [(), (0,), (2, 0, 0)])
def test_logits_stay_and_new_blocks_are_where_asked(model, after):
    deeper, new = deepen(model, after)
    ids = torch.randint(0, 50, (2, 9))
    assert torch.equal(deeper.eval()(ids).logits, model(ids).logits)
    assert deeper.config.num_hidden_layers == 3 + len(after)
    assert model.config.num_hidden_layers == 3
    old = [block for i, block in enumerate(deeper.model.layers) if i not in new]
    for kept, original in zip(old, model.model.layers, strict=True):
        assert torch.equal(kept.mlp.up_proj.weight, original.mlp.up_proj.weight)
    assert [block.self_attn.layer_idx for block in deeper.model.layers] == list(range(3 + len(new)))


def test_order(model):
    assert deepen(model, (2, 0, 0))[1] == [1, 2, 5]
    assert deepen(model, (1,))[1] == [2]


def test_new_block_reads_like_the_one_before_it_and_learns(model):
    deeper, (new,) = deepen(model, (1,))
    block, before = deeper.model.layers[new], deeper.model.layers[new - 1]
    assert torch.equal(block.self_attn.q_proj.weight, before.self_attn.q_proj.weight)
    assert not block.self_attn.o_proj.weight.any()
    assert not block.mlp.down_proj.weight.any()
    deeper(torch.arange(10)[None]).logits.square().sum().backward()
    assert block.self_attn.o_proj.weight.grad.abs().sum() > 0
    assert block.mlp.down_proj.weight.grad.abs().sum() > 0


def test_models_share_no_weights(model):
    deeper, _ = deepen(model, (0,))
    with torch.no_grad():
        deeper.model.layers[0].mlp.up_proj.weight.zero_()
    assert model.model.layers[0].mlp.up_proj.weight.any()


def test_missing_block_is_refused(model):
    with pytest.raises(ValueError, match=r"after=\[1, 3\].*0 to 2"):
        deepen(model, (1, 3))

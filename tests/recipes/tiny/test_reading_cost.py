import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from reading_cost import costed_logits


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config)


IDS = torch.arange(24).view(2, 12)


def brute_force(model):
    """The definition, from eager attention and the layers' own value projections."""
    values = {}
    for index, block in enumerate(model.model.layers):
        block.self_attn.v_proj.register_forward_hook(
            lambda module, inputs, output, index=index: values.update({index: output})
        )
    model.set_attn_implementation("eager")
    with torch.no_grad():
        attentions = model(IDS, output_attentions=True).attentions
    costs = []
    for index, weights in enumerate(attentions):
        for row in range(2):
            for head in range(4):
                value = values[index][row].view(12, 2, 8)[:, head // 2]
                norms = value.square().sum(-1)
                read = sum(weights[row, head, t] @ norms for t in range(12)) / 12
                costs.append(read / norms.mean())
    return torch.stack(costs).mean()


def test_cost_is_its_definition(model):
    _, cost = costed_logits(model, IDS)
    torch.testing.assert_close(cost.detach(), brute_force(model))


def test_logits_are_those_of_the_model(model):
    before = model.config._attn_implementation
    logits, _ = costed_logits(model, IDS)
    assert model.config._attn_implementation == before
    torch.testing.assert_close(logits, model(IDS).logits, atol=1e-5, rtol=1e-5)


def test_scale_of_values_costs_nothing_and_rest_does(model):
    cost = costed_logits(model, IDS)[1]
    with torch.no_grad():
        model.model.layers[1].self_attn.v_proj.weight.mul_(7)
    torch.testing.assert_close(costed_logits(model, IDS)[1], cost)


def test_even_attention_to_equal_values_costs_one(model):
    with torch.no_grad():
        for block in model.model.layers:
            block.self_attn.q_proj.weight.zero_()
    cost = costed_logits(model, torch.full((1, 12), 3))[1]
    torch.testing.assert_close(cost.detach(), torch.tensor(1.0))


def test_descent_lowers_it(model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    costs = []
    for _ in range(30):
        cost = costed_logits(model, IDS)[1]
        cost.backward()
        optimizer.step()
        optimizer.zero_grad()
        costs.append(float(cost.detach()))
    assert costs[-1] < 0.6 * costs[0]

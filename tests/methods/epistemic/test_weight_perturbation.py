"""The perturbed model: weights, activations, and nothing left behind."""

import copy

import pytest
import torch
from scipy import stats

from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.epistemic.weight_perturbation import WeightPerturbation, effective_weight

IDS = torch.arange(5, 35).reshape(2, 15)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@torch.inference_mode()
def logits(model):
    return model(input_ids=IDS, use_cache=False).logits


def test_hooks_compute_what_the_changed_weights_compute(random_model):
    """The literal definition: W0 + U' eps^T written into a copy of the model."""
    model = random_model("llama")
    perturbation = WeightPerturbation(model, rank=3, sigma=0.3)
    draw = perturbation.draw(seeded())
    changed = copy.deepcopy(model)
    for name, eps in draw.eps.items():
        weight = changed.get_submodule(name).weight
        u, _, _ = torch.linalg.svd(weight.detach())
        weight.data += u[:, :3] @ eps.T
    with perturbation.applied(draw):
        ours = logits(model)
    # Singular vectors have a sign of their own; both decompositions are the same routine's.
    torch.testing.assert_close(ours, logits(changed), atol=1e-4, rtol=1e-4)
    assert (ours - logits(model)).abs().max() > 0.1


def test_default_modules_are_queries_and_values(random_model):
    names = WeightPerturbation(random_model("llama")).module_names
    assert len(names) == 6
    assert {name.rpartition(".")[2] for name in names} == {"q_proj", "v_proj"}


def test_basis_spans_the_best_approximation(random_model):
    """Eckart-Young: projecting on U' leaves exactly the tail of the squared singular values."""
    model = random_model("llama")
    perturbation = WeightPerturbation(model, rank=5)
    for name, basis in perturbation.basis.items():
        weight = effective_weight(model.get_submodule(name))
        torch.testing.assert_close(basis.T @ basis, torch.eye(5), atol=1e-5, rtol=0)
        left = (weight - basis @ basis.T @ weight).square().sum()
        tail = torch.linalg.svdvals(weight)[5:].square().sum()
        torch.testing.assert_close(left, tail, rtol=1e-4, atol=0)


class OneLayer(torch.nn.Module):
    def __init__(self, kind=torch.nn.Linear):
        super().__init__()
        torch.manual_seed(0)
        self.q_proj = kind(12, 9)

    def forward(self, x):
        return self.q_proj(x)


def test_matching_draws_give_equal_weight_and_activation_forms():
    """With xi = eps^T x / (sigma |x|) both forms are one and the same."""
    model, sigma = OneLayer(), 0.2
    perturbation = WeightPerturbation(model, rank=4, sigma=sigma, modules=("q_proj",))
    draw = perturbation.draw(seeded())
    x = torch.randn(2, 3, 12, generator=seeded(1))
    xi = x @ draw.eps["q_proj"] / (sigma * x.norm(dim=-1, keepdim=True))
    with torch.no_grad():
        with perturbation.applied(draw):
            by_weight = model(x)
        with perturbation.with_noise({"q_proj": xi}):
            by_activation = model(x)
    torch.testing.assert_close(by_activation, by_weight, atol=1e-6, rtol=1e-5)


def test_weight_and_activation_forms_agree_in_distribution():
    model, n_draws = OneLayer(), 2000
    perturbation = WeightPerturbation(model, rank=4, sigma=0.3, modules=("q_proj",))
    x = torch.randn(1, 1, 12, generator=seeded(1))
    generator = seeded(2)
    with torch.no_grad():
        clean = model(x)
        by_weight = []
        for _ in range(n_draws):
            with perturbation.applied(perturbation.draw(generator)):
                by_weight.append(model(x) - clean)
        with perturbation.token_noise(generator):
            by_activation = (model(x.expand(1, n_draws, 12)) - clean)[0]
    one, other = torch.cat(by_weight)[:, 0] @ perturbation.basis["q_proj"], by_activation
    other = other @ perturbation.basis["q_proj"]
    scale = 0.3 * float(x.norm())
    for component in range(4):
        for sample in (one[:, component], other[:, component]):
            assert stats.kstest((sample / scale).numpy(), "norm").pvalue > 1e-3
    # Components are independent, and the change stays in the span of the basis.
    assert torch.corrcoef(other.T).fill_diagonal_(0).abs().max() < 0.1


def test_the_model_is_left_bit_identical(random_model):
    model = random_model("llama")
    before, weights = logits(model), copy.deepcopy(model.state_dict())
    perturbation = WeightPerturbation(model)
    with perturbation.applied(perturbation.draw(seeded())):
        assert not torch.equal(logits(model), before)
    with pytest.raises(RuntimeError, match="inside"), perturbation.token_noise(seeded()):
        raise RuntimeError("inside")
    assert torch.equal(logits(model), before)
    assert all(torch.equal(weights[k], v) for k, v in model.state_dict().items())


def test_noise_per_token_hits_the_chosen_rows_only(random_model):
    model = random_model("llama")
    perturbation = WeightPerturbation(model)
    before = logits(model)
    for rows in ([1], torch.tensor([False, True])):
        with perturbation.token_noise(seeded(), rows=rows):
            ours = logits(model)
        assert torch.equal(ours[0], before[0])
        assert not torch.equal(ours[1], before[1])


def test_draws_belong_to_their_generator(random_model):
    perturbation = WeightPerturbation(random_model("llama"))
    one, again, other = (perturbation.draw(seeded(seed)).eps for seed in (0, 0, 1))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)


def test_no_noise_changes_nothing(random_model):
    model = random_model("llama")
    perturbation = WeightPerturbation(model, sigma=0)
    with perturbation.applied(perturbation.draw(seeded())):
        assert torch.equal(logits(model), logits(random_model("llama")))


class Packed(torch.nn.Linear):
    """A linear layer whose matrix is not what its ``weight`` holds."""

    def forward(self, x):
        return torch.nn.functional.linear(x, -2 * self.weight, self.bias)


def test_weights_that_cannot_be_read_are_found_by_probing():
    layer = OneLayer(Packed).q_proj
    torch.testing.assert_close(effective_weight(layer), -2 * layer.weight.detach())


def test_gpt2_keeps_its_weights_transposed():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2)).eval()
    perturbation = WeightPerturbation(model, rank=2, modules=("c_attn",))
    draw = perturbation.draw(seeded())
    weight = model.transformer.h[0].attn.c_attn.weight
    (eps,), (basis,) = draw.eps.values(), perturbation.basis.values()
    changed = copy.deepcopy(model)
    changed.transformer.h[0].attn.c_attn.weight.data += eps @ basis.T
    assert effective_weight(model.transformer.h[0].attn.c_attn).shape == weight.T.shape
    with perturbation.applied(draw):
        torch.testing.assert_close(logits(model), logits(changed), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"modules": ("q_proj", "qv")}, r"modules=q_proj\+qv: Llama.* named qv; .*v_pr"),
        ({"modules": ()}, "must be a list of names"),
        ({"rank": 0}, "rank=0 must be a whole number of at least 1"),
        ({"rank": 65}, "rank=65 is more than model.layers.0.self_attn.* lower rank to at most 64"),
        ({"sigma": -1.0}, "sigma=-1.0 must be a number of at least 0"),
    ],
)
def test_bad_settings_are_named(random_model, settings, message):
    with pytest.raises(UserError, match=message):
        WeightPerturbation(random_model("llama"), **settings)

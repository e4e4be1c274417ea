"""Total, aleatoric and epistemic uncertainty, on posteriors whose values are known."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_eval_ext.methods.epistemic.divergence import jensen_shannon_divergence
from lm_eval_ext.methods.epistemic.ensemble import ensemble_uncertainty, finite_sample_factor


def dirichlet_uncertainty(alpha):
    """TU, AU and EU of p ~ Dirichlet(alpha), in closed form."""
    total = alpha.sum()
    mean = alpha / total
    tu = -(mean * mean.log()).sum()
    au = torch.digamma(total + 1) - (mean * torch.digamma(alpha + 1)).sum()
    return float(tu), float(au), float(tu - au)


@pytest.mark.parametrize("n_members", [2, 5, 10])
def test_a_sampled_posterior_is_too_small_by_the_factor(n_members):
    """Dirichlet(40 * mean): the plug-in EU is (1 - 1/M) of the truth, the correction undoes it."""
    torch.manual_seed(0)
    alpha = 40 * torch.tensor([0.5, 0.2, 0.2, 0.1], dtype=torch.float64)
    tu, au, eu = dirichlet_uncertainty(alpha)
    probs = torch.distributions.Dirichlet(alpha).sample((n_members, 40_000))
    plain = ensemble_uncertainty(probs.log())
    corrected = ensemble_uncertainty(probs.log(), corrected=True)
    assert float(plain.au.double().mean()) == pytest.approx(au, rel=0.01)
    assert float(plain.eu.double().mean()) == pytest.approx(eu * (1 - 1 / n_members), rel=0.03)
    assert float(corrected.eu.double().mean()) == pytest.approx(eu, rel=0.03)
    assert torch.equal(corrected.tu, plain.tu)
    assert tu > au > eu > 0


@given(
    n_members=st.integers(1, 6),
    width=st.integers(2, 200),
    spread=st.sampled_from([0.0, 0.5, 3.0, 30.0]),
    seed=st.integers(0, 2**20),
)
@settings(max_examples=60, deadline=None)
def test_epistemic_uncertainty_is_the_members_divergence(n_members, width, spread, seed):
    """H(mean) - mean H is the Jensen-Shannon divergence; it is at most ln M."""
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(n_members, 5, width, generator=generator)
    found = ensemble_uncertainty(logits)
    exact = jensen_shannon_divergence(torch.log_softmax(logits.double(), -1))
    torch.testing.assert_close(found.eu.double(), exact, atol=2e-6, rtol=1e-5)
    assert (found.eu >= 0).all()
    assert (found.eu <= math.log(n_members) + 2e-6).all()
    assert (found.tu <= math.log(width) + 1e-5).all()


def test_masked_slots_count_for_nothing():
    logits = torch.tensor([[[1.0, 2.0, -math.inf]], [[0.5, -1.0, -math.inf]]])
    found = ensemble_uncertainty(logits)
    expected = ensemble_uncertainty(logits[..., :2])
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_what_cannot_be_computed_is_refused():
    with pytest.raises(ValueError, match="n_members=1 must be at least 2"):
        finite_sample_factor(1)
    with pytest.raises(ValueError, match="logits is empty"):
        ensemble_uncertainty([])

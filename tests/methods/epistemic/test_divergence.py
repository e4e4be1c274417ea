"""Divergences among drafts: identities that hold for any distributions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_eval_ext.methods.epistemic.divergence import (
    draft_divergences,
    jensen_shannon_divergence,
    kl_divergence,
    mixture_log_probs,
)


def drawn(n_models, n_tokens, width, spread, seed):
    generator = torch.Generator().manual_seed(seed)
    return list(spread * torch.randn(n_models, n_tokens, width, generator=generator))


CASES = given(
    n_drafts=st.integers(1, 6),
    width=st.integers(2, 300),
    spread=st.sampled_from([0.0, 0.1, 1.0, 5.0, 40.0]),
    seed=st.integers(0, 2**20),
)


@CASES
@settings(max_examples=60, deadline=None)
def test_the_decomposition_is_an_identity(n_drafts, width, spread, seed):
    """mean_k KL(q_k || p) = JSD + KL(mixture || p), against float64."""
    *drafts, target = drawn(n_drafts + 1, 7, width, spread, seed)
    found = draft_divergences(drafts, target)
    exact = [torch.log_softmax(one.double(), -1) for one in (*drafts, target)]
    to_target = torch.stack([kl_divergence(q, exact[-1]) for q in exact[:-1]])
    scale = 1 + float(to_target.max())
    torch.testing.assert_close(
        found.eu.double(), to_target.mean(0), atol=1e-6 * scale, rtol=0, check_dtype=False
    )
    torch.testing.assert_close(found.first.double(), to_target[0], atol=1e-6 * scale, rtol=0)
    mixture = mixture_log_probs(torch.stack(exact[:-1]))
    torch.testing.assert_close(
        found.kl.double(), kl_divergence(mixture, exact[-1]), atol=1e-6 * scale, rtol=0
    )


@CASES
@settings(max_examples=60, deadline=None)
def test_ranges(n_drafts, width, spread, seed):
    *drafts, target = drawn(n_drafts + 1, 7, width, spread, seed)
    found = draft_divergences(drafts, target)
    assert all(bool(torch.isfinite(values).all()) and bool((values >= 0).all()) for values in found)
    assert (found.jsd <= math.log(n_drafts)).all()
    if n_drafts == 1:
        assert not found.jsd.any()
        assert torch.equal(found.kl, found.first)


@CASES
@settings(max_examples=40, deadline=None)
def test_equal_members_give_exactly_zero(n_drafts, width, spread, seed):
    (logits,) = drawn(1, 7, width, spread, seed)
    log_probs = torch.log_softmax(logits, -1)
    members = log_probs.expand(n_drafts, -1, -1)
    assert torch.equal(mixture_log_probs(members), log_probs)
    assert not jensen_shannon_divergence(members).any()
    assert not torch.stack(draft_divergences([logits] * n_drafts, logits)).any()


def test_certain_drafts_that_all_disagree_reach_the_bound():
    drafts = list(100 * torch.eye(4)[:, None])
    found = draft_divergences(drafts, torch.zeros(1, 4))
    assert float(found.jsd) == pytest.approx(math.log(4))
    assert float(found.kl) == pytest.approx(0, abs=1e-6)  # their mixture is the uniform target
    assert float(found.first) == pytest.approx(math.log(4))


def test_the_direction_is_from_the_mixture_to_the_target():
    draft, target = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log()
    expected = 0.9 * math.log(1.8) + 0.1 * math.log(0.2)
    assert float(draft_divergences([draft], target).kl) == pytest.approx(expected, rel=1e-5)


def test_shared_tensors_are_weighted_as_copies():
    one, other, target = drawn(3, 9, 50, 2.0, 0)
    shared = draft_divergences([one, target, one], target)
    copies = draft_divergences([one, target.clone(), one.clone()], target)
    assert other is not one
    for a, b in zip(shared, copies, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("wide", ["draft", "target"])
def test_padding_of_the_vocabulary_is_cut_and_renormalized(wide):
    one, other, target = drawn(3, 9, 50, 2.0, 0)
    expected = draft_divergences([one, other], target)
    padding = 3 * torch.ones(9, 14)
    if wide == "draft":
        found = draft_divergences([one, torch.cat([other, padding], -1)], target)
    else:
        found = draft_divergences([one, other], torch.cat([target, padding], -1))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_slot_one_model_masks_is_in_no_vocabulary():
    one, other, target = drawn(3, 9, 50, 2.0, 0)
    expected = draft_divergences([one[:, 1:], other[:, 1:]], target[:, 1:])
    target[:, 0] = -torch.inf
    found = draft_divergences([one, other], target)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_chunks_do_not_show():
    *drafts, target = drawn(3, 500, 700, 2.0, 0)
    whole = draft_divergences(drafts, target)
    for rows in (slice(0, 3), slice(200, 210)):
        part = draft_divergences([one[rows] for one in drafts], target[rows])
        for a, b in zip(part, whole, strict=True):
            torch.testing.assert_close(a, b[rows], atol=1e-6, rtol=1e-5)


def test_half_precision_logits_are_compared_in_single():
    one, target = (logits.bfloat16() for logits in drawn(2, 9, 50, 2.0, 0))
    found = draft_divergences([one], target)
    assert found.kl.dtype == torch.float32
    assert torch.equal(found.kl, draft_divergences([one.float()], target.float()).kl)


def test_missing_support_is_infinite_and_no_support_is_nothing():
    p, q = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([1.0, 0.0, 0.0])
    assert float(kl_divergence(p.log(), q.log())) == math.inf
    assert float(kl_divergence(q.log(), p.log())) == pytest.approx(math.log(2))

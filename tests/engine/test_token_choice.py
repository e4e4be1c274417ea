"""The token choice against transformers' processors and a plain float64 sum, row by row."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from lm_eval_ext.engine import token_choice
from lm_eval_ext.engine.sampling import Sampler
from lm_eval_ext.engine.sampling_settings import SamplingSettings
from lm_eval_ext.engine.token_choice import (
    UNDECIDED,
    Nucleus,
    from_candidates,
    inverse_cdf,
    largest,
    most_likely,
    n_candidates,
)

VOCABULARY = 49_152
WAYS = {
    "greedy": {"do_sample": False},
    "penalty": {"do_sample": False, "repetition_penalty": 1.3},
    "plain": {},
    "temperature": {"temperature": 0.7},
    "top_k": {"top_k": 50},
    "top_k_1": {"top_k": 1},
    "large_top_k": {"temperature": 1.5, "top_k": 3000},
    "top_p": {"temperature": 0.7, "top_p": 0.95},
    "small_top_p": {"top_p": 0.1},
    "top_p_of_the_mode": {"top_p": 1e-4},
    "large_top_p": {"top_p": 0.9999},
    "top_k_p": {"temperature": 0.6, "top_k": 20, "top_p": 0.95},
    "min_p": {"min_p": 0.05},
    "full_min_p": {"min_p": 1.0},
    "tiny_min_p": {"min_p": 1e-9},
    "top_p_min_p": {"temperature": 0.8, "top_p": 0.9, "min_p": 0.02},
    "typical": {"typical_p": 0.9},
    "all": {
        "temperature": 0.8,
        "top_k": 40,
        "top_p": 0.9,
        "min_p": 0.01,
        "repetition_penalty": 1.2,
        "typical_p": 0.95,
    },
    "all_but_typical": {
        "temperature": 0.8,
        "top_k": 40,
        "top_p": 0.9,
        "min_p": 0.01,
        "repetition_penalty": 1.2,
    },
}


def make_settings(**ways):
    return SamplingSettings(1, **{"do_sample": True, **ways})


def make_rows(kind, n_rows, vocabulary, seed):
    """Return logits of one kind."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n_rows, vocabulary))
    if kind == "spread":
        rows *= rng.uniform(0.2, 3, (n_rows, 1))
    elif kind == "peaked":
        rows *= 2
        for row in rows:
            likely = rng.choice(vocabulary, 30, replace=False)
            row[likely] = rng.normal(14, 3, 30)
    elif kind == "sure":
        rows[np.arange(n_rows), rng.integers(0, vocabulary, n_rows)] = 300
    elif kind == "ties":
        # The coarse ones have hundreds of equal entries at any limit, the others some.
        step = 2.0 ** -rng.integers(1, 12, (n_rows, 1))
        rows = np.round(rows * 3 / step) * step
    elif kind == "masked":
        rows = np.where(rng.random(rows.shape) < rng.random((n_rows, 1)), -np.inf, rows * 4)
        rows[:, -1] = 0
    elif kind == "few":
        rows[np.argsort(rng.random(rows.shape), axis=-1) >= 7] = -np.inf
    return torch.from_numpy(rows.astype(np.float32))


KINDS = ("spread", "peaked", "sure", "ties", "masked", "few")


def reference_tokens(settings, logits, uniforms, context):
    scores = settings.logits_processors()(context, logits.clone())
    if not settings.do_sample:
        return scores.argmax(dim=-1)
    cumulative = torch.softmax(scores, dim=-1, dtype=torch.float64).cumsum(dim=-1)
    total = cumulative[:, -1]
    target = torch.minimum(uniforms * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, target.unsqueeze(-1), right=True).squeeze(-1)


def reference_statistics(logits, token_ids):
    rows = []
    for row, token_id in zip(logits.double(), token_ids.tolist(), strict=True):
        log_probs = torch.log_softmax(row, dim=-1)
        possible = log_probs[log_probs > -torch.inf]
        probs = possible.exp()
        top = torch.cat([probs, torch.zeros(1)]).topk(2).values
        n = len(possible)
        rows.append(
            [
                log_probs[token_id],
                -(probs * possible).sum(),
                -possible.mean() - math.log(n),
                top[0] - top[1],
            ]
        )
    return torch.tensor(rows)


def assert_as_reference(ways, logits, seed=0):
    wanted = make_settings(**ways)
    rng = np.random.default_rng([seed, 1])
    uniforms = torch.from_numpy(rng.random(len(logits)))
    context = torch.from_numpy(rng.integers(0, logits.shape[-1], (len(logits), 30)))
    sampled = Sampler(wanted)(logits, uniforms, context)
    expected = reference_tokens(wanted, logits, uniforms, context)
    assert sampled.token_ids.tolist() == expected.tolist()
    statistics = reference_statistics(logits, sampled.token_ids)
    np.testing.assert_allclose(sampled.statistics, statistics, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_tokens_and_statistics_are_those_of_the_plain_way(way, kind):
    assert_as_reference(WAYS[way], make_rows(kind, 7, VOCABULARY, seed=len(way)))


@pytest.mark.parametrize("vocabulary", [2, 3, 64, 512, 4097, 8191, 50_257])
@pytest.mark.parametrize("way", ["greedy", "plain", "top_k", "top_p", "top_k_p", "min_p", "all"])
def test_every_size_of_vocabulary_will_do(way, vocabulary):
    kinds = ("spread", "ties", "masked")
    logits = torch.cat([make_rows(kind, 3, vocabulary, seed=vocabulary) for kind in kinds])
    assert_as_reference(WAYS[way], logits)


logit_rows = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 3), st.integers(2, 300)),
    # Few distinct values, so that there are ties, and whole blocks that nothing can come from.
    elements=st.sampled_from([-np.inf, -1e30, -800.0, -90.0, -3.0, -2.5, 0.0, 0.125, 4.0]),
)


@settings(max_examples=150, deadline=None)
@given(
    logit_rows,
    # None at a border of the intervals of a few equally likely tokens, where rounding decides.
    st.sampled_from([0.0, 2.0**-53, 0.2718281, 0.5772156, 0.9993117, np.nextafter(1.0, 0.0)]),
    st.sampled_from([w for w in WAYS.values() if "repetition_penalty" not in w]),
)
def test_any_row_gives_the_token_of_the_plain_way(rows, uniform, ways):
    """As for a large vocabulary: small blocks, and candidates wherever there can be."""
    rows[:, -1] = 1.0
    logits, uniforms = (
        torch.from_numpy(rows),
        torch.full((len(rows),), uniform, dtype=torch.float64),
    )
    wanted = make_settings(**ways)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_choice, "_BLOCK", 4)
        patch.setattr(token_choice, "_SMALL_VOCABULARY", 1)
        patch.setattr(token_choice, "_CANDIDATES", 5)
        patch.setattr(token_choice, "_TIES", 2)
        patch.setattr(token_choice, "_MOST_CANDIDATES", 1)
        sampled = Sampler(wanted)(logits, uniforms)
    expected = reference_tokens(wanted, logits, uniforms, None)
    assert sampled.token_ids.tolist() == expected.tolist()
    expected = reference_statistics(logits, sampled.token_ids)
    np.testing.assert_allclose(sampled.statistics, expected, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("way", ["top_k", "top_k_p", "top_p", "min_p", "top_p_min_p"])
def test_candidates_decide_on_peaked_rows(way):
    """Else the fast way would be no way at all."""
    wanted = make_settings(**WAYS[way])
    logits = make_rows("peaked", 64, VOCABULARY, seed=3) / wanted.temperature
    uniforms = torch.from_numpy(np.random.default_rng(0).random(64))
    assert n_candidates(wanted, VOCABULARY) <= 64
    token_ids = from_candidates(logits, uniforms, wanted)
    assert (token_ids == UNDECIDED).float().mean() < 0.1


def test_candidates_do_not_decide_what_rounding_or_the_order_of_ties_decides():
    logits = torch.full((1, VOCABULARY), -50.0)
    uniforms = torch.tensor([0.5], dtype=torch.float64)

    def undecided(likely, **ways):
        row = logits.clone()
        row[0, : len(likely)] = torch.tensor(likely)
        return int(from_candidates(row, uniforms, make_settings(**ways))) == UNDECIDED

    quarters = [1.0, 1.0, 1.0, 1.0]
    assert undecided(quarters, top_p=0.75)  # the third and the fourth are alike
    assert not undecided(quarters, top_p=0.99)
    assert undecided([math.log(0.75), math.log(0.25)], top_p=0.75)  # exactly at the limit
    assert not undecided([math.log(0.75), math.log(0.25)], top_p=0.76)
    assert undecided([0.0, math.log(0.05)], min_p=0.05)
    assert not undecided([0.0, math.log(0.0501)], min_p=0.05)
    assert undecided([0.0] * 100, top_k=50)  # more ties than candidates
    assert not undecided([0.0] * 60, top_k=50)


def test_ties_at_top_k_all_stay():
    logits = torch.full((400, VOCABULARY), -5.0)
    logits[:, ::7000] = 1.0  # eight of them
    uniforms = torch.linspace(0, 0.999, 400, dtype=torch.float64)
    for top_k in (3, 8):
        token_ids = Sampler(make_settings(top_k=top_k))(logits, uniforms).token_ids
        assert token_ids.unique().tolist() == list(range(0, VOCABULARY, 7000))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("top_p", [1e-6, 0.3, 0.95, 0.999])
def test_nucleus_is_that_of_transformers(kind, top_p):
    from transformers.generation.logits_process import TopPLogitsWarper

    scores = make_rows(kind, 6, 5000, seed=5)
    assert torch.equal(Nucleus(top_p)(None, scores), TopPLogitsWarper(top_p)(None, scores))


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.float32, (3, 130), elements=st.integers(-3, 3)), st.integers(1, 30))
def test_largest_entries_and_the_first_of_them(rows, n):
    values = torch.from_numpy(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_choice, "_BLOCK", 2)
        patch.setattr(token_choice, "_SMALL_VOCABULARY", 1)
        found, ids = largest(values, n)
        first = most_likely(values)
    assert torch.equal(found, values.topk(n).values)
    assert torch.equal(values.gather(-1, ids), found)
    assert all(len(set(row)) == n for row in ids.tolist())
    assert first.tolist() == rows.argmax(axis=-1).tolist()


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(np.float32, (2, 70), elements=st.floats(-3e4, 3e4, width=32)),
    st.integers(0, 2**32 - 1),
)
def test_entropy_stays_within_its_range(rows, seed):
    mask = np.random.default_rng(seed).random(rows.shape) < 0.5
    mask[:, :2] = False
    logits = torch.from_numpy(np.where(mask, np.float32(-np.inf), rows))
    greedy = Sampler(SamplingSettings(1))
    statistics = greedy(logits, torch.zeros(2)).statistics
    assert bool(torch.isfinite(statistics).all())
    n_possible = torch.from_numpy((~mask).sum(axis=-1))
    entropy = statistics[:, 1]
    assert bool((entropy >= 0).all())
    assert bool((entropy <= n_possible.double().log().float()).all())
    peaked = torch.full((1, VOCABULARY), -torch.inf)
    peaked[0, 5] = 3.0
    assert greedy(peaked, torch.zeros(1)).statistics[0].tolist() == [0.0, 0.0, 0.0, 1.0]


def test_frequencies_over_many_blocks_follow_the_distribution():
    """Chi-square of 20,000 draws; the seed is fixed, the threshold is the 0.1% quantile."""
    n_tokens, n_draws = 5000, 20_000
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(n_tokens))
    scores = torch.from_numpy(np.log(probabilities)).expand(n_draws, -1)
    token_ids = torch.cat(
        [
            inverse_cdf(scores[i : i + 1000], torch.from_numpy(rng.random(1000)))
            for i in range(0, n_draws, 1000)
        ]
    )
    # Two hundred groups, so that each has draws enough.
    counts = np.bincount(token_ids.numpy(), minlength=n_tokens).reshape(200, -1).sum(axis=1)
    expected = probabilities.reshape(200, -1).sum(axis=1) * n_draws
    assert stats.chisquare(counts, expected).pvalue > 1e-3


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("vocabulary", [100, 5000])
@pytest.mark.parametrize("way", ["plain", "top_k", "top_p", "min_p", "typical"])
def test_logits_that_are_not_finite_are_refused(way, vocabulary, bad):
    logits = torch.zeros(3, vocabulary)
    logits[1, 70] = bad
    uniforms = torch.full((3,), 0.5, dtype=torch.float64)
    with pytest.raises(ValueError, match="logits are not finite"):
        Sampler(make_settings(**WAYS[way]))(logits, uniforms)

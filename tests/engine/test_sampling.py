"""Inverse-CDF sampling, settings and token statistics."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from transformers import GenerationConfig

from lm_eval_ext.engine.sampling import Sampler, padded_contexts
from lm_eval_ext.engine.sampling_settings import SamplingSettings, resolve_settings
from lm_eval_ext.engine.token_choice import inverse_cdf


def test_frequencies_follow_the_distribution():
    """Chi-square of 20,000 draws; the seed is fixed, the threshold is the 0.1% quantile."""
    probabilities = np.array([0.5, 0.2, 0.15, 0.1, 0.04, 0.01])
    uniforms = torch.from_numpy(np.random.default_rng(0).random(20_000))
    scores = torch.tensor(probabilities).log().expand(20_000, -1)
    counts = np.bincount(inverse_cdf(scores, uniforms).numpy(), minlength=6)
    assert stats.chisquare(counts, probabilities * 20_000).pvalue > 1e-3


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(-30, 30), min_size=1, max_size=20),
    st.integers(0, 2**20 - 1),
    st.floats(0, 1, exclude_max=True),
)
def test_excluded_tokens_are_never_chosen(scores, excluded, uniform):
    row = torch.tensor([scores])
    mask = torch.tensor([[bool(excluded >> i & 1) for i in range(len(scores))]])
    if mask.all():
        mask[0, 0] = False
    row = row.masked_fill(mask, -torch.inf)
    chosen = int(inverse_cdf(row, torch.tensor([uniform], dtype=torch.float64)))
    assert not mask[0, chosen]


def test_largest_uniform_stays_inside_the_support():
    scores = torch.tensor([[0.0, 0.0, -torch.inf]])
    top = np.nextafter(1.0, 0.0)
    assert int(inverse_cdf(scores, torch.tensor([top], dtype=torch.float64))) == 1


def test_rows_are_sampled_alike_in_slices(monkeypatch):
    from lm_eval_ext.engine import sampling

    logits = torch.randn(50, 30, generator=torch.Generator().manual_seed(0))
    uniforms = torch.rand(50, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    sampler = Sampler(SamplingSettings(max_new_tokens=1, do_sample=True, top_k=7))
    whole = sampler(logits, uniforms)
    monkeypatch.setattr(sampling, "_ELEMENTS_PER_SLICE", 30 * 8)
    sliced = sampler(logits, uniforms)
    assert torch.equal(whole.token_ids, sliced.token_ids)
    assert torch.equal(whole.statistics, sliced.statistics)


def greedy_statistics(logits):
    sampler = Sampler(SamplingSettings(max_new_tokens=1))
    return sampler(logits, torch.zeros(len(logits))).statistics


def test_statistics_of_known_distributions():
    log_prob, entropy, certainty, margin = greedy_statistics(torch.full((1, 8), 3.0))[0].tolist()
    assert log_prob == pytest.approx(-np.log(8), abs=1e-6)
    assert entropy == pytest.approx(np.log(8), abs=1e-6)
    assert certainty == pytest.approx(0, abs=1e-6)
    assert margin == pytest.approx(0, abs=1e-6)
    two = torch.tensor([[0.75, 0.25]]).log() + 3.0
    log_prob, entropy, certainty, margin = greedy_statistics(two)[0].tolist()
    assert log_prob == pytest.approx(np.log(0.75), abs=1e-6)
    assert entropy == pytest.approx(stats.entropy([0.75, 0.25]), abs=1e-6)
    assert certainty == pytest.approx(stats.entropy([0.5, 0.5], [0.75, 0.25]), abs=1e-6)
    assert margin == pytest.approx(0.5, abs=1e-6)


def test_repetition_penalty_ignores_how_a_context_is_padded():
    logits = torch.randn(2, 20, generator=torch.Generator().manual_seed(0))
    sampler = Sampler(SamplingSettings(max_new_tokens=1, repetition_penalty=5.0))
    contexts = [[1, 2, 3, 4], [5, 6]]
    padded = sampler(logits, torch.zeros(2), padded_contexts(contexts))
    alone = [
        int(sampler(logits[i : i + 1], torch.zeros(1), torch.tensor([c])).token_ids)
        for i, c in enumerate(contexts)
    ]
    assert padded.token_ids.tolist() == alone


def resolve(kwargs, **defaults):
    return resolve_settings(
        kwargs, max_new_tokens=8, stop=(), model_defaults=GenerationConfig(**defaults)
    )


def test_request_wins_over_model_and_model_over_transformers():
    assert resolve({"do_sample": True}).top_k == 50  # transformers' own default
    assert resolve({"do_sample": True}, top_k=20).top_k == 20
    assert resolve({"do_sample": True, "top_k": 0}, top_k=20).top_k == 0
    assert resolve({"do_sample": True, "temperature": 0.7}, temperature=0.2).temperature == 0.7
    assert resolve({"do_sample": True}, temperature=0.2).temperature == 0.2
    assert resolve({"do_sample": False, "temperature": 0.0}).do_sample is False


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"num_beams": 4}, "num_beams=4 is not supported"),
        ({"temperatur": 1.0}, "temperatur=1.0 is not supported"),
        ({"do_sample": True, "top_p": 0.0}, r"top_p=0.0 must be in \(0, 1\]"),
        ({"do_sample": True, "temperature": -1.0}, "temperature=-1.0 must be positive"),
        ({"do_sample": True, "temperature": float("nan")}, "temperature=nan must be positive"),
        ({"top_k": -3}, "top_k=-3 must be 0"),
        ({"do_sample": True, "temperature": "hot"}, "temperature='hot' must be a number"),
        ({"repetition_penalty": 0}, "repetition_penalty=0.0 must be positive"),
        ({"repetition_penalty": -1.0}, "repetition_penalty=-1.0 must be positive"),
    ],
)
def test_bad_settings_are_named(setting, message):
    with pytest.raises(ValueError, match=message):
        resolve(setting)


def test_temperature_zero_is_greedy():
    settings = resolve({"do_sample": True, "temperature": 0})
    assert settings.do_sample is False
    assert resolve({"do_sample": True, "temperature": 1e-3}).do_sample is True


@pytest.mark.parametrize(
    "setting", [{"num_beams": 4}, {"no_repeat_ngram_size": 3}, {"suppress_tokens": [5]}]
)
def test_what_the_models_configuration_asks_for_and_the_engine_lacks_is_refused(setting):
    with pytest.raises(ValueError, match=f"generation_config sets {next(iter(setting))}="):
        resolve({}, **setting)


def test_masked_vocabulary_slots_do_not_count():
    narrow = torch.tensor([[1.0, 2.0, 3.0]])
    wide = torch.cat([narrow, torch.full((1, 2), -torch.inf)], dim=1)
    assert torch.allclose(greedy_statistics(wide), greedy_statistics(narrow))

"""The probe lets fitting architectures in and keeps others out."""

import pytest

from lm_eval_ext.engine.fallback import cache_misfit
from lm_eval_ext.engine.support import misfit


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3", "gpt_neox", "mistral", "granite"])
def test_fits(random_model, name):
    assert misfit(random_model(name)) is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bloom", "does not take attention functions"),
        ("gpt_oss", "gives other logits"),  # its attention sinks are found by the probe alone
        ("mamba", "does not take attention functions"),
    ],
)
def test_does_not_fit(random_model, name, reason):
    assert reason in misfit(random_model(name))


def test_unknown_kinds_of_layers_are_refused_by_name(random_model, monkeypatch):
    model = random_model("llama")
    monkeypatch.setattr(model.config, "layer_types", ["chunked_attention"] * 3, raising=False)
    assert misfit(model) == "has layers of type chunked_attention"


def test_a_model_that_fails_in_the_probe_falls_back(random_model, monkeypatch):
    model = random_model("llama")

    def fail(*args, **kwargs):
        raise RuntimeError("no such kernel\nwith details")

    monkeypatch.setattr(type(model), "forward", fail)
    assert misfit(model) == "fails with shared prompts (RuntimeError: no such kernel)"


def test_caches_that_can_be_repeated(random_model):
    assert cache_misfit(random_model("bloom")) is None
    assert "batch_select_indices" in cache_misfit(random_model("mamba"))


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3"])
def test_fits_in_half_precision_and_misfits_are_still_found(random_model, name):
    import copy

    import torch

    assert misfit(copy.deepcopy(random_model(name)).to(torch.bfloat16)) is None
    unfit = copy.deepcopy(random_model("gpt_oss")).to(torch.bfloat16)
    assert "gives other logits" in misfit(unfit)

"""Every criterion against its formula, computed the long way."""

import numpy as np
import pytest
import torch

from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.sinks.block_layout import find_layout
from lm_eval_ext.methods.sinks.criteria import BLOCK_CRITERIA, HEAD_CRITERIA, find_criterion
from lm_eval_ext.methods.sinks.sink_scores import score_sinks
from lm_eval_ext.methods.sinks.statistics import CalibrationStatistics, collect_statistics

ARCHITECTURES = ("llama", "gemma3", "gpt_neox")


@pytest.fixture(scope="module")
def prompts():
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(5, 700, (n,), generator=generator).tolist() for n in (3, 21, 9, 14)]


@pytest.fixture(scope="module")
def measured(random_model, prompts):
    """Return, per architecture, layout, statistics, and head outputs and hidden states by token."""
    cache = {}

    def measure(name):
        if name not in cache:
            model = random_model(name)
            layout = find_layout(model)
            outputs = [[] for _ in layout.blocks]
            states = [[] for _ in layout.blocks]
            hooks = []
            for i, block in enumerate(layout.blocks):
                hooks.append(
                    block.projection.register_forward_pre_hook(
                        lambda _, args, i=i: outputs[i].append(args[0][0].double().numpy())
                    )
                )
                hooks.append(
                    block.module.register_forward_hook(
                        lambda _, args, kwargs, out, i=i: states[i].append(
                            (args[0][0].double().numpy(), out[0].double().numpy())
                        ),
                        with_kwargs=True,
                    )
                )
            with torch.inference_mode():
                for prompt in prompts:  # one by one: no padding
                    model(input_ids=torch.tensor([prompt]))
            for hook in hooks:
                hook.remove()
            parts = {"sinks", "outputs", "blocks"}
            cache[name] = (
                layout,
                collect_statistics(model, prompts, parts, max_tokens=50),
                np.stack([np.concatenate(o) for o in outputs]),
                states,
            )
        return cache[name]

    return measure


def score(measured, name, criterion, table=HEAD_CRITERIA):
    layout, statistics, _, _ = measured(name)
    return table[criterion].score(layout, statistics, 0)


def weights(layout):
    return np.stack([b.projection.weight.data.double().numpy() for b in layout.blocks])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_sink(measured, random_model, prompts, name):
    expected = score_sinks(random_model(name), prompts).score
    np.testing.assert_allclose(score(measured, name, "sink"), expected, atol=1e-6)
    blocks = score(measured, name, "sink", BLOCK_CRITERIA)
    np.testing.assert_allclose(blocks, expected.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_magnitude(measured, name):
    w = weights(measured(name)[0])
    expected = -np.linalg.norm(w, axis=1).reshape(3, 8, -1).sum(axis=2)
    np.testing.assert_allclose(score(measured, name, "magnitude"), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_wanda(measured, name):
    layout, _, outputs, _ = measured(name)
    rms = np.sqrt((outputs**2).mean(axis=1))
    expected = -(np.abs(weights(layout)) * rms[:, None]).sum(axis=1).reshape(3, 8, -1).sum(axis=2)
    np.testing.assert_allclose(score(measured, name, "wanda"), expected, rtol=1e-5)
    by_layer = score(measured, name, "wanda_per_layer")
    assert (np.sort(by_layer, axis=1) == np.arange(1, 9) / 8).all()
    assert (np.argsort(by_layer, axis=1) == np.argsort(expected, axis=1)).all()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_ahon(measured, name):
    outputs = measured(name)[2]
    norm = np.linalg.norm(outputs.reshape(3, outputs.shape[1], 8, -1), axis=3).mean(axis=1)
    np.testing.assert_allclose(score(measured, name, "ahon"), -norm, rtol=1e-5)
    relative = -norm / norm.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(score(measured, name, "ahon_ln"), relative, rtol=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_shortgpt(measured, name):
    expected = []
    for pairs in measured(name)[3]:
        before, after = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
        expected.append(((before * after).sum(axis=1) / norms).mean() - 1)
    np.testing.assert_allclose(
        score(measured, name, "shortgpt", BLOCK_CRITERIA), expected, atol=1e-5
    )


def test_what_needs_no_data(random_model):
    layout = find_layout(random_model("llama"))
    nothing = CalibrationStatistics()
    for table, shape in ((HEAD_CRITERIA, (3, 8)), (BLOCK_CRITERIA, (3,))):
        one, same, other = (table["random"].score(layout, nothing, seed) for seed in (1, 1, 2))
        assert one.shape == shape
        assert (one == same).all()
        assert (one != other).all()
    assert (HEAD_CRITERIA["top_layers"].score(layout, nothing, 0)[:, 3] == [0, 1, 2]).all()
    assert (BLOCK_CRITERIA["top_down"].score(layout, nothing, 0) == [0, 1, 2]).all()
    assert (BLOCK_CRITERIA["bottom_up"].score(layout, nothing, 0) == [0, -1, -2]).all()


def test_statistics_are_gathered_only_where_asked(random_model, prompts):
    nothing = collect_statistics(random_model("llama"), prompts, set())
    assert nothing == CalibrationStatistics()
    only = collect_statistics(random_model("llama"), prompts, {"blocks"})
    assert only.sinks is None
    assert only.outputs is None
    # Without the probe any architecture with attention blocks will do.
    assert collect_statistics(random_model("bloom"), prompts, {"outputs"}).outputs.norm.min() > 0


def test_unknown_names_are_one_line():
    with pytest.raises(UserError, match="criterion='shortgpt' is not one of sink, random, magn"):
        find_criterion("shortgpt", "head")
    with pytest.raises(UserError, match="criterion='wanda' is not one of .*shortgpt.*unit=block"):
        find_criterion("wanda", "block")

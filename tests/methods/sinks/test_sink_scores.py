"""Sink scores are the column of the first token in the attention matrix, averaged as stated."""

import numpy as np
import pytest
import torch

from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.sinks.padded_batches import batches
from lm_eval_ext.methods.sinks.probe import probed_forward, sink_probe
from lm_eval_ext.methods.sinks.sink_scores import SinkConvention, score_sinks

ARCHITECTURES = ("llama", "qwen3", "gemma3", "mistral", "gpt_neox")
WINDOW = 12  # of the sliding layers, see tests/conftest.py
LENGTHS = (1, 7, 30, 19, 30, 2)


@pytest.fixture(scope="module")
def prompts():
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(5, 700, (n,), generator=generator).tolist() for n in LENGTHS]


@pytest.fixture(scope="module")
def eager_weights(random_model, prompts):
    """Return, per architecture and prompt, the first column of attention, (layers, heads, T)."""
    cache = {}

    def weights(name):
        if name not in cache:
            model = random_model(name)
            previous = model.config._attn_implementation
            model.set_attn_implementation("eager")
            with torch.inference_mode():
                cache[name] = [
                    torch.stack(
                        [
                            layer[0, :, :, 0]
                            for layer in model(
                                input_ids=torch.tensor([prompt]), output_attentions=True
                            ).attentions
                        ]
                    )
                    .double()
                    .numpy()
                    for prompt in prompts
                ]
            model.set_attn_implementation(previous)
        return cache[name]

    return weights


def sliding_layers(name):
    return {"mistral": [0, 1, 2], "gemma3": [0, 2]}.get(name, [])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_weight_is_that_of_eager_attention(random_model, eager_weights, prompts, name, side):
    model = random_model(name)
    seen = {}
    (batch,) = batches(prompts, padding_side=side)
    with torch.inference_mode(), sink_probe(model, lambda i, w, _: seen.__setitem__(i, w)):
        probed_forward(model, batch.input_ids, batch.attention_mask)
    for row, place in enumerate(batch.indices):
        real = batch.attention_mask[row].bool()
        ours = torch.stack([seen[layer][row, real].T for layer in range(3)]).numpy()
        np.testing.assert_allclose(ours, eager_weights(name)[place], atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_probe_leaves_the_model_as_it_was(random_model, prompts, name, side):
    model = random_model(name)
    implementation = model.config._attn_implementation
    (batch,) = batches(prompts, padding_side=side)
    mask = batch.attention_mask
    inputs = {
        "input_ids": batch.input_ids,
        "attention_mask": mask,
        "position_ids": (mask.cumsum(-1) - 1).clamp_min(0),
    }
    with torch.inference_mode():
        plain = model(**inputs).logits
        with sink_probe(model, lambda *_: None):
            from lm_eval_ext.methods.sinks import probe

            probe._probe.first_keys = mask.argmax(dim=1)
            probed = model(**inputs).logits
        assert torch.equal(model(**inputs).logits, plain)
    assert model.config._attn_implementation == implementation
    torch.testing.assert_close(probed[mask.bool()], plain[mask.bool()], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_score_is_the_mean_over_queries_then_prompts(
    random_model, eager_weights, prompts, name, side
):
    ours = score_sinks(random_model(name), prompts, padding_side=side, max_tokens=40)
    expected = np.mean([weights.mean(axis=2) for weights in eager_weights(name)], axis=0)
    np.testing.assert_allclose(ours.score, expected, atol=1e-5)
    np.testing.assert_allclose(ours.by_layer, expected.mean(axis=1), atol=1e-5)
    assert ours.n_prompts == len(prompts)
    errors = np.std([w.mean(axis=2) for w in eager_weights(name)], axis=0, ddof=1)
    np.testing.assert_allclose(ours.standard_error, errors / np.sqrt(len(prompts)), atol=1e-5)


@pytest.mark.parametrize("queries", ["all", "after_first"])
@pytest.mark.parametrize("window", ["zero", "visible"])
@pytest.mark.parametrize("name", ["gemma3", "mistral", "llama"])
def test_conventions_choose_the_queries(
    random_model, eager_weights, prompts, name, queries, window
):
    ours = score_sinks(
        random_model(name), prompts, convention=SinkConvention(queries, window), max_tokens=70
    )
    means = []
    for weights in eager_weights(name):
        n_layers, n_heads, length = weights.shape
        mean = np.full((n_layers, n_heads), np.nan)
        for layer in range(n_layers):
            first = 1 if queries == "after_first" else 0
            last = length
            if window == "visible" and layer in sliding_layers(name):
                last = min(length, WINDOW)
            if last > first:
                mean[layer] = weights[layer, :, first:last].mean(axis=1)
        means.append(mean)
    np.testing.assert_allclose(ours.score, np.nanmean(means, axis=0), atol=1e-5)


def test_half_precision_is_near(random_model, eager_weights, prompts):
    import copy

    model = copy.deepcopy(random_model("qwen3")).bfloat16()
    ours = score_sinks(model, prompts).score
    expected = np.mean([weights.mean(axis=2) for weights in eager_weights("qwen3")], axis=0)
    assert np.abs(ours - expected).mean() < 0.01


def test_queries_beyond_the_window_give_nothing(eager_weights):
    long = eager_weights("mistral")[2]
    assert (long[:, :, WINDOW:] == 0).all()
    assert (long[:, :, 1:WINDOW] > 0).any()


def test_scores_over_lengths_are_those_of_shorter_prompts(random_model, prompts):
    model = random_model("qwen3")
    lengths = (2, 9, 19)
    ours = score_sinks(model, prompts, lengths=lengths)
    long = [prompt for prompt in prompts if len(prompt) >= 19]
    assert ours.n_prompts_by_length == len(long) == 3
    for i, length in enumerate(lengths):
        expected = score_sinks(model, [prompt[:length] for prompt in long]).score
        np.testing.assert_allclose(ours.by_length[i], expected, atol=1e-5)
    table = ours.by_length
    np.testing.assert_allclose(
        ours.variation_over_length, table.std(axis=0, ddof=1) / table.mean(axis=0)
    )


def test_a_head_that_looks_nowhere_scores_the_harmonic_mean(random_model):
    import copy

    model = copy.deepcopy(random_model("llama"))
    model.model.layers[1].self_attn.q_proj.weight.data.zero_()
    length = 25
    score = score_sinks(model, [list(range(5, 5 + length))]).score
    harmonic = sum(1 / t for t in range(1, length + 1)) / length
    np.testing.assert_allclose(score[1], harmonic, atol=1e-6)
    assert (score > 1 / length - 1e-9).all()


@pytest.mark.parametrize("side", ["left", "right"])
def test_what_stands_in_the_padding_changes_nothing(random_model, prompts, side):
    model = random_model("gemma3")
    (batch,) = batches(prompts, padding_side=side)
    scores = []
    from lm_eval_ext.methods.sinks.sink_scores import SinkAccumulator

    for filler in (0, 77):
        accumulator = SinkAccumulator(3, 8, lengths=(3, 19))
        ids = batch.input_ids.masked_fill(batch.attention_mask == 0, filler)
        accumulator.begin(batch)
        with torch.inference_mode(), sink_probe(model, accumulator):
            probed_forward(model, ids, batch.attention_mask)
        scores.append(accumulator.scores())
    np.testing.assert_array_equal(scores[0].score, scores[1].score)
    np.testing.assert_array_equal(scores[0].by_length, scores[1].by_length)


@pytest.mark.parametrize("queries", [[], [[5]]])
def test_nothing_to_score_is_one_line(random_model, queries):
    convention = SinkConvention("after_first")
    with pytest.raises(UserError, match="no prompt"):
        score_sinks(random_model("llama"), queries, convention=convention)


def test_unfit_architectures_are_refused(random_model):
    with pytest.raises(UserError, match="Bloom.*attention functions"):
        score_sinks(random_model("bloom"), [[5, 6]])
    with pytest.raises(UserError, match="sinks of its own"):
        score_sinks(random_model("gpt_oss"), [[5, 6]])
    assert random_model("gpt_oss").config._attn_implementation != "lm_eval_ext_sink_probe"


@pytest.mark.parametrize("lengths", [(4, 2), (0, 3), (2, 99)])
def test_lengths_out_of_order_or_reach_are_refused(random_model, prompts, lengths):
    with pytest.raises(UserError, match="lengths="):
        score_sinks(random_model("llama"), prompts, lengths=lengths)

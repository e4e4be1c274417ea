"""What only sink-pruned does: calibrate, choose, prune while it answers, and keep a record."""

import copy
import json

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.utils import handle_non_serializable

from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.sinks.block_layout import find_layout
from lm_eval_ext.methods.sinks.calibration_data import calibration_set
from lm_eval_ext.methods.sinks.masks import remove_blocks, zero_heads
from lm_eval_ext.methods.sinks.selection import Removal, select
from lm_eval_ext.methods.sinks.sink_scores import score_sinks
from lm_eval_ext.model_wrappers.sampled import SampledLM
from lm_eval_ext.model_wrappers.sink_pruned import SinkPrunedLM

ARCHITECTURES = ("llama", "qwen3", "gemma3", "mistral", "gpt_neox")


@pytest.fixture
def make_lm(random_model, tiny_tokenizer):
    def make(architecture="llama", model_class=SinkPrunedLM, **arguments):
        if model_class is SinkPrunedLM:
            arguments = {"calibration": "tiny", "calibration_size": 12, **arguments}
        model = arguments.pop("model", None)
        return model_class(
            random_model(architecture) if model is None else model,
            tokenizer=tiny_tokenizer,
            seed=0,
            batch_size=8,
            **arguments,
        )

    return make


@pytest.fixture
def changed_for_good(random_model):
    """Return a function that copies a random model and removes something from the copy."""

    def change(architecture, removal):
        model = copy.deepcopy(random_model(architecture))
        if removal.blocks:
            remove_blocks(find_layout(model), removal)
        else:
            zero_heads(model, removal)
        return model

    return change


def loglikelihoods(lm):
    pairs = [("Question: 2+3=", " 5"), ("A", " longer continuation of many tokens"), ("", "x")]
    requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    rolling = [Instance("loglikelihood_rolling", {}, ("Ann has 3 apples.",), 0)]
    values = [value for value, _ in lm.loglikelihood(requests, disable_tqdm=True)]
    return values + lm.loglikelihood_rolling(rolling, disable_tqdm=True)


PLANS = [
    {"ratio": 0.25},
    {"ratio": 0.2, "unit": "kv_group", "criterion": "ahon"},
    {"ratio": 0.3, "unit": "attention"},
    {"ratio": 0.3, "unit": "block", "criterion": "shortgpt"},
]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.get("unit", "head"))
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_both_kinds_of_requests_see_the_pruned_model(
    make_lm, changed_for_good, make_requests, architecture, plan
):
    lm = make_lm(architecture, **plan)
    assert lm.plan.removal
    assert lm.shared_prefix_misfit is None
    dense = make_lm(architecture, SampledLM)
    model = changed_for_good(architecture, lm.plan.removal)
    reference = make_lm(architecture, SampledLM, model=model)
    np.testing.assert_allclose(loglikelihoods(lm), loglikelihoods(reference), atol=1e-4)
    assert not np.allclose(loglikelihoods(lm), loglikelihoods(dense), atol=1e-3)
    ours = lm.generate_until(make_requests(n_attempts=2), disable_tqdm=True)
    assert ours == reference.generate_until(make_requests(n_attempts=2), disable_tqdm=True)
    assert ours != dense.generate_until(make_requests(n_attempts=2), disable_tqdm=True)


def test_the_model_is_whole_outside_of_requests(make_lm, make_requests, random_model):
    ids = torch.tensor([[5, 6, 7, 8]])
    dense = random_model("llama")(input_ids=ids).logits
    for plan in PLANS:
        lm = make_lm(**plan)
        lm.generate_until(make_requests(n_attempts=1), disable_tqdm=True)
        assert torch.equal(lm.model(input_ids=ids).logits, dense)
        with lm.pruning(), lm.pruning():  # from inside, asking again changes nothing
            assert not torch.equal(lm.model(input_ids=ids).logits, dense)


def test_ratio_zero_looks_at_no_data(make_lm):
    lm = make_lm(ratio=0, calibration="no/such:set")
    assert lm.plan.removal == Removal()
    assert loglikelihoods(lm) == loglikelihoods(make_lm(model_class=SampledLM))
    assert lm.run_record()["pruning"]["removed_heads"] == []


def test_the_heads_with_the_highest_sink_scores_go(make_lm, random_model):
    lm = make_lm("qwen3", ratio=0.125)
    data = calibration_set(lm, "tiny", size=12)
    scores = score_sinks(random_model("qwen3"), data.prompts).score
    layout = find_layout(random_model("qwen3"))
    assert lm.plan.removal == select(scores, ratio=0.125, unit="head", layout=layout)
    record = json.loads(json.dumps(lm.get_model_info(), default=handle_non_serializable))
    pruning = record["lm_eval_ext"]["pruning"]
    assert pruning["removed_heads"] == [list(place) for place in lm.plan.removal.heads]
    np.testing.assert_allclose(pruning["scores"], scores, atol=1e-6)
    assert pruning["calibration_sha256"] == data.record["sha256"]
    assert pruning["token_0_id"] == lm.tokenizer.bos_token_id
    assert (pruning["ratio"], pruning["unit"], pruning["criterion"]) == (0.125, "head", "sink")


def test_scores_of_a_file_replace_the_calibration(make_lm, tmp_path):
    scores = np.random.default_rng(0).random((3, 8))
    report = {
        "format": 1,
        "heads": {"sink": scores.tolist()},
        "blocks": {},
        "calibration": {"sha256": "abc", "token_0_id": 7},
    }
    path = tmp_path / "scores.json"
    path.write_text(json.dumps(report))
    lm = make_lm(ratio=0.125, scores=str(path), calibration="no/such:set")
    expected = sorted(np.argsort(-scores[1])[:3].tolist())
    assert [head for _, head in lm.plan.removal.heads] == expected
    pruning = lm.run_record()["pruning"]
    assert pruning["scores_file"] == str(path)
    assert (pruning["calibration_sha256"], pruning["token_0_id"]) == ("abc", 7)
    with pytest.raises(UserError, match="no heads scored by 'wanda', only by sink"):
        make_lm(ratio=0.125, scores=str(path), criterion="wanda")
    with pytest.raises(UserError, match="no blocks scored by 'sink'"):
        make_lm(ratio=0.3, scores=str(path), unit="block")
    path.write_text("[]")
    with pytest.raises(UserError, match="is not a file of"):
        make_lm(ratio=0.125, scores=str(path))
    with pytest.raises(UserError, match="cannot be read"):
        make_lm(ratio=0.125, scores=str(tmp_path / "missing.json"))


def test_seeds_choose_other_random_heads(make_lm):
    one, same, other = (
        make_lm(ratio=0.2, criterion="random", pruning_seed=seed).plan.removal for seed in (1, 1, 2)
    )
    assert one == same
    assert one != other


def test_mean_compensation_keeps_the_mean_output_of_the_layer(make_lm, random_model):
    model = random_model("gpt_neox")
    lm = make_lm("gpt_neox", ratio=0.2, mean_compensation=True)
    (layer,) = {layer for layer, _ in lm.plan.removal.heads}  # what it reads is unchanged
    prompts = calibration_set(lm, "tiny", size=12).prompts
    seen = []
    hook = (
        find_layout(model)
        .blocks[layer]
        .projection.register_forward_hook(lambda _, args, output: seen.append(output[0].double()))
    )

    def outputs():
        seen.clear()
        for prompt in prompts:
            model(input_ids=torch.tensor([prompt]))
        return torch.cat(seen)

    with torch.inference_mode():
        dense = outputs()
        with lm.pruning():
            compensated = outputs()
    hook.remove()
    torch.testing.assert_close(dense.mean(dim=0), compensated.mean(dim=0), atol=1e-6, rtol=1e-5)
    assert (dense - compensated).abs().max() > 0.01


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"ratio": 1.5}, "ratio=1.5 must be a number"),
        ({"unit": "layer"}, "unit='layer' is unknown: use one of head, kv_group, block, attention"),
        ({"criterion": "sinks"}, "criterion='sinks' is not one of sink"),
        ({"unit": "block", "criterion": "wanda"}, "unit=block"),
        ({"skip_first": -1}, "skip_first=-1"),
        ({"allocation": "fair"}, "allocation='fair'"),
        ({"allocation": "even", "skip_first": 1}, "skip_first=1 spares blocks"),
        ({"mean_compensation": "yes"}, "mean_compensation='yes'"),
        ({"mean_compensation": True, "unit": "block"}, "needs a unit of heads"),
        ({"ratio": 0.5}, "only 8 are outside"),
    ],
)
def test_bad_arguments_are_one_line(make_lm, arguments, line):
    with pytest.raises(UserError, match=line) as error:
        make_lm(**arguments)
    assert "\n" not in str(error.value)


def test_a_model_without_heads_is_refused_only_if_it_is_to_lose_some(make_lm):
    assert not make_lm("mamba", ratio=0).plan.removal
    with pytest.raises(UserError, match="no attention heads"):
        make_lm("mamba", ratio=0.1, criterion="random")


def test_the_fallback_decoder_is_pruned_too(tiny_tokenizer, make_lm, make_requests):
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "bloom", vocab_size=len(tiny_tokenizer), hidden_size=32, n_layer=3, n_head=4
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        parameter.data.mul_(5 if parameter.dim() > 1 else 1)
    lm = make_lm(model=model, ratio=0.25, criterion="wanda")
    assert lm.shared_prefix_misfit is not None
    zeroed = copy.deepcopy(model)
    zero_heads(zeroed, lm.plan.removal)
    texts = [
        one.generate_until(make_requests(n_attempts=2), disable_tqdm=True)
        for one in (lm, make_lm(model_class=SampledLM, model=zeroed))
    ]
    assert texts[0] == texts[1]

"""``draft-eu``: what it attaches, against divergences computed by hand from plain passes."""

import copy
import json
import os
import random
import subprocess

import numpy as np
import pytest
import torch
from kept_index import LM_EVAL

from lm_eval_ext.data.question_text import text_hash
from lm_eval_ext.engine.kept_logits import KeepingDecoder
from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.epistemic.weight_perturbation import WeightPerturbation
from lm_eval_ext.model_wrappers.draft_eu import DraftEU
from lm_eval_ext.model_wrappers.sampled import SampledLM

NAMES = ("jsd", "kl", "eu", "single_draft")


def noisy(model, seed, scale=0.05):
    other = copy.deepcopy(model)
    torch.manual_seed(seed)
    for parameter in other.parameters():
        parameter.data += scale * parameter.std() * torch.randn_like(parameter)
    return other


@pytest.fixture
def make_lm(random_model, tiny_tokenizer):
    def make(architecture="llama", *, drafts=None, **arguments):
        model = random_model(architecture)
        drafts = [noisy(model, seed) for seed in range(3)] if drafts is None else drafts
        values = {"seed": 0, "batch_size": 8, **arguments}
        return DraftEU(model, tokenizer=tiny_tokenizer, drafts=drafts, **values)

    return make


@torch.inference_mode()
def log_probs(model, prompt_ids, response_ids):
    """Float64 log-probs of one response from a plain pass over it alone."""
    ids = torch.tensor([[*prompt_ids, *response_ids]])
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt_ids) - 1 : -1]
    return torch.log_softmax(logits.double(), dim=-1)


def kl(p, q):
    return (p.exp() * (p - q)).sum(-1)


def by_hand(lm, request, generation, drafts):
    prompt_ids = lm.prompt_token_ids(request.args[0])
    tokens = generation.record.token_ids
    target = log_probs(lm.model, prompt_ids, tokens)
    members = [log_probs(draft, prompt_ids, tokens) for draft in drafts]
    mixture = torch.stack(members).exp().mean(0).log()
    jsd = torch.stack([kl(member, mixture) for member in members]).mean(0)
    to_target = torch.stack([kl(member, target) for member in members])
    return {
        "jsd": jsd, "kl": kl(mixture, target), "eu": to_target.mean(0),
        "single_draft": to_target[0],
    }  # fmt: skip


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gpt_neox", "mamba", "bloom"])
def test_scores_are_the_divergences_of_plain_passes(make_lm, make_requests, architecture):
    lm = make_lm(architecture)
    requests = make_requests()
    for request, generation in zip(requests, lm.generate_until(requests, True), strict=True):
        record = generation.record
        expected = by_hand(lm, request, generation, lm.drafts.models)
        for name in NAMES:
            found = record.token_scores[name]
            assert found.shape == (record.n_tokens,)
            np.testing.assert_allclose(found, expected[name], atol=2e-4, rtol=2e-3)
        for name in ("jsd", "kl", "eu"):
            total = record.uncertainties[f"draft_{name}"]
            assert total == pytest.approx(float(expected[name].sum()), rel=2e-3, abs=1e-3)
        eu = record.token_scores["eu"]
        assert record.extra["draft_eu"] == {
            "sum": pytest.approx(eu.sum()),
            "mean": pytest.approx(eu.mean()),
            "max": pytest.approx(eu.max()),
        }
        assert eu.min() > 0
        texts = record.extra["token_texts"]
        assert len(texts) == record.n_tokens
        # A character of several tokens has no text of its own in any of them.
        if "\N{REPLACEMENT CHARACTER}" not in "".join(texts):
            assert "".join(texts).startswith(generation)


@pytest.mark.parametrize("architecture", ["llama", "mamba"])
@pytest.mark.parametrize("n_drafts", [1, 3])
def test_copies_of_the_target_give_exactly_zero(
    make_lm, make_requests, random_model, tiny_tokenizer, architecture, n_drafts
):
    model = random_model(architecture)
    lm = make_lm(architecture, drafts=[copy.deepcopy(model) for _ in range(n_drafts)])
    plain = SampledLM(model, tokenizer=tiny_tokenizer, seed=0, batch_size=8)
    generations = lm.generate_until(make_requests(), True)
    assert generations == plain.generate_until(make_requests(), True)
    for generation in generations:
        assert all(not generation.record.token_scores[name].any() for name in NAMES)
        assert generation.record.uncertainties == {"draft_eu": 0, "draft_jsd": 0, "draft_kl": 0}


def test_equal_drafts_do_not_disagree_but_differ_from_the_target(make_lm, make_requests):
    draft = noisy(make_lm().model, 5)
    lm = make_lm(drafts=[draft, copy.deepcopy(draft)])
    assert len(lm.drafts.models) == 1
    for generation in lm.generate_until(make_requests(n_attempts=1), True):
        scores = generation.record.token_scores
        assert not scores["jsd"].any()
        assert (scores["kl"] > 0).all()
        np.testing.assert_array_equal(scores["eu"], scores["single_draft"])


def test_a_copy_of_the_target_among_the_drafts_counts_as_one(make_lm, make_requests):
    model = make_lm().model
    drafts = [noisy(model, 1), copy.deepcopy(model), noisy(model, 2)]
    lm = make_lm(drafts=drafts)
    assert lm.drafts.model_of_draft == (0, None, 1)
    requests = make_requests(n_attempts=1)
    for request, generation in zip(requests, lm.generate_until(requests, True), strict=True):
        expected = by_hand(lm, request, generation, drafts)
        for name in NAMES:
            found = generation.record.token_scores[name]
            np.testing.assert_allclose(found, expected[name], atol=2e-4, rtol=2e-3)


@pytest.mark.parametrize("scope", ["sequence", "token"])
def test_scores_depend_on_the_attempt_alone(make_lm, make_requests, scope):
    settings = {"reference": "tokur", "reference_samples": 3, "noise_scope": scope}

    def scores(requests, **arguments):
        return [
            generation.record.token_scores
            for generation in make_lm(**settings, **arguments).generate_until(requests, True)
        ]

    requests = make_requests()
    reference = scores(requests)
    order = sorted(range(len(requests)), key=lambda i: (random.Random(i // 3).random(), i))
    shuffled = scores([requests[i] for i in order], batch_size=5)
    fewer = scores(make_requests(n_attempts=1), batch_size=1)
    pairs = [(shuffled[j], reference[i]) for j, i in enumerate(order)]
    pairs += list(zip(fewer, reference[::3], strict=True))
    for ours, expected in pairs:
        for name in (*NAMES, "reference_eu", "reference_tu", "reference_au"):
            np.testing.assert_allclose(ours[name], expected[name], atol=2e-4, rtol=2e-3)


@pytest.mark.parametrize(
    ("arguments", "equal"),
    [
        ({}, True),
        ({"reference": "tokur", "reference_samples": 2}, True),
        ({"reference": "tokur", "reference_samples": 2, "noise_scope": "token"}, False),
    ],
)
def test_equal_responses_are_read_once_unless_each_has_its_own_noise(
    make_lm, make_requests, monkeypatch, arguments, equal
):
    lm = make_lm(**arguments)
    requests = make_requests(do_sample=False)  # greedy attempts at one prompt are equal
    n_read = []
    score_block = lm._scorer._score_block
    monkeypatch.setattr(
        lm._scorer, "_score_block", lambda block: n_read.append(len(block)) or score_block(block)
    )
    first = {}
    for request, generation in zip(requests, lm.generate_until(requests, True), strict=True):
        twin = first.setdefault(request.args[0], generation)
        assert str(generation) == str(twin)
        for name in NAMES:
            ours, theirs = (one.record.token_scores[name] for one in (generation, twin))
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert sum(n_read) == (len(first) if equal else len(requests))


def test_kept_logits_and_a_second_pass_agree(make_lm, make_requests):
    keeping, reading, partly = make_lm(), make_lm(), make_lm()
    assert keeping._decoder_class.func is KeepingDecoder
    reading._store.max_bytes = 0
    partly._store.max_bytes = 40 * 4 * reading.model.config.vocab_size
    requests = make_requests()
    one, other, third = (lm.generate_until(requests, True) for lm in (keeping, reading, partly))
    for a, b, c in zip(one, other, third, strict=True):
        for name in NAMES:
            expected = b.record.token_scores[name]
            for found in (a, c):
                np.testing.assert_allclose(
                    found.record.token_scores[name], expected, atol=2e-4, rtol=2e-3
                )


@torch.inference_mode()
def test_reference_is_the_mutual_information_over_perturbed_weights(make_lm, make_requests):
    lm = make_lm(reference="tokur", reference_samples=4, rank=2, sigma=1.0, modules="k_proj+v_proj")
    requests = make_requests()
    generations = lm.generate_until(requests, True)
    perturbation = WeightPerturbation(lm.model, rank=2, sigma=1.0, modules=["k_proj", "v_proj"])
    for request, generation in zip(requests, generations, strict=True):
        ids = lm.prompt_token_ids(request.args[0]), generation.record.token_ids
        members = [log_probs(lm.model, *ids)]
        for draw in lm.reference._draws:
            with perturbation.applied(draw):
                members.append(log_probs(lm.model, *ids))
        assert len(members) == 4
        mean = torch.stack(members).exp().mean(0)
        tu = -(mean * mean.log()).sum(-1)
        au = torch.stack([-(m.exp() * m).sum(-1) for m in members]).mean(0)
        scores = generation.record.token_scores
        for name, expected in (("tu", tu), ("au", au), ("eu", tu - au)):
            np.testing.assert_allclose(scores[f"reference_{name}"], expected, atol=5e-4, rtol=5e-3)
            total = generation.record.uncertainties[f"tokur_{name}"]
            assert total == pytest.approx(float(expected.sum()), rel=5e-3, abs=1e-3)
        assert scores["reference_eu"].mean() > 0.02


def test_correction_is_a_factor(make_lm, make_requests):
    plain, corrected = (
        make_lm(reference="tokur", reference_samples=5, corrected=flag).generate_until(
            make_requests(n_attempts=1), True
        )
        for flag in (False, True)
    )
    for a, b in zip(plain, corrected, strict=True):
        a, b = a.record.token_scores, b.record.token_scores
        np.testing.assert_allclose(b["reference_eu"], 1.25 * a["reference_eu"], rtol=1e-5)
        np.testing.assert_array_equal(b["reference_tu"], a["reference_tu"])


def test_the_model_is_as_before(make_lm, make_requests):
    lm = make_lm(reference="tokur", reference_samples=2)
    ids = torch.arange(5, 15)[None]
    with torch.inference_mode():
        before = lm.model(input_ids=ids).logits
        lm.generate_until(make_requests(), True)
        assert torch.equal(lm.model(input_ids=ids).logits, before)
    assert lm._store._rows is None  # the kept logits are given back


@pytest.mark.parametrize("aggregate", ["mean", "max"])
def test_aggregate(make_lm, make_requests, aggregate):
    lm = make_lm(aggregate=aggregate)
    for generation in lm.generate_until(make_requests(n_attempts=1), True):
        scores = generation.record.token_scores["jsd"]
        expected = float(getattr(np, aggregate)(scores))
        assert generation.record.uncertainties["draft_jsd"] == pytest.approx(expected)


def test_drafts_in_another_precision(make_lm, make_requests, random_model, tmp_path):
    noisy(random_model("llama"), 0, scale=0.2).save_pretrained(tmp_path)
    full = make_lm(drafts=[str(tmp_path)])
    half = make_lm(drafts=[str(tmp_path)], draft_dtype="bfloat16", draft_device="cpu")
    assert half.drafts.models[0].dtype == torch.bfloat16
    requests = make_requests()
    for a, b in zip(full.generate_until(requests, True), half.generate_until(requests, True)):  # noqa: B905
        assert a == b
        exact, rounded = (g.record.uncertainties["draft_eu"] for g in (a, b))
        assert rounded == pytest.approx(exact, rel=0.2)
        assert rounded != exact


def test_a_padded_vocabulary_is_cut(make_lm, make_requests):
    model = make_lm().model
    draft = noisy(model, 0)
    padded = copy.deepcopy(draft)
    padded.resize_token_embeddings(model.config.vocab_size + 32)
    requests = make_requests()
    pairs = zip(
        make_lm(drafts=[draft]).generate_until(requests, True),
        make_lm(drafts=[padded]).generate_until(requests, True),
        strict=True,
    )
    for a, b in pairs:
        np.testing.assert_allclose(
            a.record.token_scores["eu"], b.record.token_scores["eu"], atol=1e-5, rtol=1e-4
        )


def test_everything_used_is_on_record(make_lm):
    lm = make_lm(reference="tokur", reference_samples=3, noise_scope="token", modules="q_proj")
    record = json.loads(json.dumps(lm.run_record()))["draft_eu"]
    assert record["n_drafts"] == 3
    assert record["reference"] == {
        "posterior": "tokur", "samples": 3, "rank": 8, "sigma": 0.1, "modules": ["q_proj"],
        "noise_scope": "token", "corrected": False,
    }  # fmt: skip
    assert make_lm().run_record()["draft_eu"]["reference"] is None


def test_memory_is_reported_before_the_run(make_lm, make_requests, caplog):
    with caplog.at_level("INFO"):
        make_lm().generate_until(make_requests(n_attempts=1), True)
    (line,) = [r.getMessage() for r in caplog.records if "GB of parameters" in r.getMessage()]
    assert line.startswith("draft-eu: 3 drafts with 0.00")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"drafts": ""}, "drafts='' names no model"),
        ({"drafts": []}, "names no model"),
        ({"drafts": "no/such/draft"}, "drafts=no/such/draft: .*Hub ids or folders"),
        ({"aggregate": "median"}, "aggregate='median' is unknown: use one of sum, mean, max"),
        ({"reference": "laplace"}, "reference='laplace' is not one of none, tokur"),
        ({"reference": "tokur", "reference_samples": 1}, "reference_samples=1 must be a whole"),
        (
            {"reference": "tokur", "noise_scope": "word"},
            "noise_scope='word' is unknown: use one of",
        ),
        ({"reference": "tokur", "modules": "q+v"}, "no linear module named q; choose among"),
        ({"draft_dtype": "int8"}, "draft_dtype='int8' is not a floating-point type"),
    ],
)
def test_bad_arguments_are_named(make_lm, arguments, message):
    with pytest.raises(UserError, match=message) as error:
        make_lm(**arguments)
    assert "\n" not in str(error.value)


def test_noise_per_token_needs_a_model_that_fits(make_lm):
    with pytest.raises(UserError, match="noise_scope=token does not work here: Bloom"):
        make_lm("bloom", reference="tokur", noise_scope="token", modules="query_key_value")


def test_through_the_command(tmp_path, random_model, tiny_tokenizer):
    """A folder as the trainer writes it, through ``lm_eval`` and into the results."""
    from transformers import AutoModelForCausalLM

    from lm_eval_ext.models.shipped import model_path

    target = AutoModelForCausalLM.from_pretrained(model_path("tiny"))
    for k in range(2):
        noisy(target, k, scale=0.3).save_pretrained(tmp_path / "drafts" / f"draft-{k}")
        tiny_tokenizer.save_pretrained(tmp_path / "drafts" / f"draft-{k}")
    (tmp_path / "drafts" / "drafts.json").write_text('{"drafts": ["draft-0", "draft-1"]}')
    subprocess.run(
        [
            *LM_EVAL, "--model", "draft-eu", "--model_args",
            f"pretrained=tiny,drafts={tmp_path / 'drafts'},reference=tokur,reference_samples=2",
            "--tasks", "tiny_gsm8k_passn", "--limit", "2", "--metadata", '{"attempts": 2}',
            "--gen_kwargs", "max_gen_toks=10", "--batch_size", "auto", "--log_samples",
            "--output_path", str(tmp_path / "out"),
        ],
        check=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        cwd=tmp_path,
    )  # fmt: skip
    (results,) = tmp_path.rglob("results_*.json")
    record = json.loads(results.read_text())["config"]["lm_eval_ext"]["draft_eu"]
    assert [name.rpartition("/")[2] for name in record["drafts"]] == ["draft-0", "draft-1"]
    assert record["reference"]["samples"] == 2


def test_a_fit_maps_the_parts_to_the_scale_of_the_reference(make_lm, make_requests, tmp_path):
    record = {"format": "lm_eval_ext.eu_fit/1", "jsd": 2.0, "kl": 0.5, "intercept": -0.01}
    path = tmp_path / "fit.json"
    path.write_text(json.dumps({**record, "prompts": []}))
    store = {"store": tmp_path / "store"}
    plain = make_lm(**store).generate_until(make_requests(n_attempts=1), True)
    kept = make_lm(**store, eu_fit=path)
    fitted = kept.generate_until(make_requests(n_attempts=1), True)
    assert kept.store.n_appended == 0  # no attempt is drawn again
    for one, other in zip(fitted, plain, strict=True):
        scores = other.record.token_scores
        expected = np.maximum(2.0 * scores["jsd"] + 0.5 * scores["kl"] - 0.01, 0)
        found = one.record.token_scores["eu_fitted"]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
        assert one.record.uncertainties["draft_eu_fitted"] == pytest.approx(found.sum(), rel=1e-5)
        assert one == other
    prompt = make_requests(n_attempts=1)[0].args[0]
    known = {**record, "prompts": [text_hash(prompt)]}
    path.write_text(json.dumps(known))
    with pytest.raises(UserError, match="was fitted on"):
        make_lm(eu_fit=path).generate_until(make_requests(n_attempts=1), True)

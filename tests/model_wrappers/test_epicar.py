"""``epicar`` and ``self_eval=true``: confidences against plain passes over the same tokens."""

import logging
import random

import numpy as np
import pytest
import torch

from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.self_evaluation import finishing
from lm_eval_ext.methods.self_evaluation.box_completion import LEAD_IN, has_closed_box
from lm_eval_ext.model_wrappers.draft_eu import DraftEU
from lm_eval_ext.model_wrappers.epicar import EpiCaRLM
from lm_eval_ext.model_wrappers.rsp import RSP
from lm_eval_ext.model_wrappers.sampled import SampledLM


@pytest.fixture
def make_lm(random_model, tiny_tokenizer):
    def make(wrapper=EpiCaRLM, *, architecture="llama", **arguments):
        values = {"seed": 0, "batch_size": 8, **arguments}
        return wrapper(random_model(architecture), tokenizer=tiny_tokenizer, **values)

    return make


@torch.inference_mode()
def difference_by_hand(lm, ids, vectors=None, at=0):
    """z_A - z_B behind tokens, from a plain pass over them alone, with vectors in between."""
    inputs = {"input_ids": torch.tensor([ids])}
    if vectors is not None:
        embedded = lm.model.get_input_embeddings()(inputs["input_ids"])
        embedded = torch.cat([embedded[:, :at], vectors[None], embedded[:, at:]], dim=1)
        inputs = {"inputs_embeds": embedded}
    logits = lm.model(**inputs, use_cache=False).logits[0, -1].float()
    yes, no = lm.tokenizer([" A", " B"], add_special_tokens=False)["input_ids"]
    return float(logits[yes[0]] - logits[no[0]])


def context(lm, request, generation):
    """The judged tokens, put together by hand."""
    question = "\nIs the answer correct? Choose ONLY one letter. A) Yes B) No. Your choice:"
    parts = [
        lm.tokenizer(text, add_special_tokens=False)["input_ids"]
        for text in (str(generation), question)
    ]
    return [*lm.prompt_token_ids(request.args[0]), *parts[0], *parts[1]]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def confidences(generations):
    return [generation.record.probabilities["self_eval"] for generation in generations]


@pytest.mark.parametrize(
    "architecture", ["llama", "gemma3", "gpt_neox", "mistral", "mamba", "bloom"]
)
def test_confidence_is_that_of_a_plain_pass(make_lm, make_requests, architecture):
    lm = make_lm(architecture=architecture)
    requests = make_requests(n_attempts=4, max_gen_toks=4, until=["e", "1"])
    generations = lm.generate_until(requests, True)
    assert len({generation.record.finish_reason for generation in generations}) > 1
    for request, generation, found in zip(
        requests, generations, confidences(generations), strict=True
    ):
        expected = sigmoid(difference_by_hand(lm, context(lm, request, generation)))
        assert 0 <= found <= 1
        assert found == pytest.approx(expected, abs=2e-4)
    counts = lm.run_record()["self_evaluation"]["attempts"]
    assert counts["judged"] == len(requests)
    # Random text: some of it is tokenized otherwise than it was sampled, and some is not.
    assert 0 < counts["retokenized"] < len(requests)


def test_shipped_model_and_equal_texts(make_requests):
    lm = EpiCaRLM("tiny", seed=0, batch_size=7)
    requests = make_requests(n_attempts=6, max_gen_toks=60, until=["Question:"])
    generations = lm.generate_until(requests, True)
    by_text = {}
    for request, generation, found in zip(
        requests, generations, confidences(generations), strict=True
    ):
        expected = sigmoid(difference_by_hand(lm, context(lm, request, generation)))
        assert found == pytest.approx(expected, abs=1e-5)
        by_text.setdefault((request.args[0], generation), set()).add(found)
    assert len(by_text) < len(generations)  # some attempts gave the same text
    assert all(len(values) == 1 for values in by_text.values())


def test_confidence_depends_on_the_attempt_alone(make_lm, make_requests):
    requests = make_requests()
    reference = confidences(make_lm().generate_until(requests, True))
    order = sorted(range(len(requests)), key=lambda i: (random.Random(i // 3).random(), i))
    shuffled = make_lm(batch_size=5).generate_until([requests[i] for i in order], True)
    np.testing.assert_allclose(confidences(shuffled), [reference[i] for i in order], atol=1e-4)
    fewer = make_lm(batch_size=1).generate_until(make_requests(n_attempts=1), True)
    np.testing.assert_allclose(confidences(fewer), reference[::3], atol=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "bloom"])
@pytest.mark.parametrize("self_eval_labels", [" A+ B", [" B", " A"]])
def test_labels_and_temperature(make_lm, make_requests, architecture, self_eval_labels):
    lm = make_lm(
        architecture=architecture,
        self_eval_labels=self_eval_labels,
        calibration_temperature=2.5,
    )
    requests = make_requests(n_attempts=1)
    sign = 1 if self_eval_labels == " A+ B" else -1
    for request, generation in zip(requests, lm.generate_until(requests, True), strict=True):
        z = sign * difference_by_hand(lm, context(lm, request, generation))
        record = generation.record
        assert record.probabilities == {"self_eval": pytest.approx(sigmoid(z / 2.5), abs=2e-4)}
        assert record.extra == {"self_eval_untuned": pytest.approx(sigmoid(z), abs=2e-4)}
    assert lm.run_record()["self_evaluation"]["temperature"] == 2.5


def test_own_prompt(make_lm, make_requests):
    lm = make_lm(self_eval_prompt="Is that so? A or B:")
    (request,) = make_requests(prompts=["2 + 2 ="], n_attempts=1)
    (generation,) = lm.generate_until([request], True)
    tokenize = lm.tokenizer
    ids = [
        *lm.prompt_token_ids("2 + 2 ="),
        *tokenize(str(generation), add_special_tokens=False)["input_ids"],
        *tokenize("\nIs that so? A or B:", add_special_tokens=False)["input_ids"],
    ]
    expected = sigmoid(difference_by_hand(lm, ids))
    assert confidences([generation]) == [pytest.approx(expected, abs=2e-4)]


@pytest.mark.parametrize("architecture", ["llama", "bloom"])
def test_too_long_is_cut_from_the_left(make_lm, make_requests, architecture):
    lm = make_lm(architecture=architecture, max_length=64)
    prompts = [" ".join(str(i) for i in range(n)) for n in (100, 150)]
    requests = make_requests(prompts=prompts)
    for request, generation in zip(requests, lm.generate_until(requests, True), strict=True):
        record = generation.record
        assert record.n_prompt_tokens == 64 - 12
        prompt_ids = lm.prompt_token_ids(request.args[0])
        ids = context(lm, request, generation)[len(prompt_ids) - record.n_prompt_tokens :]
        assert len(ids) > 63
        expected = sigmoid(difference_by_hand(lm, ids[-63:]))
        assert confidences([generation]) == [pytest.approx(expected, abs=2e-4)]
    assert lm.run_record()["self_evaluation"]["attempts"]["cut"] == len(requests)


@pytest.mark.parametrize("position", ["after_prompt", "end_of_user", "prefix"])
@pytest.mark.parametrize("architecture", ["llama", "bloom"])
def test_rsp_judges_with_its_vectors_in_a_chat(make_lm, make_requests, position, architecture):
    lm = make_lm(RSP, architecture=architecture, length=3, position=position, self_eval=True)
    plain = make_lm(RSP, architecture=architecture, length=3, position=position)
    chats = [[{"role": "user", "content": text}] for text in ("How many is 3 + 4?", "Why?")]
    requests = make_requests(prompts=[lm.apply_chat_template(chat) for chat in chats])
    generations = lm.generate_until(requests, True)
    assert generations == plain.generate_until(requests, True)
    for request, generation in zip(requests, generations, strict=True):
        prompt_ids = lm.prompt_token_ids(request.args[0])
        asked = lm.attempt_request(request.args[0], prompt_ids, generation.record.attempt)
        vectors = lm.draw(request.args[0], generation.record.attempt)
        ids = context(lm, request, generation)
        z = difference_by_hand(lm, ids, vectors, at=len(asked.shared_ids))
        assert confidences([generation]) == [pytest.approx(sigmoid(z), abs=2e-4)]
    assert len(set(confidences(generations))) == len(generations)


@pytest.mark.parametrize("architecture", ["llama", "bloom"])
def test_open_boxes_are_completed_and_judged(make_lm, make_requests, caplog, architecture):
    lm = make_lm(architecture=architecture, box_completion=True)
    plain = make_lm(SampledLM, architecture=architecture)
    requests = make_requests(n_attempts=8)
    with caplog.at_level(logging.WARNING):
        generations = lm.generate_until(requests, True)
    expected = plain.generate_until(requests, True)
    n_closed = 0
    for request, generation, before in zip(requests, generations, expected, strict=True):
        assert generation.startswith(before + LEAD_IN)
        record = generation.record
        n = before.record.n_tokens
        assert record.token_ids[:n] == before.record.token_ids
        assert 1 <= record.n_tokens - n <= 32
        assert all(len(values) == record.n_tokens for values in record.statistics)
        assert has_closed_box(generation) == (record.finish_reason == "stop")
        n_closed += has_closed_box(generation)
        assert not has_closed_box(generation) or generation.endswith("}")
        z = difference_by_hand(lm, context(lm, request, generation))
        assert confidences([generation]) == [pytest.approx(sigmoid(z), abs=2e-4)]
    assert 0 < n_closed < len(requests)
    counts = lm.run_record()["box_completion"]
    assert (counts["attempts"], counts["completed"], counts["closed"]) == (32, 32, n_closed)
    assert (
        f"32 of 32 attempts so far ended without a closed box; {n_closed} of these" in caplog.text
    )


def test_completion_belongs_to_the_attempt(make_lm, make_requests):
    requests = make_requests()
    reference = make_lm(box_completion=True).generate_until(requests, True)
    fewer = make_lm(SampledLM, box_completion=True, batch_size=1).generate_until(
        make_requests(n_attempts=1), True
    )
    assert fewer == reference[::3]
    assert not fewer[0].record.probabilities


def test_closed_boxes_are_left_alone(make_lm, make_requests, monkeypatch):
    lm = make_lm(box_completion=True)
    plain = make_lm()
    monkeypatch.setattr(finishing, "has_closed_box", lambda text: True)
    requests = make_requests(n_attempts=2)
    ours, expected = lm.generate_until(requests, True), plain.generate_until(requests, True)
    assert ours == expected
    assert confidences(ours) == confidences(expected)


def test_drafts_score_no_lead_in(make_lm):
    with pytest.raises(UserError, match="box_completion=true: --model draft-eu"):
        make_lm(DraftEU, drafts="tiny", box_completion=True)


def test_drafts_and_self_evaluation_go_together(make_lm, make_requests):
    requests = make_requests()
    both = make_lm(DraftEU, drafts="tiny", self_eval=True).generate_until(requests, True)
    drafts = make_lm(DraftEU, drafts="tiny").generate_until(requests, True)
    np.testing.assert_allclose(
        confidences(both), confidences(make_lm().generate_until(requests, True)), atol=1e-4
    )
    for ours, expected in zip(both, drafts, strict=True):
        assert ours.record.uncertainties == pytest.approx(expected.record.uncertainties, rel=1e-3)


def test_unfit_labels_are_refused_when_the_model_is_loaded(make_lm):
    with pytest.raises(UserError, match="self_eval_labels: ' certainly' is"):
        make_lm(self_eval_labels=" A+ certainly")

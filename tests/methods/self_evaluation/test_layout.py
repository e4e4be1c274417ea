"""Where the tokens of a self-evaluation stand, and which labels are allowed."""

import math

import numpy as np
import pytest

from lm_eval_ext.engine.request import AttemptRequest, Vectors
from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.self_evaluation.confidence import confidence
from lm_eval_ext.methods.self_evaluation.finishing import read_finisher_settings
from lm_eval_ext.methods.self_evaluation.layout import SelfEvalLayout, cut_from_left
from lm_eval_ext.methods.self_evaluation.template import (
    SelfEvalTemplate,
    label_token_ids,
    read_template,
)

PROMPT, RESPONSE = "Question: 3 + 4 =\nAnswer:", " 3 + 4 = 7\n#### 7"


@pytest.fixture
def make_layout(tiny_tokenizer):
    def make(max_length=512, **template):
        return SelfEvalLayout(tiny_tokenizer, SelfEvalTemplate(**template), max_length=max_length)

    return make


def request(shared, private, n_vectors=0):
    vectors = Vectors(n_vectors, lambda: None) if n_vectors else None
    return AttemptRequest(tuple(shared), tuple(private), np.random.default_rng(0), vectors)


def test_the_context_reads_as_the_prompt_the_response_and_the_question(make_layout, tiny_tokenizer):
    prompt_ids = tiny_tokenizer(PROMPT)["input_ids"]
    ids = make_layout().context_ids(prompt_ids, RESPONSE)
    assert ids[: len(prompt_ids)] == tuple(prompt_ids)
    assert tiny_tokenizer.decode(ids[len(prompt_ids) :]) == (
        RESPONSE + "\nIs the answer correct? Choose ONLY one letter. A) Yes B) No. Your choice:"
    )


@pytest.mark.parametrize("max_length", [512, 60, 45, 30, 24])
def test_training_and_test_read_the_same_tokens(make_layout, tiny_tokenizer, max_length):
    layout = make_layout(max_length)
    prompt_ids = tuple(tiny_tokenizer(PROMPT)["input_ids"])
    asked = request(prompt_ids[:-1], prompt_ids[-1:])
    (response_ids,) = layout.response_ids([RESPONSE])
    read = layout.request(asked, response_ids)
    expected = layout.context_ids(prompt_ids, RESPONSE)
    assert read.prompt_ids == expected
    whole = prompt_ids + response_ids + layout.template_ids
    assert expected == whole[-min(len(whole), max_length - 1) :]  # room for the label
    assert expected[-len(layout.template_ids) :] == layout.template_ids


def test_vectors_are_cut_all_or_none():
    asked = request([1, 2], [3, 4, 5], n_vectors=2)
    lengths = {n: cut_from_left(asked, n) for n in range(7)}
    assert (lengths[0].prompt_ids, lengths[0].n_vectors) == ((1, 2, 3, 4, 5), 2)
    assert (lengths[2].shared_ids, lengths[2].n_vectors) == ((), 2)
    for n in (3, 4):
        assert (lengths[n].n_vectors, lengths[n].private_ids) == (0, (3, 4, 5))
    assert lengths[6].private_ids == (5,)


def test_an_empty_response_is_laid_out(make_layout):
    layout = make_layout()
    assert layout.response_ids([]) == []
    assert layout.context_ids([5], "") == (5, *layout.template_ids)


def test_labels_are_two_single_tokens_that_differ(tiny_tokenizer):
    ids = label_token_ids(tiny_tokenizer, (" A", " B"))
    assert tiny_tokenizer.convert_ids_to_tokens(ids) == ["\u0120A", "\u0120B"]
    with pytest.raises(UserError, match="' certainly' is [2-9] tokens .*choose other labels"):
        label_token_ids(tiny_tokenizer, (" A", " certainly"))
    with pytest.raises(UserError, match="are the same token; choose two that differ"):
        label_token_ids(tiny_tokenizer, (" A", " A"))


@pytest.mark.parametrize("labels", ["A", "A+B+C", "A+", [" A"], [" A", 3]])
def test_anything_but_two_labels_is_refused(labels):
    with pytest.raises(UserError, match="self_eval_labels=.* must be two labels"):
        read_template(labels=labels)


def test_a_template_without_room_for_a_response_is_refused(make_layout):
    with pytest.raises(UserError, match="no room for a response in 22 positions"):
        make_layout(22)


@pytest.mark.parametrize(
    "argument",
    [
        {"self_eval_prompt": "Right?"},
        {"self_eval_labels": "a+b"},
        {"calibration_temperature": 2.0},
    ],
    ids=str,
)
def test_settings_without_effect_are_refused(argument):
    with pytest.raises(UserError, match="has no effect without self_eval=true"):
        read_finisher_settings(self_eval=False, **argument)
    assert read_finisher_settings(self_eval=True, **argument).template is not None


def test_switches_are_switches():
    with pytest.raises(UserError, match="self_eval='yes' must be true or false"):
        read_finisher_settings(self_eval="yes")
    with pytest.raises(UserError, match="box_completion=1 must be true or false"):
        read_finisher_settings(self_eval=False, box_completion=1)


def test_confidence_is_the_share_of_the_first_label():
    for yes, no in ((0.3, -1.2), (-4.0, 2.5), (0.0, 0.0)):
        p, q = math.exp(yes), math.exp(no)
        assert confidence(yes, no) == pytest.approx(p / (p + q), rel=1e-12)
        assert confidence(yes, no) + confidence(no, yes) == pytest.approx(1)
    assert confidence(900, -900) == 1
    assert confidence(-900, 900) == 0

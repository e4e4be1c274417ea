"""Which models ``drafts=`` names, and which of them are refused."""

import copy
import json

import pytest
import torch
from transformers import AutoTokenizer

from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.epistemic.drafts import draft_names, load_drafts, same_model
from lm_eval_ext.methods.epistemic.vocabulary import check_vocabulary
from lm_eval_ext.models.shipped import model_path


@pytest.fixture
def load(random_model, tiny_tokenizer):
    def run(drafts):
        return load_drafts(
            drafts, target=random_model("llama"), tokenizer=tiny_tokenizer, device="cpu",
            dtype=torch.float32,
        )  # fmt: skip

    return run


@pytest.fixture
def draft_folder(tmp_path, random_model, tiny_tokenizer):
    folder = tmp_path / "a+b"
    random_model("qwen3").save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


def test_names(tmp_path, draft_folder):
    assert draft_names("some/model+other/model") == ["some/model", "other/model"]
    assert draft_names("some/model; other/model;") == ["some/model", "other/model"]
    assert draft_names(["tiny", "tiny"]) == [model_path("tiny")] * 2
    assert draft_names(str(draft_folder)) == [str(draft_folder)]
    (tmp_path / "drafts.json").write_text(json.dumps({"drafts": ["draft-0", "a+b"], "seed": 1}))
    assert draft_names(str(tmp_path)) == [str(tmp_path / "draft-0"), str(draft_folder)]


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (None, "neither drafts.json nor config.json"),
        ("{", "does not list its drafts"),
        ('{"models": []}', "does not list its drafts"),
        ('{"drafts": []}', "lists no drafts"),
    ],
)
def test_folders_without_drafts_are_refused(tmp_path, manifest, message):
    if manifest is not None:
        (tmp_path / "drafts.json").write_text(manifest)
    with pytest.raises(UserError, match=message) as error:
        draft_names(str(tmp_path))
    assert str(tmp_path) in str(error.value)


def test_equal_models_are_held_once(caplog, load, random_model, draft_folder):
    other = random_model("qwen3")
    drafts = load([str(draft_folder), copy.deepcopy(other), random_model("llama"), other])
    assert drafts.model_of_draft == (0, 0, None, 0)
    assert "equal to the target" in caplog.text
    assert len(drafts.models) == 1


def test_what_makes_models_the_same(random_model):
    model = random_model("llama")
    assert same_model(model, copy.deepcopy(model))
    changed = copy.deepcopy(model)
    changed.model.norm.weight.data[0] += 1e-6
    assert not same_model(model, changed)
    other_settings = copy.deepcopy(model)
    other_settings.config.rms_norm_eps = 1e-3
    assert not same_model(model, other_settings)
    assert not same_model(model, copy.deepcopy(model).bfloat16())
    assert not same_model(model, random_model("mistral"))


def test_another_tokenizer_is_refused(load, draft_folder):
    tokenizer = AutoTokenizer.from_pretrained(draft_folder)
    tokenizer.add_tokens(["zebra"])
    tokenizer.save_pretrained(draft_folder)
    message = "drafts=.*: token 'zebra' has id none in the target and 768 in the draft .1 of 769"
    with pytest.raises(UserError, match=message) as error:
        load(str(draft_folder))
    assert "use a draft of the same tokenizer" in str(error.value)


def test_a_narrow_draft_is_refused(load, random_model):
    narrow = copy.deepcopy(random_model("qwen3"))
    narrow.resize_token_embeddings(700)
    with pytest.raises(UserError, match="predicts 700 tokens, the target's vocabulary has 768"):
        load([narrow])


def test_padding_is_no_difference():
    vocabulary = {"a": 0, "b": 1}
    check_vocabulary("d", vocabulary, dict(vocabulary), target_width=64, draft_width=2)
    check_vocabulary("d", vocabulary, None, target_width=2, draft_width=64)

import json

import pytest
import torch

from lm_eval_ext.errors import UserError
from lm_eval_ext.models.shipped import model_path
from lm_eval_ext.training.drafts.initialization import build_draft, parse_truncation
from tokenizer import train_tokenizer


def build(draft_init, target, tokenizer, seed=0):
    return build_draft(str(draft_init), target, tokenizer, seed=seed)


IDS = torch.tensor([[1, 70, 80, 90]])


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3", "gpt_neox", "bloom"])
def test_truncated_copy_is_the_target_without_its_last_layers(
    random_model, tiny_tokenizer, architecture
):
    target = random_model(architecture)
    whole = build(f"first:{target.config.num_hidden_layers}", target, tiny_tokenizer)
    cut = build("first:1", target, tiny_tokenizer)
    with torch.no_grad():
        torch.testing.assert_close(whole.eval()(IDS).logits, target(IDS).logits)
        hidden = target(IDS, output_hidden_states=True).hidden_states
        shallow = cut.eval()(IDS, output_hidden_states=True).hidden_states
    torch.testing.assert_close(shallow[0], hidden[0])
    assert cut.config.num_hidden_layers == 1
    assert sum(p.numel() for p in cut.parameters()) < sum(p.numel() for p in whole.parameters())
    # Training the copy must not move the target.
    assert not {p.data_ptr() for p in cut.parameters()} & {
        p.data_ptr() for p in target.parameters()
    }


def test_narrow_mlp_keeps_the_strongest_neurons(random_model, tiny_tokenizer):
    target = build("first:2", random_model("llama"), tiny_tokenizer).eval()
    mlp = target.model.layers[0].mlp
    silent = [0, 5, 17]
    with torch.no_grad():
        for layer in target.model.layers:
            layer.mlp.down_proj.weight[:, silent] *= 1e-9
    width = target.config.intermediate_size - len(silent)
    narrow = build(f"first:2,mlp:{width}", target, tiny_tokenizer).eval()
    assert narrow.model.layers[0].mlp.up_proj.weight.shape[0] == width
    assert mlp.up_proj.weight.shape[0] == width + 3
    with torch.no_grad():
        torch.testing.assert_close(narrow(IDS).logits, target(IDS).logits)


def test_shipped_model_is_a_draft_of_itself(random_model, tiny_tokenizer):
    draft = build("tiny", random_model("llama"), tiny_tokenizer)
    assert draft.config.num_hidden_layers == 6
    assert draft.training
    assert {p.dtype for p in draft.parameters()} == {torch.float32}


def test_configuration_gives_random_weights_by_seed(random_model, tiny_tokenizer, tmp_path):
    target = random_model("llama")
    target.config.save_pretrained(tmp_path)
    for source in (tmp_path, tmp_path / "config.json"):
        first, again, other = (build(source, target, tiny_tokenizer, s) for s in (1, 1, 2))
        assert torch.equal(first.lm_head.weight, again.lm_head.weight)
        assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_narrow_vocabulary_is_refused(random_model, tiny_tokenizer, tmp_path):
    config = json.loads(random_model("llama").config.to_json_string())
    (tmp_path / "config.json").write_text(json.dumps({**config, "vocab_size": 500}))
    with pytest.raises(UserError, match="vocab_size=500"):
        build(tmp_path, random_model("llama"), tiny_tokenizer)


def test_other_tokenizer_is_refused(random_model, tiny_tokenizer, tmp_path):
    random_model("llama").save_pretrained(tmp_path)
    train_tokenizer(["some other words"] * 50, 300).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"has another tokenizer than the target: token .* differ"):
        build(tmp_path, random_model("llama"), tiny_tokenizer)
    tiny_tokenizer.save_pretrained(tmp_path)
    build(tmp_path, random_model("llama"), tiny_tokenizer)


@pytest.mark.parametrize(
    ("draft_init", "message"),
    [
        ("first:0", "write first:N"),
        ("first:two", "write first:N"),
        ("first:2,mlp:0", "write first:N"),
        ("first:9", "only 3 layers"),
        ("first:2,mlp:9999", "mlp:9999 is more than the target has, 96"),
        ("no/such-folder", "no/such-folder"),
    ],
)
def test_bad_start_is_one_line(random_model, tiny_tokenizer, draft_init, message, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=message) as error:
        build(draft_init, random_model("llama"), tiny_tokenizer)
    assert "\n" not in str(error.value)


def test_models_without_gated_mlps_are_not_narrowed(random_model, tiny_tokenizer):
    with pytest.raises(UserError, match="gate_proj"):
        build("first:1,mlp:8", random_model("gpt_neox"), tiny_tokenizer)


def test_only_first_begins_a_truncation():
    assert parse_truncation(model_path("tiny")) is None
    assert parse_truncation("first:2") == (2, None)

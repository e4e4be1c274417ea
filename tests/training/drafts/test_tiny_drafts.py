"""The shipped drafts: small, of the shipped target's vocabulary, and close to it."""

import json
import re
from pathlib import Path

import pytest
import torch

from lm_eval_ext.data.tiny import formats
from lm_eval_ext.data.tiny.problems import load_split
from lm_eval_ext.models.shipped import model_path

FOLDER = Path(model_path("tiny")).with_name("tiny-drafts")


@pytest.fixture(scope="module")
def manifest():
    return json.loads((FOLDER / "drafts.json").read_text())


def test_four_drafts_of_at_most_a_megabyte(manifest):
    assert manifest["drafts"] == [f"draft-{k}" for k in range(4)]
    for draft in manifest["drafts"]:
        files = [file for file in (FOLDER / draft).iterdir() if file.is_file()]
        assert sum(file.stat().st_size for file in files) <= 1e6


def test_card_repeats_the_settings(manifest):
    card = (FOLDER / "README.md").read_text()
    second = card.split("lm-eval-ext train drafts")[-1]
    for option, name in [
        ("num-drafts", "num_drafts"),
        ("teacher", "teacher"),
        ("split", "split"),
        ("problems", "prompts"),
        ("num-problems", "num_prompts"),
        ("max-new-tokens", "max_new_tokens"),
        ("steps", "steps"),
        ("batch-size", "batch_size"),
        ("learning-rate", "learning_rate"),
        ("warmup-steps", "warmup_steps"),
        ("seed", "seed"),
    ]:
        value = re.search(rf"--{option}\s+(\S+)", second)[1]
        stated = manifest["settings"][name]
        assert type(stated)(value) == stated, option
    assert sum(shard["n_prompts"] for shard in manifest["shards"]) == 7979
    for text in (card, (FOLDER / "drafts.json").read_text()):
        assert "/root" not in text
        assert "/work" not in text


def test_drafts_predict_nearly_as_the_target(manifest, tiny_tokenizer):
    from transformers import AutoModelForCausalLM

    texts = [
        formats.prompt("gsm8k", doc) + " " + formats.target("gsm8k", doc)
        for doc in load_split("gsm8k", "validation", 8)
    ]
    target = AutoModelForCausalLM.from_pretrained(model_path("tiny"))
    drafts = [AutoModelForCausalLM.from_pretrained(FOLDER / name) for name in manifest["drafts"]]
    assert {draft.dtype for draft in drafts} == {torch.float32}
    agree, different = [], 0.0
    for text in texts:
        ids = torch.tensor([tiny_tokenizer(text)["input_ids"]])
        start = len(tiny_tokenizer(text.split("\nAnswer:")[0])["input_ids"])
        with torch.no_grad():
            best = target(ids).logits[0, start:].argmax(-1)
            logits = [draft(ids).logits[0, start:] for draft in drafts]
        agree += [(one.argmax(-1) == best).float().mean().item() for one in logits]
        different = max(different, (logits[0] - logits[1]).abs().max().item())
    assert sum(agree) / len(agree) > 0.93
    assert different > 0.1

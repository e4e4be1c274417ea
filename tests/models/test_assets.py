"""The shipped model: loads offline, is small, and solves problems."""

import re
from pathlib import Path

import pytest

from lm_eval_ext.data.tiny import formats
from lm_eval_ext.data.tiny.problems import load_split
from lm_eval_ext.models.shipped import SHIPPED, model_path


@pytest.fixture(scope="module")
def loaded():
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_path())
    return AutoModelForCausalLM.from_pretrained(model_path(), dtype=torch.float32), tokenizer


@pytest.mark.parametrize("name", SHIPPED)
def test_size_bound_and_card(name):
    folder = Path(model_path(name))
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) <= 6e6
    card = (folder / "README.md").read_text()
    for word in ("stray", "random tokens", "sink", "Limits"):
        assert word in card
    assert "/root" not in card
    assert "/work" not in card


def test_shape(loaded):
    model, tokenizer = loaded
    config = model.config
    assert 1e6 <= model.num_parameters() <= 3e6
    assert config.num_hidden_layers >= 6
    assert config.num_attention_heads >= 8
    assert config.max_position_embeddings >= 2048
    assert config.tie_word_embeddings
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
    )


def greedy(loaded, prompts):
    import torch

    model, tokenizer = loaded
    inputs = tokenizer(prompts, return_tensors="pt", padding=True)
    with torch.no_grad():
        output = model.generate(**inputs, max_new_tokens=120, do_sample=False)
    new = output[:, inputs["input_ids"].shape[1] :]
    return tokenizer.batch_decode(new, skip_special_tokens=True)


def test_solves_word_problems_and_ends(loaded):
    docs = load_split("gsm8k", "validation", 40)
    texts = greedy(loaded, [formats.prompt("gsm8k", doc) for doc in docs])
    finals = [re.findall(r"#### (-?\d+)$", text) for text in texts]
    assert sum(bool(final) for final in finals) >= 36
    right = sum(f == [d["answer"].split("#### ")[1]] for f, d in zip(finals, docs, strict=True))
    assert 10 <= right <= 38


def test_long_prompt_runs(loaded):
    docs = load_split("gsm8k", "train", 18)
    shots = [formats.prompt("gsm8k", d) + " " + formats.target("gsm8k", d) for d in docs]
    (text,) = greedy(loaded, ["\n\n".join([*shots, formats.prompt("gsm8k", docs[0])])])
    assert isinstance(text, str)
    assert len(loaded[1]("\n\n".join(shots))["input_ids"]) > 1500


def test_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"name='huge'.*tiny"):
        model_path("huge")


def test_package_import_is_cheap():
    import subprocess
    import sys

    code = "import sys, lm_eval_ext.models.shipped; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"

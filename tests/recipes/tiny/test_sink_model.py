"""The shipped model with attention sinks: loads, is small, solves problems, and has sinks."""

from pathlib import Path

import pytest
import torch

from lm_eval_ext.data.tiny import formats
from lm_eval_ext.data.tiny.problems import load_split
from lm_eval_ext.grading.families import grade
from lm_eval_ext.models.shipped import model_path
from sink_trajectory import measure_sinks

# Measured when the model was shipped; the bounds leave room for other kernels and versions.
RIGHT_OF_100 = 47
SINK_SHARE = 0.477


@pytest.fixture(scope="module")
def loaded():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = model_path("tiny-sink")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder).eval(), tokenizer


def test_size_and_shape(loaded):
    model, tokenizer = loaded
    files = [file for file in Path(model_path("tiny-sink")).rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 6e6
    assert model.dtype == torch.float32
    assert model.num_parameters() <= 3e6
    config = model.config
    assert config.num_hidden_layers > 6
    assert config.num_attention_heads == 8
    assert config.num_key_value_heads == 4
    assert config.tie_word_embeddings
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
    )


def test_tokenizer_is_that_of_tiny():
    files = [Path(model_path(name)) / "tokenizer.json" for name in ("tiny", "tiny-sink")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_solves_word_problems(loaded):
    model, tokenizer = loaded
    docs = load_split("gsm8k", "test", 100)
    prompts = [formats.prompt("gsm8k", doc) for doc in docs]
    inputs = tokenizer(prompts, return_tensors="pt", padding=True)
    output = model.generate(**inputs, max_new_tokens=150, do_sample=False)
    new = output[:, inputs["input_ids"].shape[1] :]
    texts = tokenizer.batch_decode(new, skip_special_tokens=True)
    right = sum(grade("gsm8k", text, doc).correct for text, doc in zip(texts, docs, strict=True))
    assert abs(right - RIGHT_OF_100) <= 5
    assert (new == tokenizer.eos_token_id).any(dim=1).sum() >= 95


def test_many_heads_rest_on_bos(loaded):
    scores = torch.tensor(list(measure_sinks(*loaded).values())).mean(dim=0)
    assert float((scores > 0.3).double().mean()) == pytest.approx(SINK_SHARE, abs=0.03)
    assert float((scores > 0.6).double().mean()) > 0.1
    # The first layers look at the words, and so do many heads everywhere: a ranking has two ends.
    assert float(scores[0].max()) < 0.2
    assert float(scores.median()) < 0.3


def test_it_is_bos_and_not_the_first_position(loaded):
    """Without BOS the heads that rested on it attend elsewhere, or to the first word less."""
    model, tokenizer = loaded
    model.set_attn_implementation("eager")
    text = formats.prompt("gsm8k", load_split("gsm8k", "test", 1)[0])
    ids = torch.tensor([tokenizer.encode(text)])
    with torch.no_grad():
        whole, bare = (
            torch.stack(model(part, output_attentions=True).attentions)[:, 0, :, :, 0].mean(-1)
            for part in (ids, ids[:, 1:])
        )
    model.set_attn_implementation("sdpa")
    sinks = whole > 0.6
    assert sinks.sum() >= 5
    assert bare[sinks].mean() < whole[sinks].mean()

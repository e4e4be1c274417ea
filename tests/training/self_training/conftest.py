"""A model of one layer, a few problems, and a grader that finds some attempts correct."""

import json

import pytest
import torch

from lm_eval_ext.grading import Attempt
from lm_eval_ext.training.self_training.settings import from_flat


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def model_folder(tiny_tokenizer, tmp_path_factory):
    """Return the folder of a model with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=0.2,
        bos_token_id=tiny_tokenizer.bos_token_id,
        eos_token_id=tiny_tokenizer.eos_token_id,
        pad_token_id=tiny_tokenizer.pad_token_id,
    )
    folder = tmp_path_factory.mktemp("model")
    LlamaForCausalLM(config).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def problems_file(tmp_path_factory):
    """Return a file of 16 records of GSM8K."""
    path = tmp_path_factory.mktemp("problems") / "problems.jsonl"
    records = [{"question": f"What is {i} + 1?", "answer": f"#### {i + 1}"} for i in range(16)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture(scope="session")
def make_run(model_folder, problems_file):
    """Return a function that makes the settings of a small run; arguments replace some."""

    def make(**changes):
        small = {
            "pretrained": str(model_folder),
            "problems": str(problems_file),
            "grader": "gsm8k",
            "rounds": 2,
            "held_out_share": 0.3,
            "attempts": 4,
            "max_new_tokens": 8,
            "batch_size": 4,
            "lora_rank": 0,
            "learning_rate": 0.01,
        }
        return from_flat({**small, **changes})

    return make


def some_are_correct(family, questions):
    """Grade a fourth of the attempts correct, and an empty one invalid."""
    assert family == "gsm8k"
    for texts, record, *_ in questions:
        number = int(record["answer"].split()[-1])
        yield [Attempt(text or None, (len(text) + number) % 4 == 0) for text in texts]


@pytest.fixture(scope="session", autouse=True)
def grader():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lm_eval_ext.training.self_training.labels.grade_questions", some_are_correct)
        yield

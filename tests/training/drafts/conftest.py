import json

import pytest


@pytest.fixture(scope="session")
def target_folder(random_model, tiny_tokenizer, tmp_path_factory):
    """Return the folder of a target with random weights, its tokenizer beside it."""
    folder = tmp_path_factory.mktemp("target")
    random_model("llama").save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def prompts_file(tmp_path_factory):
    """Return a file of 12 short prompts."""
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Question {i}:"}) + "\n" for i in range(12)))
    return path

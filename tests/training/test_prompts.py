import json

import pytest

from lm_eval_ext.errors import UserError
from lm_eval_ext.tiny.problems import load_split, split_of
from lm_eval_ext.training.prompts import load_prompts


def test_generated_training_prompts_are_no_test_problems():
    for split in ("train", "train_hard"):
        source = load_prompts(f"tiny_gsm8k:{split}", limit=300)
        questions = [p.removeprefix("Question: ").removesuffix("\nAnswer:") for p in source.prompts]
        assert {split_of(question) for question in questions} == {"train"}
        assert not {r["question"] for r in load_split("gsm8k", "test")} & set(questions)
        assert source.stop == ("Question:",)


def test_hard_problems_are_longer():
    plain, hard = (load_prompts(f"tiny_gsm8k:{s}", limit=200) for s in ("train", "train_hard"))
    assert sum(map(len, hard.prompts)) > 1.15 * sum(map(len, plain.prompts))


def test_file_keeps_its_order_and_drops_repetitions(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in ["b", "a", "b"]))
    assert load_prompts(str(path)).prompts == ("b", "a")
    assert load_prompts(str(path), limit=1).prompts == ("b",)


def test_sources_are_joined(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "x"}\n')
    joined = load_prompts(f"{path}+tiny_math:train", limit=2)
    assert joined.prompts[0] == "x"
    assert len(joined.prompts) == 3
    assert joined.stop == ("Problem:",)


def test_published_prompts_are_those_of_the_task(published_data):
    from lm_eval_ext.datasets import load_split
    from lm_eval_ext.exemplars import gsm8k_exemplars

    folder = str(published_data)
    source = load_prompts("gsm8k:train", limit=2, data_folder=folder)
    question = load_split("gsm8k", "train", data_folder=folder)[1]["question"]
    assert source.prompts[1].endswith(f"\n\nQ: {question}\nA:")
    assert source.prompts[1].count("\nA: ") == len(gsm8k_exemplars()) == 8
    plain = load_prompts("gsm8k_zero_shot:train", limit=2, data_folder=folder)
    assert plain.prompts[1] == f"Question: {question}\nAnswer:"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("gsm9k:train", "no file and no known source"),
        ("tiny_gsm8k:training", "split='training' is unknown"),
        ("tiny_gsm8k", "split=''"),
    ],
)
def test_unknown_source_is_named(source, message):
    with pytest.raises(UserError, match=message):
        load_prompts(source)


def test_record_without_text_is_named(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "x"}\n{"prompt": 3}\n')
    with pytest.raises(UserError, match="record 2"):
        load_prompts(str(path))
    path.write_text('{"question": "x"}\n')
    with pytest.raises(UserError, match="prompt"):
        load_prompts(str(path))
    with pytest.raises(UserError, match="num_prompts=0"):
        load_prompts(str(path), limit=0)

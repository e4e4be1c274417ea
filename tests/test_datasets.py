"""Published data from a local folder or from the Hub."""

import json

import datasets
import pytest

from lm_eval_ext.datasets import (
    DATA_VARIABLE,
    gsm8k,
    gsm8k_exemplars,
    load_split,
    read_json_lines,
)
from lm_eval_ext.grading import grade

RECORDS = [{"question": f"{i} + {i}?", "answer": f"#### {2 * i}"} for i in range(5)]


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "test"):
        lines = [json.dumps(record) for record in RECORDS]
        (tmp_path / f"gsm8k_{split}.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_the_variable_names_the_folder(folder, monkeypatch):
    monkeypatch.setenv(DATA_VARIABLE, str(folder))
    assert load_split("gsm8k", "train").to_list() == RECORDS


def test_the_argument_goes_before_the_variable(folder, monkeypatch):
    monkeypatch.setenv(DATA_VARIABLE, "/nowhere")
    assert load_split("gsm8k", "test", data_folder=str(folder)).to_list() == RECORDS


def test_the_loader_of_a_task_takes_the_metadata_of_lm_eval(folder):
    splits = gsm8k(data_folder=str(folder), pretrained="gpt2", attempts=4, version=1.0)
    assert list(splits) == ["test"]
    assert splits["test"].to_list() == RECORDS


def test_without_a_folder_the_hub_is_asked(monkeypatch):
    asked = []
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda *args, **kwargs: asked.append((args, kwargs)) or datasets.Dataset.from_list(RECORDS),
    )
    assert load_split("gsm8k", "test").to_list() == RECORDS
    assert asked == [(("openai/gsm8k", "main"), {"split": "test"})]


def test_a_hub_out_of_reach_is_reported_in_one_line(monkeypatch):
    def refuse(*args, **kwargs):
        raise ConnectionError("no route to host\nand a long explanation")

    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(
        ValueError, match=r"openai/gsm8k.*no route to host.*LM_EVAL_EXT_DATA"
    ) as error:
        load_split("gsm8k", "test")
    assert "\n" not in str(error.value)


def test_a_missing_file_names_variable_folder_file_and_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    with pytest.raises(ValueError, match="put it there") as error:
        load_split("gsm8k", "test")
    for part in (DATA_VARIABLE, str(tmp_path), "gsm8k_test.jsonl", "openai/gsm8k"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"question": "a", "answer": "b"}\n{"question": "a", "ans', r"line 2: .*may be cut off"),
        ('{"question": "a"}\n', r"line 1: a record with question, answer is expected"),
        ("[1, 2]\n", r"line 1: a record with question, answer is expected"),
        ('\n{"question": "a", "answer": "b"}\n{oops}\n', r"line 3: not valid JSON: "),
        (b'{"question": "\xff", "answer": "b"}\n', r"line 1: not valid JSON"),
        ("", "has no records"),
    ],
)
def test_a_damaged_file_is_reported_by_line(tmp_path, content, message):
    path = tmp_path / "data.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as error:
        read_json_lines(path, fields=("question", "answer"))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_line_separator_inside_a_text_ends_no_line(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps({"question": "a\u2028b\x85c"}, ensure_ascii=False) + "\n", "utf-8")
    assert read_json_lines(path) == [{"question": "a\u2028b\x85c"}]


@pytest.mark.parametrize(("name", "split"), [("gsm9k", "test"), ("gsm8k", "validation")])
def test_unknown_names_are_refused(name, split):
    with pytest.raises(ValueError, match="is unknown: use one of"):
        load_split(name, split)


def test_the_exemplars_are_the_eight_of_the_paper_and_can_be_graded():
    exemplars = gsm8k_exemplars()
    answers = [6, 5, 39, 8, 9, 29, 33, 8]
    assert len({exemplar["question"] for exemplar in exemplars}) == 8
    for exemplar, answer in zip(exemplars, answers, strict=True):
        assert grade("gsm8k", exemplar["target"], {"answer": f"#### {answer}"}).correct


def test_the_published_files_are_complete(published_data, monkeypatch):
    monkeypatch.setenv(DATA_VARIABLE, str(published_data))
    assert len(gsm8k()["test"]) == 1319
    assert len(load_split("gsm8k", "train")) == 7473

"""Published data from a local folder or from the Hub."""

import json

import datasets
import pytest

from lm_eval_ext.data import word_problems
from lm_eval_ext.data.datasets import (
    DATA_VARIABLE,
    MATH_SUBJECTS,
    PUBLISHED,
    gsm8k,
    load_split,
    math,
    math500,
    mbpp,
    mbpp_sanitized,
    read_json_lines,
)

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


MATH_RECORD = {"problem": "2 + 2?", "level": "Level 1", "solution": "$\\boxed{4}$"}
MBPP_RECORD = {
    "text": "Write f.",
    "code": "def f(x): return x",
    "test_list": ["assert f(1) == 1"],
    "test_setup_code": "",
    "challenge_test_list": [],
}


@pytest.fixture
def mixed_folder(tmp_path):
    """Return a folder whose files hold several subjects and splits, unordered."""
    math_records = [
        {**MATH_RECORD, "type": subject, "idx": number}
        for number in range(3)
        for subject in MATH_SUBJECTS.values()
    ]
    mbpp_records = [
        {**MBPP_RECORD, "task_id": task_id} for task_id in (601, 511, 510, 11, 10, 1, 974, 600)
    ]
    for name, records in (("math_test", math_records), ("mbpp", mbpp_records)):
        lines = [json.dumps(record) for record in records]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return str(tmp_path)


@pytest.mark.parametrize("subject", MATH_SUBJECTS)
def test_a_subject_of_math_is_picked_from_the_one_local_file(mixed_folder, subject):
    (records,) = math(subject=subject, data_folder=mixed_folder).values()
    assert records.to_list() == [{**MATH_RECORD, "type": MATH_SUBJECTS[subject]}] * 3


@pytest.mark.parametrize("subject", [None, "Algebra", "topology"])
def test_a_subject_that_is_none_is_refused(subject):
    with pytest.raises(ValueError, match=r"subject=.* is unknown: use one of algebra, "):
        math(subject=subject)


def test_the_splits_of_mbpp_go_by_task_number(mixed_folder):
    found = {
        split: load_split("mbpp", split, data_folder=mixed_folder)["task_id"][:]
        for split in ("prompt", "test", "validation", "train")
    }
    assert found == {"prompt": [10, 1], "test": [510, 11], "validation": [511, 600]} | {
        "train": [601, 974]
    }
    assert set(mbpp(data_folder=mixed_folder, version=1.0)) == {"test", "prompt"}


def test_a_file_without_the_split_is_reported(tmp_path):
    (tmp_path / "mbpp.jsonl").write_text(json.dumps({**MBPP_RECORD, "task_id": 700}) + "\n")
    with pytest.raises(ValueError, match=r"mbpp\.jsonl has no records of the test split of mbpp"):
        mbpp(data_folder=str(tmp_path))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("math500", ("HuggingFaceH4/MATH-500", "default")),
        ("math_number_theory", ("EleutherAI/hendrycks_math", "number_theory")),
        ("mbpp", ("google-research-datasets/mbpp", "full")),
        ("mbpp_sanitized", ("google-research-datasets/mbpp", "sanitized")),
    ],
)
def test_the_hub_is_asked_for_the_published_configuration(monkeypatch, name, arguments):
    record = dict.fromkeys((*PUBLISHED[name].fields, "a field of no interest"), "x")
    asked = []
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda *args, **kwargs: (
            asked.append((args, kwargs)) or datasets.Dataset.from_list([record])
        ),
    )
    assert load_split(name, "test").to_list() == [dict.fromkeys(PUBLISHED[name].fields, "x")]
    assert asked == [(arguments, {"split": "test"})]


HUB_RECORDS = {
    "mawps": {"question": "Ann has 9 pens and loses 5.", "result": "4", "equation": "x=9-5"},
    "svamp": {"ID": "chal-1", "Body": "Ann has 9 pens.", "Question": "And now?", "Answer": "9"},
    "aime24": {"id": 60, "problem": "2 + 2?", "solution": "$\\boxed{4}$", "answer": "004"},
}


@pytest.mark.parametrize(
    ("name", "arguments", "hub_split"),
    [
        ("mawps", ("MU-NLPC/Calc-mawps", "original-splits"), "train+validation+test"),
        ("svamp", ("ChilleD/SVAMP", "default"), "train+test"),
        ("aime24", ("HuggingFaceH4/aime_2024", "default"), "train"),
    ],
)
def test_all_splits_of_the_hub_are_asked_where_ours_differ(
    monkeypatch, tmp_path, name, arguments, hub_split
):
    record = HUB_RECORDS[name]
    kept = {"train": [], "test": [word_problems.key(record.get("question", ""))], "svamp_twins": []}
    (tmp_path / "split.json").write_text(json.dumps(kept))
    monkeypatch.setattr(word_problems, "SPLIT_FILE", tmp_path / "split.json")
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    asked = []
    published = datasets.Dataset.from_list([{**record, "a field of no interest": "x"}])
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *args, **kwargs: asked.append((args, kwargs)) or published
    )
    (found,) = load_split(name, "test").to_list()
    assert asked == [(arguments, {"split": hub_split})]
    expected = {
        "mawps": {"question": record.get("question"), "answer": "#### 4"},
        "svamp": {
            "id": "chal-1",
            "question": "Ann has 9 pens. And now?",
            "answer": "#### 9",
            "has_twin": False,
        },
        "aime24": record,
    }
    assert found == expected[name]


def test_a_file_that_the_split_does_not_know_is_reported(tmp_path):
    record = {"subset": "singleop", "question": "Nobody has asked this before.", "answer": 1.0}
    (tmp_path / "mawps.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(
        ValueError, match=r"mawps\.jsonl has no records of the train split of mawps"
    ):
        load_split("mawps", "train", data_folder=str(tmp_path))


def test_a_hub_data_set_that_changed_is_reported(monkeypatch):
    changed = datasets.Dataset.from_list([{"problem": "2 + 2?", "final": "4"}])
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: changed)
    with pytest.raises(ValueError, match=r"MATH-500.* has no answer, level, .*LM_EVAL_EXT_DATA"):
        load_split("math500", "test")


def test_the_published_files_are_complete(published_data, monkeypatch):
    monkeypatch.setenv(DATA_VARIABLE, str(published_data))
    assert len(gsm8k()["test"]) == 1319
    assert len(load_split("gsm8k", "train")) == 7473
    assert len(math500()["test"]) == 500
    sizes = {subject: len(math(subject=subject)["test"]) for subject in MATH_SUBJECTS}
    assert sizes == dict(zip(MATH_SUBJECTS, (1187, 474, 479, 903, 540, 871, 546), strict=True))
    for name, expected in (("mbpp", (10, 500, 90, 374)), ("mbpp_sanitized", (7, 257, 43, 120))):
        found = tuple(len(load_split(name, split)) for split in PUBLISHED[name].files)
        assert found == expected
    assert len(mbpp_sanitized()["test"]) == 257


def test_problems_that_the_prompt_shows_solved_are_not_asked(tmp_path) -> None:
    from lm_eval_ext.data.datasets import MATH_SUBJECTS, math_train
    from lm_eval_ext.data.exemplars import math_exemplars

    common = {"level": "Level 1", "solution": "$\\boxed{4}$"}
    shown = math_exemplars()[0]["problem"]
    records = [{"problem": f"{i}?", "type": t} for i, t in enumerate(MATH_SUBJECTS.values())]
    records.insert(3, {"problem": f" {shown}\n", "type": "Algebra"})
    lines = [json.dumps({**record, **common}) + "\n" for record in records]
    (tmp_path / "math_train.jsonl").write_text("".join(lines))
    asked = math_train(data_folder=str(tmp_path))["train"]["problem"]
    assert list(asked) == [f"{i}?" for i in range(7)]

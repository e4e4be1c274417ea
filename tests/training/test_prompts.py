import json

import pytest

from lm_eval_ext.data.tiny.problems import load_split, split_of
from lm_eval_ext.errors import UserError
from lm_eval_ext.training.prompts import load_problems, load_prompts


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
    from lm_eval_ext.data.datasets import load_split
    from lm_eval_ext.data.exemplars import gsm8k_exemplars

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
        ("gsm9k:train", "neither a file nor a known source"),
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


@pytest.mark.parametrize("source", ["gsm8k:test", "tiny_math:train+tiny_gsm8k:test"])
@pytest.mark.parametrize("load", [load_prompts, load_problems])
def test_no_training_on_test_splits(load, source):
    with pytest.raises(UserError, match="must not be trained on it: use (tiny_)?gsm8k:train"):
        load(source, limit=2)


def test_messages_name_the_option():
    with pytest.raises(UserError, match="num_problems=0"):
        load_problems("tiny_gsm8k:train", limit=0)
    with pytest.raises(UserError, match="problems=tiny_gsm8k:dev"):
        load_problems("tiny_gsm8k:dev")
    with pytest.raises(UserError, match="grader=math is for the records of a file"):
        load_problems("tiny_gsm8k:train", grader="math")


def test_problems_have_what_grades_them():
    from lm_eval_ext.data.tiny.formats import target
    from lm_eval_ext.grading import grade

    for family in ("gsm8k", "math"):
        problems = load_problems(f"tiny_{family}:train", limit=5)
        assert [p.prompt for p in problems] == list(
            load_prompts(f"tiny_{family}:train", limit=5).prompts
        )
        for problem in problems:
            assert problem.family == family
            assert grade(family, target(family, problem.record), problem.record).correct
            assert problem.stop
    assert load_problems("tiny_mbpp:train", limit=2)[0].record["test_list"]


def test_joined_problems_keep_their_own_limits():
    gsm8k, math = load_problems("tiny_gsm8k:train+tiny_math:train", limit=1)
    assert (gsm8k.stop, math.stop) == (("Question:",), ("Problem:",))
    assert (gsm8k.max_new_tokens, math.max_new_tokens) == (200, 128)


def test_records_of_a_file_need_a_grader(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text('{"question": "1 + 1?", "answer": "#### 2", "prompt": "Say 1 + 1:"}\n')
    with pytest.raises(UserError, match=r"add --grader gsm8k\|math\|mbpp"):
        load_problems(str(path))
    (problem,) = load_problems(str(path), grader="gsm8k")
    assert (problem.prompt, problem.stop, problem.family) == ("Say 1 + 1:", (), "gsm8k")
    path.write_text('{"question": "1 + 1?", "answer": "#### 2"}\n')
    (problem,) = load_problems(str(path), grader="gsm8k")
    assert (problem.prompt, problem.stop) == ("Question: 1 + 1?\nAnswer:", ("Question:",))


def test_sanitized_records_call_their_text_prompt(tmp_path):
    path = tmp_path / "problems.jsonl"
    record = {"prompt": "Write f.", "test_list": ["assert f() == 1"], "test_imports": []}
    path.write_text(json.dumps(record) + "\n")
    (problem,) = load_problems(str(path), grader="mbpp")
    assert problem.prompt == "Task: Write f.\nassert f() == 1\n[BEGIN]\n"
    assert problem.record == record


@pytest.mark.parametrize(
    ("record", "grader", "message"),
    [
        ({"question": "1 + 1?"}, "gsm8k", "record 1: no field 'answer', which --grader gsm8k"),
        ({"answer": "#### 2"}, "gsm8k", "no field 'prompt' and no 'question'"),
        ({"question": 3, "answer": "#### 2"}, "gsm8k", "the field 'question' must be a text"),
        ({"problem": "x"}, "math", "no field 'solution' or 'answer'"),
        ({"problem": "x", "solution": "3"}, "math", "record 1: .*has no reference answer"),
        ({"question": "x", "answer": "3"}, None, "need to be told what grades them"),
    ],
    ids=str,
)
def test_record_that_cannot_be_graded_is_named(tmp_path, record, grader, message):
    path = tmp_path / "problems.jsonl"
    path.write_text(json.dumps(record) + "\n")
    with pytest.raises(UserError, match=message):
        load_problems(str(path), grader=grader)


def test_published_problems_of_code(published_data):
    problem = load_problems("mbpp_zero_shot:train", limit=1, data_folder=str(published_data))[0]
    assert problem.family == "mbpp"
    assert problem.record["task_id"] >= 601
    assert problem.prompt.endswith("\n[BEGIN]\n")

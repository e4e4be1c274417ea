import copy
import json

import pytest

from lm_eval_ext.data.tiny.problems import load_split, split_of
from lm_eval_ext.errors import UserError
from lm_eval_ext.training.options import PromptOptions
from lm_eval_ext.training.prompts import Renderer, load_problems, stop_strings


def prompts(source, **named):
    return [problem.prompt for problem in load_problems(source, graded=False, **named)]


def test_generated_training_prompts_are_no_test_problems():
    for split in ("train", "train_hard"):
        problems = load_problems(f"tiny_gsm8k:{split}", limit=300)
        questions = [problem.record["question"] for problem in problems]
        assert {split_of(question) for question in questions} == {"train"}
        assert not {r["question"] for r in load_split("gsm8k", "test")} & set(questions)
        assert stop_strings(problems) == ("Question:",)


def test_hard_problems_are_longer():
    plain, hard = (prompts(f"tiny_gsm8k:{s}", limit=200) for s in ("train", "train_hard"))
    assert sum(map(len, hard)) > 1.15 * sum(map(len, plain))


def test_file_keeps_its_order_and_drops_repetitions(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in ["b", "a", "b"]))
    assert prompts(str(path)) == ["b", "a"]
    assert prompts(str(path), limit=1) == ["b"]


def test_sources_are_joined(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "x"}\n')
    joined = load_problems(f"{path}+tiny_math:train", limit=2, graded=False)
    assert joined[0].prompt == "x"
    assert len(joined) == 3
    assert stop_strings(joined) == ("Problem:",)


def test_published_prompts_are_those_of_the_task(published_data):
    from lm_eval_ext.data.datasets import load_split
    from lm_eval_ext.data.exemplars import gsm8k_exemplars

    folder = str(published_data)
    asked = prompts("gsm8k:train", limit=2, data_folder=folder)
    question = load_split("gsm8k", "train", data_folder=folder)[1]["question"]
    assert asked[1].endswith(f"\n\nQ: {question}\nA:")
    assert asked[1].count("\nA: ") == len(gsm8k_exemplars()) == 8
    plain = prompts("gsm8k_zero_shot:train", limit=2, data_folder=folder)
    assert plain[1] == f"Question: {question}\nAnswer:"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("gsm9k:train", "neither a file nor a known source"),
        ("tiny_gsm8k:training", "split='training' is unknown"),
        ("tiny_gsm8k:", "split=''"),
        ("tiny_gsm8k", "problems=tiny_gsm8k is neither a file nor"),
    ],
)
def test_unknown_source_is_named(source, message):
    with pytest.raises(UserError, match=message):
        prompts(source)


def test_record_without_text_is_named(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "x"}\n{"prompt": 3}\n')
    with pytest.raises(UserError, match="record 2"):
        prompts(str(path))
    path.write_text('{"question": "x"}\n')
    with pytest.raises(UserError, match="prompt"):
        prompts(str(path))
    with pytest.raises(UserError, match="num_problems=0"):
        prompts(str(path), limit=0)


@pytest.mark.parametrize("source", ["gsm8k:test", "tiny_math:train+tiny_gsm8k:test"])
@pytest.mark.parametrize("load", [prompts, load_problems])
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
        assert [p.prompt for p in problems] == prompts(f"tiny_{family}:train", limit=5)
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


TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% if brief is defined %}!{% endif %}{% endif %}"
)


@pytest.fixture(scope="module")
def chat_folder(tiny_tokenizer, tmp_path_factory):
    """Return the folder of a tokenizer with a chat template."""
    folder = tmp_path_factory.mktemp("chat")
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_prompts_become_messages_of_the_user(chat_folder):
    (plain,) = prompts("tiny_gsm8k:train", limit=1)
    chat = Renderer(PromptOptions(apply_chat_template=True), chat_folder)
    (problem,) = load_problems("tiny_gsm8k:train", limit=1, renderer=chat)
    assert problem.prompt == f"<user>{plain}</user><assistant>"
    assert problem.record["question"] in plain
    assert (problem.family, problem.stop) == ("gsm8k", ("Question:",))
    told = PromptOptions(apply_chat_template=True, system_instruction="Be brief.")
    rendered = Renderer(told, chat_folder, brief=True).prompt("1 + 1?")
    assert rendered == "<system>Be brief.</system><user>1 + 1?</user><assistant>!"
    without_chat = PromptOptions(system_instruction="Be brief. ")
    assert Renderer(without_chat, chat_folder).prompt("1 + 1?") == "Be brief. 1 + 1?"


def test_a_task_is_asked_as_lm_eval_asks_it(chat_folder):
    task = "tiny_gsm8k_train_passn"
    (problem,) = load_problems(task, limit=1)
    assert problem.prompt == f"Question: {problem.record['question']}\nAnswer:"
    assert (problem.family, problem.max_new_tokens) == ("gsm8k", 200)
    assert "Question:" in problem.stop
    options = PromptOptions(
        apply_chat_template=True, num_fewshot=2, fewshot_as_multiturn=True, system_instruction="S"
    )
    (problem,) = load_problems(task, limit=1, renderer=Renderer(options, chat_folder))
    assert problem.prompt.startswith("<system>S</system><user>Question: ")
    assert problem.prompt.count("<assistant>") == 3
    assert problem.prompt.endswith(
        f"<user>Question: {problem.record['question']}\nAnswer:</user><assistant>"
    )


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("tiny_gsm8k_passn", {}, "scored on its split 'test', and must not be trained on it"),
        ("gsm9k_passn", {}, "problems=gsm9k_passn is neither a file nor a known source"),
        ("tiny_gsm8k:train", {"num_fewshot": 2}, "num_fewshot=2 is for tasks of lm-eval"),
        ("tiny_gsm8k:train", {"fewshot_as_multiturn": True}, "add --apply-chat-template"),
        ("tiny_gsm8k:train", {"apply_chat_template": True}, "plain has no chat template; leave"),
    ],
)
def test_prompts_that_cannot_be_rendered_are_refused(
    source, options, message, tiny_tokenizer, tmp_path
):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "plain")

    def load():
        renderer = Renderer(PromptOptions(**options), str(tmp_path / "plain"))
        load_problems(source, limit=1, renderer=renderer)

    with pytest.raises(UserError, match=message):
        load()

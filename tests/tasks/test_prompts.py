"""The prompts, letter by letter, and their equality with those of lm-eval's own tasks."""

import ast
import re
from pathlib import Path

import lm_eval.tasks
import pytest
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

from lm_eval_ext.data.exemplars import math_exemplars
from lm_eval_ext.data.tiny.formats import prompt as tiny_prompt
from lm_eval_ext.data.tiny.problems import load_split

STOCK = Path(next(iter(lm_eval.tasks.__path__)))
KINDS = pytest.mark.parametrize("kind", ["passn", "calib"])

MBPP_PROMPT = """\
You are an expert Python programmer, and here is your task: Write a function double_{0} to double \
a number. Your code should pass these tests:

assert double_{0}(1) == 2
assert double_{0}(2) == 4
assert double_{0}(3) == 6
[BEGIN]
"""
MBPP_SHOT = MBPP_PROMPT + "def double_{0}(x):\r\n  return 2 * x\n[DONE]\n\n"
MBPP_INSTRUCTION = """\
You are an expert Python programmer, and here is your task:
Write a function double_11 to double a number.
Your code should pass these tests:
assert double_11(1) == 2
assert double_11(2) == 4
assert double_11(3) == 6

Write the complete solution in one ```python code block."""


@pytest.fixture
def stock(load):
    """Return a function that builds one of lm-eval's tasks on the data of one of ours."""

    def build(path, ours, **changes):
        resolve = "fewshot_config" not in changes  # the functions of mbpp need the network
        config = load_yaml(STOCK / path, resolve_func=resolve)
        data_set = load(ours).dataset
        dropped = ("dataset_path", "dataset_name", "metric_list", "filter_list", "tag")
        dropped += ("process_docs", "process_results", "training_split")
        config = {key: value for key, value in config.items() if key not in dropped}
        config = {**config, "custom_dataset": lambda **_: data_set, **changes}
        return ConfigurableTask(config=config)

    return build


@KINDS
def test_gsm8k_shows_eight_solved_questions(load, prompt_of, kind):
    prompt = prompt_of(load(f"gsm8k_{kind}"))
    assert prompt.startswith("Q: There are 15 trees in the grove.")
    assert prompt.count("\n\nQ: ") == 8
    assert prompt.count("\nA: ") == prompt.count("The answer is ") == 8
    assert prompt.endswith("The answer is 8.\n\nQ: 2 + 2?\nA:")


@KINDS
def test_gsm8k_is_the_prompt_of_lm_eval(load, prompt_of, stock, chat, kind):
    task = stock("gsm8k/gsm8k-cot.yaml", "gsm8k_passn")
    ours = load(f"gsm8k_{kind}")
    for options in ({}, chat(), chat(multiturn=True)):
        assert prompt_of(ours, **options) == prompt_of(task, **options)
    assert ours.config.generation_kwargs["until"] == task.config.generation_kwargs["until"]


@KINDS
def test_gsm8k_chat_asks_for_a_box(load, prompt_of, chat, kind):
    assert prompt_of(load(f"gsm8k_{kind}_chat"), **chat()) == (
        "[user]2 + 2?\n\nThink step by step, then give the final answer as a single number in "
        "\\boxed{}.[assistant]"
    )


@pytest.mark.parametrize("name", ["mawps", "mawps_singleop", "mawps_train", "svamp"])
def test_word_problems_show_eight_of_one_step_in_one_line_each(load, prompt_of, name):
    task = load(f"{name}_passn")
    *shots, last = prompt_of(task).split("\n\n")
    assert len(shots) == 8
    for shot in shots:
        question, answer = shot.split("\n")
        assert question.startswith("Question: ")
        assert re.fullmatch(
            r"Answer: [^=]+ [0-9]+ [-+*/] [0-9]+ = [0-9]+ [^#]+ #### [0-9]+", answer
        )
    assert last == f"Question: {task.eval_docs[0]['question']}\nAnswer:"


def test_the_training_side_is_not_the_test_side(load):
    for name in ("mawps", "mawps_singleop"):
        sides = [load(f"{name}{side}_passn").eval_docs for side in ("", "_train")]
        assert [[doc["question"].split()[0] for doc in side] for side in sides] == [["A"], ["Ann"]]


@KINDS
@pytest.mark.parametrize("name", ["mawps", "svamp_untwinned"])
def test_word_problems_in_a_chat_ask_for_a_box(load, prompt_of, chat, name, kind):
    task = load(f"{name}_{kind}_chat")
    assert prompt_of(task, **chat()) == (
        f"[user]{task.eval_docs[0]['question']}\n\nThink step by step, then give the final answer "
        "as a single number in \\boxed{}.[assistant]"
    )


@KINDS
@pytest.mark.parametrize("name", ["math500", "math_geometry"])
def test_math_shows_four_solved_problems(load, prompt_of, name, kind):
    prompt = prompt_of(load(f"{name}_{kind}"))
    assert prompt.startswith("Problem:\nFind the domain of the expression")
    assert prompt.count("\n\nSolution: ") == prompt.count("I hope it is correct.") == 4
    assert prompt.endswith("I hope it is correct.\n\nProblem:\nWhat is $2 + 2$?\n\nSolution:")


@pytest.mark.parametrize(
    ("stock_file", "ours"),
    [
        ("minerva_math_geometry.yaml", "math_geometry_calib"),
        ("minerva_math500.yaml", "math500_passn"),
    ],
)
def test_math_is_the_prompt_of_lm_eval(load, prompt_of, stock, chat, stock_file, ours):
    pytest.importorskip("math_verify")
    # The field that lm-eval's process_docs adds is not part of the prompt.
    task = stock(f"minerva_math/{stock_file}", ours, doc_to_target="{{solution}}")
    for options in ({}, chat(), chat(multiturn=True)):
        assert prompt_of(load(ours), **options) == prompt_of(task, **options)
    assert load(ours).config.generation_kwargs["until"] == task.config.generation_kwargs["until"]


@KINDS
@pytest.mark.parametrize("name", ["math500", "math_precalculus"])
def test_math_chat_asks_for_a_box(load, prompt_of, chat, name, kind):
    assert prompt_of(load(f"{name}_{kind}_chat"), **chat()) == (
        "[user]What is $2 + 2$?\n\nPlease reason step by step, and put your final answer within "
        "\\boxed{}.[assistant]"
    )


@KINDS
@pytest.mark.parametrize("name", ["mbpp", "mbpp_sanitized"])
def test_mbpp_shows_tasks_2_3_and_4_solved(load, prompt_of, name, kind):
    prompt = prompt_of(load(f"{name}_{kind}"))
    shots = "".join(MBPP_SHOT.format(number) for number in (2, 3, 4))
    assert prompt == shots + MBPP_PROMPT.format(11)


@KINDS
def test_mbpp_is_the_prompt_of_lm_eval(published_data, load, prompt_of, stock, monkeypatch, kind):
    """On the published records: lm-eval's file carries copies of the three exemplars."""
    module = ast.parse((STOCK / "mbpp" / "utils.py").read_text(encoding="utf-8"))
    (function,) = (
        node
        for node in module.body
        if isinstance(node, ast.FunctionDef) and node.name == "list_fewshot_samples"
    )
    samples = ast.literal_eval(function.body[-1].value)
    load(f"mbpp_{kind}")
    monkeypatch.setenv("LM_EVAL_EXT_DATA", str(published_data))
    task = stock(
        "mbpp/mbpp.yaml",
        f"mbpp_{kind}",
        fewshot_config={"sampler": "first_n", "samples": samples},
    )
    assert prompt_of(load(f"mbpp_{kind}")) == prompt_of(task)


@KINDS
def test_mbpp_instruct_shows_the_tests_and_asks_for_a_code_block(load, prompt_of, chat, kind):
    prompt = prompt_of(load(f"mbpp_instruct_{kind}"), **chat())
    assert prompt == f"[user]{MBPP_INSTRUCTION}[assistant]"


def test_every_test_of_a_sanitized_record_is_shown(load):
    task = load("mbpp_sanitized_passn")
    tests = [f"assert f({x}) == {x}" for x in range(5)]
    prompt = task.doc_to_text({"prompt": "Write f.", "test_list": tests})
    assert prompt.endswith("pass these tests:\n\n" + "\n".join(tests) + "\n[BEGIN]\n")


@KINDS
@pytest.mark.parametrize("family", ["gsm8k", "math", "mbpp"])
def test_the_tiny_prompts_are_those_of_the_training_text(load, prompt_of, family, kind):
    task = load(f"tiny_{family}_{kind}")
    docs = list(task.eval_docs)
    assert docs == load_split(family, "test")
    for doc in docs[:20]:
        assert task.doc_to_text(doc) == tiny_prompt(family, doc)
    assert prompt_of(task) == tiny_prompt(family, docs[0])


@pytest.mark.parametrize("family", ["gsm8k", "math", "mbpp"])
def test_the_token_limit_of_a_tiny_task_holds_every_solution(load, tiny_tokenizer, family):
    task = load(f"tiny_{family}_passn")
    lengths = [len(tiny_tokenizer(task.doc_to_target(doc))["input_ids"]) for doc in task.eval_docs]
    assert max(lengths) < task.config.generation_kwargs["max_gen_toks"]


@pytest.mark.parametrize(
    ("name", "n_shots", "mark"),
    [
        ("gsm8k_passn", 3, "The answer is "),
        ("gsm8k_passn_chat", 2, "The answer is $\\boxed{"),
        ("mawps_singleop_calib", 3, " #### "),
        ("svamp_passn_chat", 2, "The answer is $\\boxed{"),
        ("aime24_passn", 2, "I hope it is correct."),
        ("math500_calib", 1, "I hope it is correct."),
        ("math500_passn_chat", 2, "I hope it is correct."),
        ("math_algebra_passn", 4, "I hope it is correct."),
        ("mbpp_passn", 10, "[DONE]"),
        ("mbpp_sanitized_calib", 1, "[DONE]"),
        ("mbpp_instruct_passn", 2, "```\n\nYou are"),
        ("tiny_math_passn", 2, "\\boxed{"),
        ("tiny_mbpp_calib", 1, "[DONE]"),
    ],
)
def test_the_number_of_shots_is_free(load, prompt_of, name, n_shots, mark):
    for count in (0, n_shots):
        task = load(name)
        task.set_config("num_fewshot", count)
        assert prompt_of(task).count(mark) == count


def test_no_shot_of_a_chat_task_comes_from_the_test_split(load):
    chats = ("gsm8k_passn_chat", "math500_passn_chat", "mbpp_instruct_passn", "mawps_passn_chat")
    for name in chats:
        task = load(name)
        tested = [task.doc_to_text(doc) for doc in task.eval_docs]
        shown = [task.doc_to_text(doc) for doc in task.fewshot_docs()]
        assert shown
        assert not set(tested) & set(shown)


def test_the_exemplars_of_math_are_solved_in_a_box():
    assert all(exemplar["solution"].count("\\boxed{") == 1 for exemplar in math_exemplars())

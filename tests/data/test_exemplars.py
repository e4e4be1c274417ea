"""The solved questions that few-shot prompts show."""

import re

import datasets
import lm_eval.tasks
import pytest

from lm_eval_ext.data.exemplars import (
    gsm8k_boxed_exemplars,
    gsm8k_exemplars,
    math_exemplars,
    mbpp_exemplars,
    one_step_boxed_exemplars,
    one_step_exemplars,
)
from lm_eval_ext.grading import grade

GSM8K_ANSWERS = [6, 5, 39, 8, 9, 29, 33, 8]


def test_those_of_gsm8k_are_the_eight_of_the_paper_and_can_be_graded():
    exemplars = gsm8k_exemplars()
    assert len({exemplar["question"] for exemplar in exemplars}) == 8
    for exemplar, answer in zip(exemplars, GSM8K_ANSWERS, strict=True):
        assert grade("gsm8k", exemplar["target"], {"answer": f"#### {answer}"}).correct


def test_the_boxed_ones_differ_only_in_the_box():
    for plain, boxed in zip(gsm8k_exemplars(), gsm8k_boxed_exemplars(), strict=True):
        assert boxed["question"] == plain["question"]
        unboxed = boxed["target"].replace("$\\boxed{", "").replace("}$.", ".")
        assert unboxed == plain["target"]
        assert boxed["target"].count("\\boxed{") == 1


def test_those_of_one_step_are_right_in_one_line_and_in_a_box():
    exemplars = list(zip(one_step_exemplars(), one_step_boxed_exemplars(), strict=True))
    assert len({plain["question"] for plain, _ in exemplars}) == 8
    operators = []
    for plain, boxed in exemplars:
        one, operator, other, result = re.search(
            r"([0-9]+) ([-+*/]) ([0-9]+) = ([0-9]+)", plain["target"]
        ).groups()
        operators.append(operator)
        value = {"+": int(one) + int(other), "-": int(one) - int(other)}
        value |= {"*": int(one) * int(other), "/": int(one) / int(other)}
        assert value[operator] == int(result)
        for number in (one, other):
            assert number in plain["question"] or (number, "Five") == ("5", plain["question"][:4])
        assert boxed["question"] == plain["question"]
        assert "\n" not in plain["target"] + plain["question"]
        assert plain["target"].endswith(f" #### {result}")
        for target in (plain["target"], boxed["target"]):
            assert grade("gsm8k", target, {"answer": result}).correct
    assert sorted(operators) == list("**++--//")


def test_those_of_math_are_the_four_of_the_paper():
    exemplars = math_exemplars()
    boxes = ["[2,5)", "24", "16", "-\\frac{2}{3}"]
    for exemplar, box in zip(exemplars, boxes, strict=True):
        assert set(exemplar) == {"problem", "solution"}
        assert f"\\boxed{{{box}}}" in exemplar["solution"]
        assert f"The final answer is ${box}$. I hope it is correct." in exemplar["solution"]


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        (range(1, 11), [2, 3, 4, 1, 5, 6, 7, 8, 9, 10]),
        ([9, 8, 7, 6, 4, 3, 2], [2, 3, 4, 6, 7, 8, 9]),
        ([5, 1], [1, 5]),
    ],
)
def test_those_of_mbpp_begin_with_2_3_and_4(numbers, expected):
    split = datasets.Dataset.from_list([{"task_id": number} for number in numbers])
    assert mbpp_exemplars(split)["task_id"][:] == expected


@pytest.mark.parametrize(
    ("read", "file", "content"),
    [
        (gsm8k_exemplars, "gsm8k/gsm8k-cot.yaml", "task: gsm8k_cot\n"),
        (gsm8k_exemplars, "gsm8k/gsm8k-cot.yaml", "fewshot_config: ["),
        (math_exemplars, "minerva_math/utils.py", "x = 1\n"),
        (math_exemplars, "minerva_math/utils.py", "def list_fewshot_samples(:"),
        (math_exemplars, "minerva_math/utils.py", "def list_fewshot_samples():\n    return f()\n"),
        (math_exemplars, "elsewhere", ""),
    ],
)
def test_an_lm_eval_that_moved_them_is_reported_in_one_line(
    monkeypatch, tmp_path, read, file, content
):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    monkeypatch.setattr(lm_eval.tasks, "__path__", [str(tmp_path)])
    with pytest.raises(ValueError, match=r"has no exemplars in .*--num_fewshot 0") as error:
        read()
    assert "\n" not in str(error.value)

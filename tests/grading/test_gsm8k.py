"""The GSM8K grader: where the answer is looked for, and that the published answers pass."""

import json
import time

import pytest

from lm_eval_ext.grading import Attempt, grade, grade_many
from lm_eval_ext.grading.gsm8k import extract, reference

ANSWERS = {
    # the three ways, and their order
    "9 * 2 = 18\n#### 18": "18",
    "So \\boxed{18} eggs remain.": "18",
    "So \\fbox{18} eggs remain.": "18",
    "The answer is 18.": "18",
    "#### 1\n\\boxed{2}\nThe answer is 3.": "1",
    "The answer is 3, so \\boxed{2}.": "2",
    # the last place that holds a number
    "#### 1\n#### 2": "2",
    "\\boxed{1} corrected to \\boxed{2}": "2",
    "The answer is 1. Wait, the answer is 2.": "2",
    "The answer is 18. Let me check that the answer is right.": "18",
    "\\boxed{18}. I have put it in \\boxed{}.": "18",
    # close variants of the sentence
    "the final answer is: $18$": "18",
    "**Final Answer:** 18 dollars": "18",
    "Answer: 18": "18",
    "The correct answer would be 18.": "18",
    "The answer to the question is 18.": "18",
    "The answer, in dollars, is 18.": "18",
    "The final answer is:\n\n$$18$$": "18",
    # a heading and the number below it
    "**Final Answer**\n\n18": "18",
    "### Answer\n18": "18",
    "#### Answer\n18": "18",
    "## Final Answer:\n$18$ eggs.": "18",
    "####\n18": "18",
    "####\n\n18 eggs\nas above": "18",
    "### Answer\n5\nSo the answer is 18.": "18",
    "The answer is 5.\n### Answer\n18": "18",
    "### Answer\n5\n### Answer\n18": "18",
    # Markdown headings are no answers
    "#### 1. Find the cost\n#### 2. Add the tax\nThe answer is 18.": "18",
    "#### Step 1: buy 3\nThe answer is 18.": "18",
    "#### 72\n\n#### Explanation": "72",
    # boxes
    r"\boxed{\text{\$1,234}}": "1234",
    r"\boxed{\dfrac{6}{8}}": "3/4",
    r"\boxed{\boxed{18}}": "18",
    # thinking
    "<think>The answer is 7.</think>The answer is 18.": "18",
    "The answer is 7.</think>\n\\boxed{18}": "18",
    "[THINK]7[/THINK] #### 18": "18",
}
NO_ANSWER = [
    "",
    "She has 16 - 3 = 13 eggs left, and then",
    "18",
    "\\boxed{18",
    "\\boxed{eighteen}",
    "The answer is 5 or 6.",
    "The answer is unclear.",
    "To answer the question: 5 apples are bought.",
    "#### 1. Find the cost",
    "####\n\nShe has 18 eggs",
    "####",
    "Answer: She has 18 eggs",
    "### Answer\nShe has 18 eggs",
    "### Answer\n16 eggs are laid on each day, so 3 are left",
    "The answer\n18 eggs are laid on each of the days",
    "<think>The answer is 7.",
    "The answer is 7.</think>I do not know.",
]


@pytest.mark.parametrize(("completion", "answer"), ANSWERS.items())
def test_the_announced_answer_is_extracted(completion, answer):
    assert str(extract(completion)) == answer


@pytest.mark.parametrize("completion", NO_ANSWER)
def test_without_an_announced_answer_an_attempt_is_invalid(completion):
    assert grade("gsm8k", completion, {"answer": "#### 7"}) == Attempt(None, False)


@pytest.mark.parametrize(
    "text",
    [
        "18 and a half", "18 dozen", "18 squared", "18% of 50", "18 more than 30",
        "18 eggs less than 30", "36 = 18", "5=18", "18; no, 19", "18 or more",
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["#### {}", "\\boxed{{{}}}", "The answer is {}."])
def test_words_that_change_the_number_leave_no_answer(form, text):
    assert grade("gsm8k", form.format(text), {"answer": "#### 18"}) == Attempt(None, False)


def test_equal_numbers_are_one_answer():
    completions = ["#### 18", "\\boxed{18.00}", "The answer is $36/2$.", "#### 19", "none"]
    attempts = grade_many("gsm8k", completions, {"answer": "so 18\n#### 18"})
    assert [attempt.answer for attempt in attempts] == ["18", "18", "18", "19", None]
    assert [attempt.correct for attempt in attempts] == [True, True, True, False, False]


def test_a_float_could_not_tell_these_apart():
    doc = {"answer": "#### 10000000000000001"}
    assert not grade("gsm8k", "#### 10000000000000000", doc).correct
    assert grade("gsm8k", "#### 10,000,000,000,000,001.0", doc).correct


def test_a_record_without_a_number_is_refused():
    with pytest.raises(ValueError, match=r"ends in no number.*#### N"):
        grade("gsm8k", "#### 1", {"answer": "eighteen"})


@pytest.mark.parametrize(
    "unit",
    [
        "\\boxed{",
        "{",
        "}",
        "#### ",
        "the answer is ",
        "9",
        "1,",
        " ",
        "\n",
        "*",
        "<think>",
        "(",
        "the ",
        "####\n",
        "### Answer\n",
        "answer",
        "<answer>",
        "<answer>1 2</answer>",
        "I hope it is correct. ",
        "Final Answer: a ",
        "1 000 ",
    ],
)
def test_a_megabyte_of_noise_is_graded_quickly(unit):
    completion = unit * (1_000_000 // len(unit))
    start = time.process_time()
    assert not grade("gsm8k", completion, {"answer": "#### 1"}).correct
    assert time.process_time() - start < 2.0


@pytest.mark.parametrize("split", ["test", "train"])
def test_every_published_answer_grades_as_correct(published_data, split):
    lines = (published_data / f"gsm8k_{split}.jsonl").read_text(encoding="utf-8").splitlines()
    docs = [json.loads(line) for line in lines]
    assert len(docs) == {"test": 1319, "train": 7473}[split]
    for doc in docs:
        gold = doc["answer"].rpartition("####")[2].strip()
        completions = [doc["answer"], f"The answer is {gold}.", f"\\boxed{{{gold}}}", "#### 0.5"]
        attempts = grade_many("gsm8k", completions, doc)
        assert [attempt.correct for attempt in attempts] == [True, True, True, False], doc
        assert attempts[0].answer == str(reference(doc))

"""Sentences that announce an answer, answers between tags, and texts that the token limit cut."""

import pytest

from lm_eval_ext.grading import grade, grade_many, gsm8k, math_extraction


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("**Final Answer:** Josh made a profit of **$70,000**.", "70000"),
        ("Final Answer: Josh made a profit of $70,000.", "70000"),
        ("**Final Answer**\n\nJosh made a profit of **$70,000**.", "70000"),
        ("### Final Answer\nShe makes $18 every day.", "18"),
        ("Final Answer: The total cost of 3 boxes is $18.", "18"),
        ("Final Answer: The value of $x$ is $5$.", "5"),
        ("The largest $n$ is $34$. I hope it is correct.", "34"),
        ("Final Answer: The largest $n$ is $34$. I hope it is correct.", "34"),
        ("Answer: She has **18** eggs.", "18"),
        ("Answer: She has 18 eggs", None),
        ("### Answer\nShe has 18 eggs", None),
        ("Final Answer: She has 5 apples and 6 pears.", None),
        ("Final Answer: She has at least 18 eggs.", None),
        ("Final Answer: She does not have 18 eggs.", None),
        ("Final Answer: half of 18 eggs", None),
        ("Final Answer: She has 18 million eggs.", None),
        ("Final Answer: Step 1: add the tax", None),
        ("Final Answer: is it 18?", None),
        ("Final Answer: The eggs cost **$3** or **$4**.", None),
        ("Final Answer: Total = 3 * 6 = 18 eggs.", "18"),
        ("Final Answer: Mr. Jones paid $18.", "18"),
        ("Final Answer: Each of the 3 boxes has 6 eggs.", None),
        ("The final answer is: The total cost of the 3 items is $18.", "18"),
        ("Final Answer: Her profit is \\$18, since she spent \\$130.", "18"),
        ("Final Answer: The ratio of cats to dogs is 1:10.", None),
        ("Final Answer: The train leaves at 10:30.", None),
        ("Final Answer: He can skip 4 of them because 10 - 4 = 6.", "4"),
        ("It is $9/hour * 2 hours = $18. I hope it is correct.", "18"),
        ("16 bars for 8 children are 16/8 = 2 bars each. I hope it is correct.", "2"),
        ("Thus 9 * 2 = **18** eggs. I hope it is correct.", "18"),
        ("She has 18 of the 20 eggs. I hope it is correct.", None),
        ("The answer is 18. I checked, so the answer is correct.", "18"),
        ("The answer is 18. Note that the answer is positive.", "18"),
        ("<answer>5</answer>", "5"),
        ("<think>\\boxed{3}</think><answer>5</answer>", "5"),
        ("<answer> \\boxed{5} </answer>", "5"),
        ("<answer>5 apples</answer>", "5"),
        ("<answer>The answer is 5.</answer>", "5"),
        ("<answer>She has 5 apples.</answer>", "5"),
        ("\\boxed{3} <answer>5</answer>", "5"),
        ("#### 3\n<answer>5</answer>", "5"),
        ("<answer>4</answer> no, <answer>5</answer>", "5"),
        ("<answer>$5.00</answer>", "5"),
        ("<answer>5", None),
        ("<answer></answer>", None),
        ("<answer>5 or 6</answer>", None),
        ("<answer>I do not know</answer>", None),
        ("<answer>1/2</answer>", "1/2"),
        ("<ANSWER>\n9 500\n</ANSWER>", "9500"),
        ("The answer is 9 500.", "9500"),
        ("The answer is $9 500$.", "9500"),
        ("The answer is **9 500**.", "9500"),
        ("The answer is 9 500", "9500"),
        ("The answer is 1 234 567.", "1234567"),
        ("The answer is 9 500 g bags.", None),
        ("The answer is 9 500 eggs.", None),
        ("The answer is 9 50.", None),
        ("The answer is 3, 9 500.", None),
        ("The answer is $70", "70"),
        ("\\boxed{12^{\\mathrm{th}}\\text{ grade}}", "12"),
        ("The answer is 12th grade.", "12"),
        ("\\boxed{12^{th}}", "12"),
        ("\\boxed{12^\\text{th}}", "12"),
        ("\\boxed{\\boldsymbol{42}}", "42"),
        ("\\boxed{\\underline{42}}", "42"),
        ("\\boxed{\\textcolor{red}{42}}", "42"),
        ("\\boxed{\\nicefrac12}", "1/2"),
        ("\\boxed{\\frac12}", "1/2"),
        ("\\boxed{17.5\\%}", "35/2"),
        ("\\boxed{66\\frac23\\%}", "200/3"),
        ("The answer is 0.", "0"),
        ("<answer>0</answer>", "0"),
        ("Final Answer: 0", "0"),
        ("To double-check the answer: we have **3** boxes. The answer is 18.", "18"),
    ],
)
def test_the_number_that_is_announced(completion, answer):
    value = gsm8k.extract(completion)
    assert (None if value is None else str(value)) == answer


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("Final Answer: The value of $x$ is $5$.", "5"),
        ("Final Answer: The value of $x$ is 5.", "5"),
        ("The largest $n$ is $34$. I hope it is correct.", "34"),
        ("Final Answer: The largest $n$ is $34$. I hope it is correct.", "34"),
        ("Final Answer: The final answer is $5$. I hope it is correct.", "5"),
        ("Final Answer: The value of $x$ and $y$ that works is $(1,2)$.", "(1,2)"),
        ("Final Answer: The probability that $x>3$ is equal to $\\frac12$.", "\\frac12"),
        ("Final Answer: The function $f$ is even.", "even"),
        ("Final Answer: The solutions of $x^2=4$ are $2$ and $-2$.", "2, -2"),
        ("Final Answer: The sum of the roots is $5$.", "5"),
        ("**Answer:** The probability that it is red is \\(\\frac{1}{3}\\).", "\\frac{1}{3}"),
        ("Answer: The number of students whose age is $5$ is $12$.", "12"),
        ("Final Answer: The probability that $x$ is $5$ is $\\frac{1}{3}$.", "\\frac{1}{3}"),
        ("Final Answer: The remainder when the sum is divided by $7$ is $5$.", "5"),
        ("Final Answer: The axis of symmetry is the line $x=3$.", "x=3"),
        ("Final Answer: The solutions of the equation are $2$ and $3$.", "2, 3"),
        ("Final Answer: There are $12$ ways to arrange them.", "12"),
        ("Final Answer: The polynomial has $3$ roots.", "3"),
        ("Final Answer: The sum of both is minus $5$.", "-5"),
        ("Final Answer: The sum of both is $5$ thousand.", "5\\text{ thousand}"),
        ("Final Answer: The maximum of the function is $5$ (which is at $x=2$).", "5"),
        ("Final Answer: The sum of both is at least $5$.", "The sum of both is at least 5"),
        ("Final Answer: The sum of both is not $5$.", "The sum of both is not 5"),
        ("Final Answer: It is impossible that $n$ is $5$.", "It is impossible that n is 5"),
        ("Final Answer: If the side is $2$, it is $5$.", "If the side is 2, it is 5"),
        ("Final Answer: The price that is paid is \\$5.00.", "5.00"),
        ("<answer>The sum of the roots is $5$.</answer>", "5"),
        ("<answer>The sum of the roots is 5.</answer>", "5."),
        ("Answer: $x$ is $5$", "5"),
        ("Final Answer: The total cost is 12 dollars.", "12 dollars"),
        ("**Final Answer:** Josh made a profit of **$70,000**.", "70000"),
        ("Final Answer: The value of $x$ is not $5$.", "not 5"),
        ("Final Answer: The value of $x$ is at least $5$.", "at least 5"),
        ("Answer: The area is $5$ and the perimeter is $12$.", "5"),
        ("Answer: The area of $ABC$ is $5$ and the perimeter is $12$.", "5"),
        ("The answer is $5$, and the cost is $3$.", "5"),
        ("The answer is $5$ apples, and the cost is $3$.", "5"),
        ("The answer is $5$. Both are positive, so the answer is correct.", "5"),
        ("The answer is $5$. Indeed the answer is positive.", "5"),
        ("The answer is 5. Hence the answer is an integer, as required.", "5"),
        ("Hence $x=5$. So the answer is correct.", "x=5"),
        ("The answer is positive.", "positive"),
        ("The answer is even.", "even"),
        ("The answer is odd. No: f(-x)=f(x). The answer is even.", "even"),
        ("The answer is $5$. Wait. The answer is $6$.", "6"),
        ("The answer is $5$. Wait. The answer is 6.", "6"),
        ("The answer is $5$. Wait. The answer is Evelyn.", "Evelyn"),
        ("The answer is positive $5$.", "5"),
        ("The answer is negative $5$.", "-5"),
        ("The answer is Evelyn. I checked; the answer is correct.", "Evelyn"),
        ("The answer is less than $5$", "less than 5"),
        ("<answer>5</answer>", "5"),
        ("<answer>$5$</answer>", "5"),
        ("<think>\\boxed{3}</think><answer>\\boxed{5}</answer>", "5"),
        ("<answer> \\( \\frac{1}{2} \\) </answer>", "\\frac{1}{2}"),
        ("<answer>\\frac{1}{2}</answer>", "\\frac{1}{2}"),
        (
            "<answer>\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}</answer>",
            "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}",
        ),
        ("<answer>The answer is $5$.</answer>", "5"),
        ("<answer>The value of $x$ is $5$.</answer>", "5"),
        ("<answer>$x = 3$ or $x = 4$</answer>", "x = 3, x = 4"),
        ("<answer>(C)</answer>", "(C)"),
        ("<answer>5 apples</answer>", "5 apples"),
        ("\\boxed{3} <answer>5</answer>", "5"),
        ("<answer>4</answer><answer>5</answer>", "5"),
        ("\\boxed{3} <answer>See the box above</answer>", "3"),
        ("\\boxed{3} <answer>Evelyn</answer>", "Evelyn"),
        ("<answer>5", None),
        ("<answer></answer>", None),
        ("\\boxed{3} <answer></answer>", "3"),
        ("The answer is $70", "70"),
        ("The answer is 9 500.", "9 500"),
        ("The answer is (C) Plane.", "(C) Plane"),
    ],
)
def test_the_formula_that_is_announced(completion, answer):
    assert math_extraction.extract(completion) == answer


@pytest.mark.parametrize(
    ("completion", "finish_reason", "answer"),
    [
        ("<answer>5", "length", None),
        ("The answer is $70", "length", None),
        ("The answer is $70", "stop", "70"),
        ("The answer is $70", "eos", "70"),
        ("The answer is 70.", "length", None),
        ("The answer is 70. ", "length", "70"),
        ("The answer is 70.\n", "length", "70"),
        ("The answer is 70,", "length", None),
        ("The answer is 70 m", "length", None),
        ("The answer is 70 dollars", "length", "70"),
        ("The answer is 70. So", "length", "70"),
        ("The answer is $70$", "length", "70"),
        ("The answer is **70**", "length", "70"),
        ("The answer is **70", "length", None),
        ("#### 70", "length", None),
        ("#### 70\n", "length", "70"),
        ("#### 70\nAnd then", "length", "70"),
        ("#### 7", "length", None),
        ("#### 70 eggs", "length", "70"),
        ("The answer is 9 * 2 = 18", "length", None),
        ("The answer is 18 because 9 * 2 = 1", "length", "18"),
        ("\\boxed{70}", "length", "70"),
        ("So \\boxed{70}. The answer is 7", "length", "70"),
        ("**Final Answer**\n\n7", "length", None),
        ("Final Answer: Josh made a profit of $70", "length", None),
        ("Final Answer: Josh made a profit of **$70,000**.", "length", "70000"),
    ],
)
def test_a_number_at_the_end_of_a_cut_text_is_none(completion, finish_reason, answer):
    value = gsm8k.extract(completion, finish_reason)
    assert (None if value is None else str(value)) == answer


@pytest.mark.parametrize(
    ("completion", "finish_reason", "answer"),
    [
        ("<answer>5", "length", None),
        ("The answer is $70", "length", None),
        ("The answer is $70", "stop", "70"),
        ("The answer is 70", "length", None),
        ("The answer is 70.", "length", None),
        ("The answer is 70. So", "length", "70"),
        ("The answer is 70.\n", "length", "70"),
        ("The answer is $\\frac12$ since", "length", "\\frac12"),
        ("The answer is $\\frac12$.", "length", "\\frac12"),
        ("The answer is $\\frac12$", "length", "\\frac12"),
        ("The answer is \\frac12", "length", None),
        ("The answer is $\\frac12", "length", None),
        ("The answer is $3$ and", "length", None),
        ("The answer is $3$ and $", "length", None),
        ("The answer is $3$ and $4", "length", None),
        ("The answer is $3$, ", "length", None),
        ("The answer is $3$ mil", "length", None),
        ("The answer is $3$ cm", "length", "3"),
        ("The answer is $3$ and $4$", "length", "3, 4"),
        ("The answer is Evelyn", "length", None),
        ("The answer is Evelyn.", "length", "Evelyn"),
        ("The answer is **Evelyn**", "length", "Evelyn"),
        ("The answer is 12 ap", "length", None),
        ("Hence $x = 5$", "length", None),
        ("Hence $x = 5$", "stop", "x = 5"),
        ("\\boxed{5} and then $x", "length", "5"),
        ("The answer is $5$. Then the answer is $7", "length", "5"),
        ("Final Answer: The value of $x$ is $5", "length", None),
        ("Final Answer: The value of $x$ is $5$.", "length", "5"),
        ("The largest $n$ is $34$. I hope it is correct.", "length", "34"),
    ],
)
def test_a_formula_at_the_end_of_a_cut_text_is_none(completion, finish_reason, answer):
    assert math_extraction.extract(completion, finish_reason) == answer


@pytest.mark.parametrize(
    ("family", "doc"), [("gsm8k", {"answer": "#### 70"}), ("math", {"answer": "70"})]
)
def test_graders_are_told_why_an_attempt_ended(family, doc):
    text = "The answer is 70"
    reasons = ["length", "stop", "eos", None]
    verdicts = [a.correct for a in grade_many(family, [text] * 4, doc, reasons)]
    assert verdicts == [False, True, True, True]
    assert verdicts == [grade(family, text, doc, reason).correct for reason in reasons]
    assert not grade(family, text, doc, "length").valid
    assert grade(family, text, doc).correct


def test_a_sentence_that_sets_off_its_number_is_the_answer_of_both_graders():
    text = "**Final Answer:** Josh made a profit of **$70,000**."
    assert grade("gsm8k", text, {"answer": "#### 70000"}).correct
    assert grade("math", text, {"answer": "70000"}).correct
    assert grade("math", "The answer is 9 500.", {"answer": "9500"}).correct
    assert not grade("math", "The answer is 9 500 g bags.", {"answer": "9500"}).correct


@pytest.mark.parametrize(
    ("text", "gsm8k", "math"),
    [
        ("<think>7?</think>\n<answer>5", "5", "5"),
        ("So it is 5.\n<answer> $5$ ", "5", "5"),
        ("<answer>\n5", "5", "5"),
        ("The answer is 5.\n<answer> is the tag that I use", "5", None),
        ("The answer is $5$. I leave out <answer> tags", "5", "5"),
    ],
)
def test_a_closing_tag_may_have_been_the_stop_string(text, gsm8k, math):
    for reason in ("stop", "eos"):
        assert grade("gsm8k", text, {"answer": "#### 5"}, reason).answer == gsm8k
        if math is not None:
            assert grade("math", text, {"answer": "5"}, reason).correct
    cut = grade("gsm8k", text.replace("The answer is", "I say"), {"answer": "#### 5"}, "length")
    assert cut.answer is None

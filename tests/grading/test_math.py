import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from lm_eval_ext.errors import UserError
from lm_eval_ext.grading import grade, grade_many
from lm_eval_ext.grading import math as math_grader
from lm_eval_ext.grading.attempt import Attempt
from lm_eval_ext.grading.math_extraction import extract, references
from lm_eval_ext.grading.math_pool import Comparison, ComparisonError


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (r"\boxed{1} and then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{1} and then \fbox{2}", "2"),
        (r"\boxed{1} and then \boxed{2", "1"),
        (r"\boxed{x = \{1, 2\}}", r"x = \{1, 2\}"),
        (r"\boxed {7}", "7"),
        (r"\boxed{\boxed{7}}", "7"),
        (r"\boxed{} is empty, $5$ is not", "5"),
        (r"so it is $\boxed 2$.", "2"),
        (r"so it is $\boxed\frac12$.", r"\frac12"),
        (r"The answer is 3, no: \boxed{4}. The answer is 3.", "4"),
        (r"The final answer is $\frac{1}{2}$. I hope it is correct.", r"\frac{1}{2}"),
        (r"Final Answer: \(x^2\)", "x^2"),
        (r"The answer is: $$[1, 2)$$", "[1, 2)"),
        (r"The answer is $x = 1$ or $x = 2$, since $1 + 2 = 3$.", "x = 1, x = 2"),
        ("**Final answer:** 12 apples. Each costs 3.", "12 apples"),
        ("The answer is 2.5 because 5 / 2 = 2.5.", "2.5"),
        ("The answer is Evelyn.\n\nCheck: $3 > 2$.", "Evelyn"),
        (r"First $a = 1$, then $b = 2$, so $a + b = 3$", "a + b = 3"),
        (r"It costs \$5 and $x^2$ is \$7", "x^2"),
        (r"Hence \[x = 5\]", "x = 5"),
        (r"<think>\boxed{3}</think> It is \boxed{4}", "4"),
        (r"<think>\boxed{3}, or is it", None),
        ("There are 12 ways to do it, and 13", None),
        ("", None),
        (r"\boxed", None),
        ("$", None),
        # Words before a formula introduce it, or are part of what is said.
        ("The answer is, therefore, equal to $5$ apples.", "5"),
        ("The answer is the ordered pair $(1, 2)$.", "(1, 2)"),
        ("The answer is a total of $5$.", "5"),
        ("The answer is found by adding these: $5$", "5"),
        ("Answer: Approximately **$5$**", "5"),
        ("The answer is minus $5$", "-5"),
        ("The answer is - $5$", "-5"),
        (r"The answer is negative $\frac12$", r"-\frac12"),
        ("The answer is minus $x + 1$", "minus x + 1"),
        ("The answer is not $5$.", "not 5"),
        ("The answer is less than $5$", "less than 5"),
        ("The answer is at least $5$", "at least 5"),
        ("The answer is less than: $5$", "less than: 5"),
        ("The answer is twice $5$", "twice 5"),
        ("The answer is the square of $5$", "the square of 5"),
        ("The answer is no longer $5$ but $6$", "no longer 5 but 6"),
        ("The answer is $5$ times $3$", "5 times 3"),
        ("The answer is $5$ - $3$", "5 - 3"),
        ("The answer is $5$ million.", r"5\text{ million}"),
        ("The answer is $5$ or more.", r"5\text{ or more}"),
        ("The answer is $5$ eggs or more.", r"5\text{ eggs or more}"),
        ("The answer is $5$ squared", r"5\text{ squared}"),
        ("The answer is $5$, not $6$.", "5"),
        ("The answer is $5$ which is more than $4$.", "5"),
        (
            "The answer is at most the one that was found for the first of the steps above, $5$",
            None,
        ),
        ("The answer is no longer what we have found in the first of the steps above, $5$", None),
        ("The answer is not one that can be told in a few words, for it depends on x and y", None),
    ],
)
def test_extraction(completion, answer):
    assert extract(completion) == answer


def test_the_reference_is_the_answer_or_the_last_box_of_the_solution():
    assert references({"answer": " 5 ", "solution": r"\boxed{6}"}) == ("5",)
    assert references({"answer": "", "solution": r"\boxed{5}, so \boxed{6}"}) == ("6",)
    assert references({"solution": r"Thus we get $\boxed 2$."}) == ("2",)
    assert references({"solution": r"Thus we get \fbox{2}."}) == ("2",)


@pytest.mark.parametrize(
    "sentence",
    [
        "minus $5$", "- $5$", "negative $5$", "not $5$", "less than $5$", "at least $5$",
        "twice $5$", "the square of $5$", "no longer $5$ but $6$", "$5$ million", "$5$ or more",
        "$5$ dozen", "$5$ and a half", "$5$ more than $3$", "$5$ times $3$", "5 million",
    ],
)  # fmt: skip
def test_words_around_a_formula_change_the_answer(sentence):
    assert not grade("math", f"The answer is {sentence}.", {"answer": "5"}).correct


@pytest.mark.parametrize(
    ("sentence", "gold"),
    [("minus $5$", "-5"), ("$5$ million", "5000000"), ("$5$ dozen eggs", "60")],
)
def test_words_around_a_formula_are_part_of_the_answer(sentence, gold):
    assert grade("math", f"The answer is {sentence}.", {"answer": gold}).correct


@pytest.mark.parametrize("record", [{}, {"solution": "2"}, {"answer": None}, {"solution": None}])
def test_a_record_without_a_reference_is_one_clear_line(record):
    with pytest.raises(UserError, match=r"problem='Find x.' has no reference answer") as caught:
        grade_many("math", ["5"], {"problem": "Find x.", **record})
    assert "\n" not in str(caught.value)


ATTEMPTS = [
    r"\boxed{0.5}", r"\boxed{\frac{2}{4}}", r"$\dfrac{1}{2}$", "The answer is 50%.",
    r"\boxed{\sqrt{8}}", r"\boxed{2\sqrt{2}}", r"\boxed{2 \sqrt 2}", r"\boxed{8^{1/2}}",
    r"\boxed{3}", r"\boxed{3.0}", r"\boxed{x=3}", r"\boxed{3", "", r"\boxed{9^{9^{9^9}}}",
]  # fmt: skip


def test_equal_answers_share_a_string_whatever_their_order():
    expected = None
    for seed in range(4):
        order = random.Random(seed).sample(range(len(ATTEMPTS)), len(ATTEMPTS))
        graded = grade_many("math", [ATTEMPTS[i] for i in order], {"answer": r"\frac12"})
        by_attempt = dict(zip(order, graded, strict=True))
        expected = expected or by_attempt
        assert by_attempt == expected
    answers = [expected[i].answer for i in range(len(ATTEMPTS))]
    assert set(answers[:4]) == {r"\frac{1}{2}"}
    assert set(answers[4:8]) == {"8^{1/2}"}
    assert set(answers[8:11]) == {"3"}
    assert answers[11:13] == [None, None]
    assert [expected[i].correct for i in range(len(ATTEMPTS))] == [True] * 4 + [False] * 10
    assert expected[13] == Attempt("9^{9^{9^9}}", False, "too deep")


def test_a_group_has_one_verdict_where_equality_is_not_transitive():
    # 50% equals 0.5 and 50, which are unequal.
    attempts = grade_many(
        "math", [r"\boxed{50}", r"\boxed{50\%}", r"\boxed{0.5}"], {"answer": "0.5"}
    )
    assert [attempt.correct for attempt in attempts] == [False, True, True]
    assert [attempt.answer for attempt in attempts] == ["50", "0.5", "0.5"]
    verdicts = {attempt.answer: attempt.correct for attempt in attempts}
    assert all(verdicts[attempt.answer] is attempt.correct for attempt in attempts)


class CountingPool:
    """A pool whose comparisons are counted, and answered from a rule."""

    def __init__(self, rule):
        self.rule, self.asked = rule, []

    def borrowed(self):
        import contextlib

        def compare(gold, answer):
            self.asked.append((gold, answer))
            return Comparison(self.rule(gold, answer), True, True)

        return contextlib.nullcontext(compare)


def test_identical_answers_are_compared_once_and_groupings_are_bounded():
    completions = [rf"\boxed{{x_{i % 40}+a}}" for i in range(400)]
    pool = CountingPool(lambda gold, answer: False)
    attempts = math_grader.grade_many(completions, {"answer": "y+b"}, pool=pool)
    against_gold = [pair for pair in pool.asked if pair[0] == "y+b"]
    assert len(against_gold) == len(set(against_gold)) == 40
    assert len(pool.asked) - 40 == math_grader.MAX_GROUPINGS
    assert len({attempt.answer for attempt in attempts}) == 40


def test_a_comparison_without_result_concerns_its_answer_only():
    def rule(gold, answer):
        if "bad" in answer:
            raise ComparisonError("timeout")
        return answer == "y"

    completions = [r"\boxed{bad}", r"\boxed{y}", r"\boxed{z}", r"\boxed{bad}"]
    attempts = math_grader.grade_many(completions, {"answer": "x"}, pool=CountingPool(rule))
    assert attempts == [
        Attempt("bad", False, "timeout"), Attempt("x", True), Attempt("z", False),
        Attempt("bad", False, "timeout"),
    ]  # fmt: skip


def test_plain_numbers_need_no_worker():
    pool = CountingPool(lambda gold, answer: pytest.fail("asked"))
    completions = [r"\boxed{5}", r"\boxed{10/2}", r"\boxed{6}", r"\boxed{\dfrac{12}{2}}"]
    attempts = math_grader.grade_many(completions, {"answer": "5"}, pool=pool)
    assert [attempt.answer for attempt in attempts] == ["5", "5", "6", "6"]
    assert [attempt.correct for attempt in attempts] == [True, True, False, False]


def test_questions_graded_in_threads_do_not_mix():
    def question(number):
        gold = rf"{number}\sqrt{{2}}"
        wrong = rf"\boxed{{\sqrt{{{2 * (number + 1) ** 2}}}}}"
        right = rf"\boxed{{\sqrt{{{2 * number**2}}}}}"
        return [a.correct for a in grade_many("math", [right, wrong, right], {"answer": gold})]

    with ThreadPoolExecutor(6) as executor:
        assert list(executor.map(question, range(2, 42))) == [[True, False, True]] * 40
    assert math_grader.max_concurrency() >= 1


def test_the_grading_process_imports_no_sympy():
    program = (
        "import sys; from lm_eval_ext.grading import grade;"
        r"assert grade('math', r'\boxed{\sqrt 8}', {'answer': r'2\sqrt 2'}).correct;"
        "print([m for m in sys.modules if m.startswith(('sympy', 'math_verify', 'latex2sympy'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_grade_is_grade_many_of_one():
    assert grade("math", r"\boxed{2/4}", {"answer": "1/2"}) == Attempt("1/2", True)

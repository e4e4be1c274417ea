"""The questions of MAWPS and SVAMP, as the tasks ask them."""

import ast
import json
import operator
from fractions import Fraction

import pytest

from lm_eval_ext.data import word_problems
from lm_eval_ext.data.datasets import load_split, read_json_lines
from lm_eval_ext.data.word_problems import answer, is_single_step, key, mawps, plain, svamp
from lm_eval_ext.errors import UserError
from lm_eval_ext.grading import grade

PENS, BALLS = "Ann has 9 pens and loses 5. How many?", "A box holds 2 balls. And 3 boxes?"


@pytest.fixture
def split(tmp_path, monkeypatch):
    path = tmp_path / "split.json"
    kept = {"train": [key(PENS)], "test": [key(BALLS)], "svamp_twins": [key(BALLS)]}
    path.write_text(json.dumps(kept))
    monkeypatch.setattr(word_problems, "SPLIT_FILE", path)


@pytest.mark.parametrize(
    ("one", "other", "same_text", "same_key"),
    [
        ("Joan's 7.0 cats .", "joan 's 7 cats.", True, True),
        ("It costs $ 1,200 .", "It costs $1200.", True, True),
        ("Give 2.50 each?", "Give 2.5 each?", True, True),
        ("He has 7 cats.", "He has 12 cats.", False, True),
        ("He has 0.5 l.", "He has .25 l.", False, True),
        ("He has 2.5 cats.", "He has 25 cats.", False, True),
        ("He has 7 cats.", "He has 7 dogs.", False, False),
        ("Ann has 7 cats.", "Tom has 7 cats.", False, False),
    ],
)
def test_texts_are_equal_whatever_their_typography(one, other, same_text, same_key):
    assert (plain(one) == plain(other)) is same_text
    assert (key(one) == key(other)) is same_key


@pytest.mark.parametrize(
    ("published", "expected"),
    [
        (14.0, "14"),
        (66, "66"),
        (1234.0, "1234"),
        (23.86, "23.86"),
        (-2.5, "-2.5"),
        ("159", "159"),
        ("56/9", "56/9"),
        ("7/2", "3.5"),
        (0.6666666667, "2/3"),
        (3.33333, "10/3"),
    ],
)
def test_an_answer_is_exact(published, expected):
    assert answer(published) == expected


def test_an_answer_that_is_no_number_is_reported():
    with pytest.raises(UserError, match="answer='five or so' is not a number"):
        answer("five or so")


@pytest.mark.parametrize(
    ("equation", "expected"),
    [
        ("x = 7.0 + 7.0", True),
        ("X=(8.0*9.0)", True),
        ("( 290.0 / 2.0 )", True),
        ("x=-3+5", True),
        ("x - 3 = 5", True),
        ("x=5", False),
        ("x = ( 4.0 - 2.0 ) + 3.0", False),
        ("2*x+3=9", False),
    ],
)
def test_a_problem_with_one_operator_is_of_one_step(equation, expected):
    assert is_single_step({"equation": equation}) is expected


def test_both_sources_give_the_same_questions(split):
    local = [
        {"subset": "singleop", "question": PENS, "answer": 4.0},
        {"subset": "addsub", "question": PENS.replace("pens", "pens "), "answer": 4.0},
        {"subset": "multiarith", "question": PENS.replace("9", "8"), "answer": 3},
        {"subset": "singleop", "question": BALLS, "answer": 0.6666666667},
        {"subset": "singleop", "question": "Nobody knows this one.", "answer": 1.0},
    ]
    hub = [
        {"question": row["question"], "result": result, "equation": equation}
        for row, result, equation in zip(
            local,
            ["4", "4", "3", "2/3", "1"],
            ["x=9-5", "x=9-5", "x=8-5-0", "x=2/3", "x=1"],
            strict=True,
        )
    ]
    for records in (local, hub):
        assert mawps(records, "train") == [
            {"question": PENS, "answer": "#### 4"},
            {"question": PENS.replace("9", "8"), "answer": "#### 3"},
        ]
        assert mawps(records, "train", single_step=True) == mawps(records, "train")[:1]
        assert mawps(records, "test") == [{"question": BALLS, "answer": "#### 2/3"}]


def test_a_question_of_svamp_is_body_and_question_and_knows_of_a_twin(split):
    records = [
        {
            "ID": "chal-1",
            "Body": "A box holds 2 balls. ",
            "Question": "And 3 boxes?",
            "Answer": 6.0,
        },
        {"ID": "chal-680", "Body": "A tree had 4 apples", "Question": " And now?", "Answer": 1.0},
    ]
    first, second = svamp(records, "test")
    assert first == {"id": "chal-1", "question": BALLS, "answer": "#### 6", "has_twin": True}
    assert second["question"] == "A tree had 4 apples And now?"
    assert (second["answer"], second["has_twin"]) == ("#### 5", False), "the published 1 is wrong"
    assert svamp(records, "test", untwinned=True) == [second]


ALL = [("mawps", "train"), ("mawps", "test"), ("svamp", "test")]
FORMS = ["#### {}", r"So it is \boxed{{{}}}.", "The answer is {}.", "**Final Answer:** ${}$"]
FORMS += ["<answer>{} of them</answer>"]


def writings(number):
    """Return ways to write a number: itself, with decimals, or rounded and as a LaTeX fraction."""
    if number.denominator == 1:
        return [str(number), f"{number}.00"]
    ends = word_problems.terminates(number)
    decimals = [answer(str(number))] if ends else [f"{float(number):.{n}f}" for n in (2, 4, 10)]
    return [*decimals, str(number), rf"\frac{{{number.numerator}}}{{{number.denominator}}}"]


@pytest.mark.parametrize(("name", "split"), ALL)
def test_each_gold_answer_is_right_in_five_forms_and_its_neighbours_are_wrong(
    published_data, name, split
):
    for doc in load_split(name, split, data_folder=str(published_data)):
        gold = Fraction(doc["answer"].removeprefix("#### "))
        for number, expected in ((gold, True), (gold + 1, False), (gold - 1, False)):
            for form in FORMS:
                for text in writings(number):
                    attempt = grade("gsm8k", form.format(text), doc)
                    assert attempt.correct is expected, (doc, form, text)


def test_each_answer_of_aime_is_right_in_five_forms_and_its_neighbours_are_wrong(published_data):
    forms = ["\\boxed{{{}}}", "\\boxed{{{:03}}}", "The answer is ${}$.", "Final answer: {:03}"]
    forms += ["<answer>{}</answer>"]
    docs = load_split("aime24", "test", data_folder=str(published_data))
    assert len(docs) == 30
    for doc in docs:
        gold = int(doc["answer"])
        assert 0 <= gold <= 999
        for number in (gold, gold + 1, gold - 1):
            for form in forms:
                assert grade("math", form.format(number), doc).correct is (number == gold)


OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}
OPERATORS |= {ast.Div: operator.truediv}


def value_of(equation):
    def value(node):
        if isinstance(node, ast.BinOp):
            return OPERATORS[type(node.op)](value(node.left), value(node.right))
        return Fraction(str(node.value))

    return value(ast.parse(equation.strip(), mode="eval").body)


def test_one_answer_of_svamp_differs_from_its_equation(published_data):
    records = {r["ID"]: r for r in read_json_lines(published_data / "svamp.jsonl")}
    docs = load_split("svamp", "test", data_folder=str(published_data))
    wrong = [
        name for name, r in records.items() if value_of(r["Equation"]) != Fraction(str(r["Answer"]))
    ]
    assert wrong == ["chal-680"] == list(word_problems.CORRECTED_SVAMP)
    for doc in docs:
        gold = Fraction(doc["answer"].removeprefix("#### "))
        assert gold == value_of(records[doc["id"]]["Equation"])


def test_the_published_data_have_the_sizes_of_the_readme(published_data):
    def size(name, split):
        return len(load_split(name, split, data_folder=str(published_data)))

    assert [size("mawps", side) for side in ("train", "test")] == [754, 752]
    assert [size("mawps_singleop", side) for side in ("train", "test")] == [266, 265]
    assert [size(name, "test") for name in ("svamp", "svamp_untwinned")] == [1000, 841]

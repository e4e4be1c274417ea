"""What words tell apart: letters with their text, ordinals, words with an opposite."""

import pytest

from lm_eval_ext.grading import grade

EQUAL = [
    ("C", r"\text{(C) Plane}"),
    ("C", "C. Plane"),
    (r"\text{(C)}", r"\text{C. Plane}"),
    (r"\text{(C)}", r"\textbf{(C)}\ 25"),
    ("C", "(C) 25"),
    ("C", "C) Plane"),
    ("C", r"\text{C: Plane}"),
    (r"\text{(C) Plane}", "C"),
    ("D", r"\text{D. None of these}"),
    ("C", r"\text{(C) 5 or more}"),
    ("C", r"\text{(C) 3 million}"),
    ("D", "(D): all of the above"),
    ("E", r"\text{(E) Neither (A) nor (B)}"),
    ("E", "E. Both A and B"),
    ("B", r"\mathbf{(B)}\ \frac{1}{2}"),
    ("B", r"(B)\ \frac{1}{2}"),
    ("B", r"\textbf{(B) }12"),
    ("B", r"\textbf{(B) } 12"),
    (r"\text{(B)}", r"\text{(B) } 12"),
    ("12", r"12^{\mathrm{th}}\text{ grade}"),
    ("12", r"12^{\text{th}}"),
    ("12", r"12\text{th}"),
    ("12", "12th"),
    ("12", "12^{th}"),
    ("12", r"12^\text{th}"),
    ("3", "3^{rd}"),
    (r"12^{\mathrm{th}}\text{ grade}", "12"),
    (r"12^{\mathrm{th}}\text{ grade}", "12th"),
    (r"5\text{ miles north}", r"5\text{ miles}"),
    ("21", r"21^{\text{st}}\text{ century}"),
    ("2", r"2^{\textrm{nd}}"),
    (r"\text{June 20}", "June 20th"),
    (r"4:30\text{ p.m.}", r"4:30\text{ PM}"),
    (r"4:30\text{ PM}", "4:30 p.m."),
    ("4:30 p.m.", r"\text{4:30 PM}"),
    (r"5\text{ p.m.}", r"5:00\text{ p.m.}"),
    ("20", r"20\text{ profit}"),
    ("300", r"300\text{ BC}"),
    (r"20\%\text{ increase}", r"20\%"),
    ("6", r"2\left(3\right)"),
    ("7", r"7\text{ in the morning}"),
    (r"12\text{ noon}", "12"),
    (r"3\text{ steps to the left}", r"3\text{ steps}"),
    (r"300\text{ BC}", "300"),
    (r"300\text{ BC}", r"300\text{ BCE}"),
    (r"4:30\text{ p.m.}", r"4{:}30\text{ pm}"),
    (r"4:30\text{ p.m.}", "16:30"),
    (r"10:30\text{ a.m.}", "10:30"),
    ("BC", "BC"),
    (r"20\%\text{ increase}", r"20\%\text{ Increase}"),
]

UNEQUAL = [
    ("C", r"\text{(B) Plane}"),
    ("C", r"\text{(B) 5 or more}"),
    ("C", "B. Plane"),
    (r"\text{(B)}", r"\text{(C) B}"),
    (r"\text{(A)}", r"\text{(A) and (C)}"),
    ("B", "(B)+1"),
    ("B", "B-1"),
    ("A", "(A), (B)"),
    ("A", r"\text{(A) or (B)}"),
    ("A", "A. 5 or B. 6"),
    ("C", r"\text{(A) C}"),
    ("12", r"11^{\text{th}}"),
    ("5", r"5\text{ thousandth}"),
    (r"5\text{ miles north}", r"5\text{ miles south}"),
    ("12", "12^{t}"),
    ("12", "12^{t+h}"),
    (r"5^\circ\text{ north}", r"5^\circ\text{ south}"),
    (r"3\text{ km east}", r"3\text{ km west}"),
    (r"5\text{ a.m.}", r"5\text{ p.m.}"),
    (r"5\text{ p.m.}", r"5\text{ AM}"),
    (r"4:30\text{ p.m.}", r"4:30\text{ a.m.}"),
    (r"20\text{ loss}", r"20\text{ profit}"),
    (r"20\%\text{ increase}", r"20\%\text{ decrease}"),
    (r"300\text{ BC}", r"300\text{ AD}"),
    (r"7\text{ a.m.}", r"7\text{ in the evening}"),
    (r"12\text{ noon}", r"12\text{ midnight}"),
    (r"\$20\text{ gain}", r"\$20\text{ loss}"),
    (r"3\text{ steps to the left}", r"3\text{ steps to the right}"),
    (r"300\text{ BCE}", r"300\text{ CE}"),
    (r"4:30\text{ p.m.}", r"4:31\text{ PM}"),
    (r"12:30\text{ a.m.}", r"12:30\text{ p.m.}"),
    ("AD", "BC"),
]


def verdict(gold, answer):
    attempt = grade("math", rf"So it is $\boxed{{{answer}}}$.", {"answer": gold})
    assert attempt.reason is None
    return attempt.correct


@pytest.mark.parametrize(("gold", "answer"), EQUAL)
def test_equal_answers_are_right(gold, answer):
    assert verdict(gold, answer)


@pytest.mark.parametrize(("gold", "answer"), UNEQUAL)
def test_unequal_answers_are_wrong(gold, answer):
    assert not verdict(gold, answer)

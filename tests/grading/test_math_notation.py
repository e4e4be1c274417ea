"""Notation that math-verify lacks, or reads as another number."""

import pytest

from lm_eval_ext.grading import grade

EQUAL = [
    ("6", "2(3)"),
    ("6", "(2)(3)"),
    ("12", r"\frac{24}{2(1)}"),
    ("2e", r"2\mathrm{e}"),
    ("e^2", r"\mathrm{e}^2"),
    ("e^2", r"\mathrm{e}^{2}"),
    ("3+4i", r"3+4\mathrm{i}"),
    ("42", r"\boldsymbol{42}"),
    ("42", r"\bm{42}"),
    ("42", r"\underline{42}"),
    ("42", r"\textcolor{red}{42}"),
    ("42", r"\color{red}{42}"),
    ("42", r"{\color{red}42}"),
    ("42", r"\mathbf{42}"),
    (r"\frac12", r"\mathbf{\frac{1}{2}}"),
    (r"\frac12", r"\boldsymbol{\frac{1}{2}}"),
    (r"\frac12", r"\underline{\frac{1}{2}}"),
    (r"3\pmod5", r"x\equiv3\pmod5"),
    (r"3\pmod5", r"x \equiv 3 \pmod{5}"),
    (r"3\pmod5", r"3 \mod 5"),
    (r"3\pmod5", r"x\equiv 3 (\bmod 5)"),
    (r"3\pmod5", r"3\text{ (mod 5)}"),
    ("101_2", r"101_{\text{two}}"),
    ("13_7", r"13_{\text{seven}}"),
    (r"16\frac23", r"16.\overline6"),
    (r"16\frac{2}{3}", r"16.\overline{6}"),
    (r"16\frac{2}{3}", r"16.\bar{6}"),
    (r"\frac{50}{3}", r"16.\dot{6}"),
    (r"\frac{\pi}{2}", "pi/2"),
    (r"2\pi", "2pi"),
    (r"\frac12", r"\nicefrac12"),
    (r"\frac12", r"\sfrac{1}{2}"),
    (r"\frac12", r"{1 \over 2}"),
    ("12", "12 apples"),
    ("5", "5 cm"),
    (r"3\frac12", "3 1/2"),
    (r"x\equiv3\pmod5", r"3\pmod5"),
    (r"\text{mode}", "mode"),
    (r"\text{increasing}", "increasing"),
    ("24", "2(3)(4)"),
    ("-6", "-2(3)"),
    ("6", "2 (3)"),
    (r"\log_2 8", r"\log_2(8)"),
    ("3", r"\log_{2}(8)"),
    ("2x+2", "2(x+1)"),
    (r"e^{i\pi}", r"\mathrm{e}^{\mathrm{i}\pi}"),
    (r"\pi i", r"\pi\mathrm{i}"),
    ("5", r"5\mathrm{m}"),
    ("(1,2)", r"\boldsymbol{(1,2)}"),
    (r"\text{yes}", r"\underline{\text{yes}}"),
    (r"\text{Evelyn}", r"\underline{Evelyn}"),
    (r"2\pmod{7}", r"n \equiv 2 \mod 7"),
    (r"n\equiv2\pmod{7}", r"2 \pmod 7"),
    ("1011_2", r"1011_{\text{base two}}"),
    (r"\frac16", r"0.1\bar6"),
    (r"\frac17", r"0.\dot{1}4285\dot{7}"),
    (r"\pi", "pi"),
    (r"3\pi/4", "3pi/4"),
    (r"\pi r^2", "pi r^2"),
    (r"2\sqrt3", "2sqrt(3)"),
    (r"\frac{\sqrt2}{2}", "sqrt(2)/2"),
    (r"(-\infty,2)", "(-infinity, 2)"),
    (r"(-\infty,2)", "(-oo, 2)"),
    (r"x\le2", "x <= 2"),
    (r"\frac34", r"\nicefrac{3}{4}"),
    (r"\left\lfloor 2.5 \right\rfloor", "2"),
    ("9500", "9 500"),
    ("9500", "9 500."),
    ("1234567", "1 234 567"),
]

UNEQUAL = [
    ("42", r"\underline{43}"),
    ("42", r"\textcolor{red}{24}"),
    (r"3\pmod5", r"x\equiv2\pmod5"),
    (r"3\pmod5", r"x\equiv3\pmod7"),
    ("101_3", r"101_{\text{two}}"),
    ("10", r"10_{\text{two}}"),
    (r"\frac{\pi}{2}", "pi/3"),
    (r"\frac12", r"\nicefrac13"),
    ("2(3)", "5"),
    ("2", "3 1/2"),
    ("12", r"\text{(B)}\ 12"),
    ("8", "2(3)"),
    ("5", r"5\mathrm{e}"),
    ("2e", r"3\mathrm{e}"),
    ("3+4i", r"3-4\mathrm{i}"),
    ("42", r"\textcolor{blue}{4}2x"),
    (r"2\pmod{7}", r"2 \pmod 9"),
    ("1011_2", r"1011_{\text{three}}"),
    (r"16\frac23", r"16.\overline{7}"),
    (r"16\frac23", "16.6"),
    (r"2\sqrt3", "3sqrt(2)"),
    ("x<2", "x <= 2"),
    (r"\frac34", r"\nicefrac{4}{3}"),
    ("9500", "9 50"),
    ("9500", r"9 500 \text{ g bags}"),
    ("95", "9 500"),
    ("1234", "1, 234"),
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

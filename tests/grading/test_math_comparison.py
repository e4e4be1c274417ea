"""Numbers near zero, compared by their ratio."""

import pytest

from lm_eval_ext.grading import grade

EQUAL = [
    ("2^{-99}", r"\frac{1}{2^{99}}"),
    (r"\frac{1}{2004!}", r"\frac{1}{2004\cdot 2003!}"),
    (r"\sqrt{2}\cdot10^{-20}", r"\frac{\sqrt{8}}{2}\cdot10^{-20}"),
    ("10^{-7}", "0.0000001"),
    (r"\frac{1}{3000}", "0.000333"),
    ("e^{-50}", r"\frac{1}{e^{50}}"),
    (r"\sqrt{2}+\sqrt{3}", r"\sqrt{5+2\sqrt{6}}"),
    (r"\frac{1}{2004!}", r"\frac{2}{2\cdot2004!}"),
    (r"0.1\pi", r"\frac{\pi}{10}"),
    (r"10^{-9}\pi", r"\frac{\pi}{10^9}"),
    (r"\frac{1}{30000}", "0.000033"),
    (r"2^{-99}\text{ cm}", "2^{-99}"),
    ("1+i", r"\sqrt{2}e^{i\pi/4}"),
    ("3x", "3.0x"),
    (r"\frac{1}{e^{50}}", "e^{-50}"),
    ("3^{-100}", r"\frac{1}{3^{100}}"),
    (r"1.5\times10^{-8}", "0.000000015"),
    ("0.00001", "10^{-5}"),
]

UNEQUAL = [
    (r"\frac{1}{2004!}", r"\frac{1}{2003!}"),
    ("2^{-99}", "2^{-98}"),
    ("10^{-30}", "0"),
    ("0", "10^{-30}"),
    (r"\sqrt{2}\cdot10^{-20}", r"\sqrt{3}\cdot10^{-20}"),
    ("2^{-99}", "0.000001"),
    (r"1.5\times10^{-8}", r"2.5\times10^{-8}"),
    ("0.0000001", "0.0000002"),
    (r"\frac{1}{2^{98}}", "0"),
    (r"\frac{1}{10000000}", "0.0000002"),
    ("x+2^{-99}", "x+2^{-98}"),
    ("e^{-50}", "e^{-51}"),
    ("(2^{-99},1)", "(2^{-98},1)"),
    ("1+10^{-20}", "1"),
    (r"\sqrt{2}+10^{-20}", r"\sqrt{2}"),
    (r"\frac{1}{100000!}", r"\frac{1}{100001!}"),
    (r"10^{-9}\pi", r"10^{-8}\pi"),
    ("1-2^{-99}", "1-2^{-98}"),
    (r"1-\frac{1}{2004!}", "1"),
    ("0.0000001", "0"),
    ("10^{-20}(1+i)", "10^{-20}(1-i)"),
    ("3^{-100}", "3^{-101}"),
    (r"\frac{1}{50!}", r"\frac{1}{51!}"),
    (r"\frac{1}{\binom{2000}{1000}}", r"\frac{1}{\binom{2000}{999}}"),
    ("10^{-40}x", "10^{-41}x"),
    (r"1.5\times10^{-8}", "0.00000015"),
    ("0.00001", "0.00002"),
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

"""Which boxes are one answer, and what stands around a box and belongs to it."""

import pytest

from lm_eval_ext.grading import Attempt, grade
from lm_eval_ext.grading.gsm8k import extract as extract_number
from lm_eval_ext.grading.math_extraction import extract

ONE_ANSWER = {
    r"$\boxed{-2}$ and $\boxed{1}$": "-2, 1",
    r"\boxed{2}, \boxed{3}, \boxed{5}": "2, 3, 5",
    r"$x=\boxed{3}$ and $y=\boxed{4}$": "3, 4",
    r"$y=\boxed{4}$ and $x=\boxed{3}$": "3, 4",
    r"$x=\boxed{2}$ and $y=\boxed{2}$": "2, 2",
    r"$x_1=\boxed{2}$, $x_2=\boxed{5}$": "2, 5",
    r"x equals \boxed{3} and y equals \boxed{4}": "3, 4",
    r"Therefore $x = \boxed{1}$ or $x = \boxed{2}$.": "1, 2",
    r"The roots are $\boxed{1}$, $\boxed{2}$, and $\boxed{3}$.": "1, 2, 3",
    r"The first root is $\boxed{3}$ and the second root is $\boxed{4}$.": "3, 4",
    r"$\boxed{3}$ apples and $\boxed{4}$ pears": "3, 4",
    r"\boxed{2}; \boxed{-2}": "2, -2",
    r"$\boxed2$ and $\boxed3$": "2, 3",
    r"$(\boxed{3}, \boxed{4})$": "3, 4",
    r"$a=-\boxed{2}$ and $b=\boxed{3}$": "-2, 3",
    r"\[x=\boxed{3},\quad y=\boxed{4}\]": "3, 4",
    "$$\\boxed{2}$$\n\nand\n\n$$\\boxed{3}$$": "2, 3",
    "\\begin{align*} x &= \\boxed{3} \\\\ y &= \\boxed{4} \\end{align*}": "3, 4",
    "- $\\boxed{2}$\n- $\\boxed{3}$": "2, 3",
    "1. $x=\\boxed{2}$\n2. $y=\\boxed{3}$": "2, 3",
    "$x=\\boxed{2}$\n$y=\\boxed{3}$": "2, 3",
    r"It is $\boxed{9}$. No: the roots are $\boxed{2}$ and $\boxed{3}$.": "2, 3",
    r"$\sin x=\boxed{\frac35}$ and $\cos x=\boxed{\frac45}$": r"\frac35, \frac45",
    r"$a+b=\boxed{5}$ and $a-b=\boxed{1}$": "5, 1",
    "\\[a+b &= 2+4 = \\boxed{6}, \\\\\na-b &= 2-4 = \\boxed{-2}.\\]": "6, -2",
    r"$xy=\boxed{6}$, $x+y=\boxed{5}$": "6, 5",
    r"The angles are $\boxed{30^\circ}$ and $\boxed{60^\circ}$": r"30^\circ, 60^\circ",
}
STANDS_ALONE = {
    # corrections and repetitions
    r"\boxed{5}. Wrong; \boxed{7}": "7",
    r"\boxed{5}, wait, \boxed{7}": "7",
    r"\boxed{5} or rather \boxed{7}": "7",
    r"$n=\boxed{-5}$ (rejected) or $n=\boxed{7}$": "7",
    r"$\boxed{-5}$, which we discard, and $\boxed{7}$": "7",
    r"$\boxed{5}$, but it should be $\boxed{7}$": "7",
    "\\boxed{5}\n\n\\boxed{7}": "7",
    "$x=\\boxed{5}$\n$x=\\boxed{7}$": "7",
    "$x=\\boxed{5}$\n$2x=\\boxed{10}$": "10",
    r"It is $\boxed{5}$. Let me check. It is $\boxed{5}$.": "5",
    r"$\boxed{2}$ and $\boxed{3}$ again: $\boxed{(2,3)}$": "(2,3)",
    r"$\boxed{2}$ hours, or $\boxed{120}$ minutes": "120",
    # equal forms
    r"$\boxed{\frac{25}{13}} = \boxed{1\frac{12}{13}}$": r"1\frac{12}{13}",
    r"$\boxed{1\frac{12}{13}}$ or $\boxed{\frac{25}{13}}$": r"\frac{25}{13}",
    r"$\boxed{x+11}$ or $\boxed{11+x}$": "11+x",
    r"$\boxed{\frac12}$, or $\boxed{0.5}$": "0.5",
    # later steps
    r"$x=\boxed3$, so $x+4=\boxed7$": "7",
    r"$x=\boxed{3}$ and $x+4=\boxed{7}$": "7",
    r"$a=\boxed{3}$, $b=\boxed{4}$, and $ab=\boxed{12}$": "12",
    r"$\frac{m}{n}=\boxed{\frac56}$ and $m+n=\boxed{11}$": "11",
    r"$m/n=\boxed{5/6}$, $m+n=\boxed{11}$": "11",
    r"The probability is $\boxed{\frac56}$ and $m+n=\boxed{11}$": "11",
    r"The area is $\boxed{7\sqrt3}$, and $a + b = \boxed{10}$": "10",
    r"$x=\boxed{3}$, which gives $y=\boxed{4}$": "4",
    r"$x=\boxed{3}$ and $y=\boxed{4}$, so the answer is $\boxed{(3,4)}$": "(3,4)",
    r"$5+3=\boxed{8}$ and $8\cdot2=\boxed{16}$": "16",
    r"$\boxed{3}$ $\Rightarrow$ $\boxed{4}$": "4",
    r"\boxed{2} and \boxed{3}. The sum is \boxed{5}": "5",
    "1. $3\\cdot4=\\boxed{12}$\n2. $12+5=\\boxed{17}$": "17",
    "Step 1: \\boxed{5}\nStep 2: \\boxed{7}": "7",
    "\\begin{align*} x &= \\boxed{3} \\\\ x+4 &= \\boxed{7} \\end{align*}": "7",
    "\\begin{align*} x &= \\boxed{6/2} \\\\ &= \\boxed{3} \\end{align*}": "3",
    # parts of one formula
    r"$\boxed{1} < \boxed{2}$": "2",
    r"$\frac{\boxed{1}}{\boxed{2}}$": "2",
    r"$\boxed{\boxed{7}}$": "7",
}
BELONGS = {
    r"$a=-\boxed{256}$": "-256",
    "a = -\\boxed{256}": "-256",
    "\\[\n-\\boxed{5}\n\\]": "-5",
    "The answer is -\\boxed{6}.": "-6",
    "The answer is -$\\boxed{6}$.": "-6",
    "The answer is minus $\\boxed{6}$.": "-6",
    r"$-\boxed{\frac12}$": r"-\frac12",
    r"$-\boxed{x+1}$": "-(x+1)",
    r"$-\boxed{-3}$": "-(-3)",
    r"$-\boxed{1,000}$": "-1,000",
    r"$-\$\boxed{5}$": "-5",
    r"$-\boxed{15}x^3$": "-15",
    r"$x=\pm\boxed{5}$": r"\pm5",
    r"$\boxed{3}\sqrt2$": r"3\sqrt2",
    r"$\boxed{2}\sqrt{3}+1$": r"2\sqrt{3}+1",
    r"$5\boxed{\sqrt3}$": r"5\sqrt3",
    r"$2\pi\boxed{\sqrt3}$": r"2\pi\sqrt3",
    r"$\boxed{2}\pi$": r"2\pi",
    r"$\boxed{1}/2$": "1/2",
    r"$\boxed{1}\frac12$": r"1\frac12",
    r"$\boxed{3}\times10^5$": r"3\times10^5",
    r"$\boxed{2}^{10}$": "2^{10}",
    r"$\boxed{x+1}^2$": "(x+1)^2",
    r"$\frac32 = -\frac12 + \boxed{1}$.": r"-\frac12 +1",
    r"$\boxed{5}\text{ or more}$": r"5\text{ or more}",
    r"$\boxed{5}$ eggs or more": r"5\text{ eggs or more}",
    r"\boxed{3} million": r"3\text{ million}",
    r"$\boxed{3}$ thousand dollars": r"3\text{ thousand}",
    r"$\boxed{3}$ and a half": r"3\text{ and a half}",
}
DOES_NOT_BELONG = {
    r"- \boxed{6}": "6",
    "So:\n\n- $\\boxed{6}$": "6",
    "> - \\boxed{6}": "6",
    "The answer is - \\boxed{6}.": "6",
    r"$x=6$ - \boxed{6}": "6",
    r"$10-4=\boxed{6}$": "6",
    r"$10=7+\boxed{3}$": "3",
    r"$7+\boxed{3}=10$": "3",
    r"$x=5 \boxed{5}$": "5",
    r"$x^2+6x+\boxed{9}$": "9",
    r"$x>\boxed{5}$": "5",
    r"$x\in\boxed{(1,2)}$": "(1,2)",
    r"$x\equiv\boxed{9}\pmod{13}$": "9",
    r"$=\boxed{-15}x^3$": "-15",
    r"$\boxed{7}\cdot3=21$": "7",
    r"$\boxed{25}\frac{\text{miles}}{\text{day}}$": "25",
    r"\boxed{\text{(B)}} $3(1+r/10)^x=7$": r"\text{(B)}",
    r"$\boxed{5}\text{ cm}$": "5",
    r"$\boxed{30}^\circ$": "30",
    r"$\boxed{50}\%$": "50",
    r"$\boxed{5}$!": "5",
    r"$\boxed{5}$ - 2 of them are red": "5",
    r"$\boxed{5}$ more than Tom": "5",
    r"$\boxed{5}$ positive integers less than $100$": "5",
    r"$\boxed{5}$, or more precisely $5.02$": "5",
    r"$\boxed{5}$ hundred-dollar bills": "5",
}


@pytest.mark.parametrize(
    ("completion", "answer"),
    [*ONE_ANSWER.items(), *STANDS_ALONE.items(), *BELONGS.items(), *DOES_NOT_BELONG.items()],
)
def test_what_the_boxes_say(completion, answer):
    assert extract(completion) == answer


RIGHT = [
    (r"$\boxed{-2}$ and $\boxed{1}$", r"\{1,-2\}"),
    (r"$x=\boxed{3}$ and $y=\boxed{4}$", "(3,4)"),
    (r"$y=\boxed{4}$ and $x=\boxed{3}$", "(3,4)"),
    (r"$x=\boxed{2}$ and $y=\boxed{2}$", "(2,2)"),
    (r"$\boxed{x=3}$ and $\boxed{y=4}$", "(3,4)"),
    (r"$p=\boxed{4}$ and $q=\boxed{3}$", "3, 4"),
    (r"\boxed{2}, \boxed{3}, \boxed{5}", "2,3,5"),
    (r"$\boxed{2\sqrt2}$ or $\boxed{\sqrt8}$", r"2\sqrt{2}"),
    (r"$\boxed{\frac13}$, or $\boxed{0.333333}$", r"\frac13"),
    (r"$x=\pm\boxed{5}$", "-5, 5"),
    (r"$5\boxed{\sqrt3}$", r"\sqrt{75}"),
    (r"\boxed{3} million", "3000000"),
    (r"$\boxed{3}\text{ million}$ people", "3,000,000"),
]
WRONG = [
    (r"$\boxed{-2}$ and $\boxed{1}$", "1"),
    (r"$\boxed{2}$ and $\boxed{3}$", "2, 3, 5"),
    (r"$x=\boxed{4}$ and $y=\boxed{3}$", "(3,4)"),
    (r"$\boxed{4}$ and $\boxed{3}$", "(3,4)"),
    (r"$\boxed{2\sqrt2}$ or $\boxed{\sqrt7}$", r"2\sqrt{2}"),
    (r"$a=-\boxed{256}$", "256"),
    (r"$x=\pm\boxed{5}$", "5"),
    (r"$\boxed{3}\sqrt2$", "3"),
    (r"$\boxed{1}/2$", "1"),
    (r"$\boxed{5}\text{ or more}$", "5"),
    (r"\boxed{3} million", "3"),
]


@pytest.mark.parametrize(
    ("completion", "gold", "correct"),
    [(*pair, True) for pair in RIGHT] + [(*pair, False) for pair in WRONG],
)
def test_verdicts(completion, gold, correct, math_pool):
    assert grade("math", completion, {"answer": gold}).correct is correct


NUMBERS = {
    r"\boxed{3} apples and \boxed{4} pears": None,
    r"Tom has \boxed{3}, Ann \boxed{4}. The answer is 7.": None,
    r"\boxed{2}, \boxed{3}": None,
    "- Tom: \\boxed{3}\n- Ann: \\boxed{4}": None,
    r"$x=\boxed{3}$ and $y=\boxed{4}$": None,
    r"\boxed{3} million": None,
    r"\boxed{5} or more": None,
    r"$\boxed{5}\sqrt2$": None,
    r"\boxed{1}. Then \boxed{3} dozen": None,
    r"$-\boxed{5}$": "-5",
    r"$\boxed{1}/2$": "1/2",
    r"- \boxed{6}": "6",
    r"\boxed{18} or \boxed{18.0}": "18",
    r"\boxed{18} dollars, and again \boxed{18}": "18",
    r"\boxed{18}, so the total is \boxed{19}": "19",
    r"$48/2=\boxed{24}$ in May, and $48+24=\boxed{72}$ in both": "72",
    r"He sold \boxed{48} and then \boxed{24}, for a total of \boxed{72}": "72",
    "48/2 = \\boxed{24}\n48+24 = \\boxed{72}": "72",
    r"\boxed{3}. Wrong, it is \boxed{4}": "4",
    r"$\boxed{2}$ hours, or $\boxed{120}$ minutes": "120",
    r"\boxed{5} more than before": "5",
}


@pytest.mark.parametrize(("completion", "number"), NUMBERS.items())
def test_numbers(completion, number):
    value = extract_number(completion)
    assert (None if value is None else str(value)) == number


def test_several_numbers_are_invalid():
    doc = {"answer": "#### 4"}
    assert grade("gsm8k", r"\boxed{3} and \boxed{4}", doc) == Attempt(None, False)
    assert grade("gsm8k", r"\boxed{3} and \boxed{4} #### 4", doc).correct


MONEY = {
    "Profit: $93 - $15 = $78.": None,
    "We pay $5, then $10. Total: $15.": None,
    "The total is $15 + $20 = $35": None,
    "It costs $5 and she pays $10, so $x$ is left": "x",
    "It costs $3 so $x = 5$.": "x = 5",
    "from $5 per hour for $x$ hours": "x",
    "Hence $5$.": "5",
    "$3x + 5 $ and so on": "3x + 5",
    "so the $2$nd is $3$": "3",
    r"It costs \$5, so $y=2$": "y=2",
    "$5 + 3$": "5 + 3",
}


@pytest.mark.parametrize(("completion", "answer"), MONEY.items())
def test_amounts_of_money_are_no_formulas(completion, answer):
    assert extract(completion) == answer

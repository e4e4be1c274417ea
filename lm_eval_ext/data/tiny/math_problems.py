r"""Short algebra and number problems, in the record shape of MATH.

Every subject of MATH has two or three kinds of problem; a solution takes a few lines of LaTeX and
ends with ``\boxed{...}``. Answers are integers, fractions, polynomials, lists and pairs, so that
grading them needs more than string comparison.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from fractions import Fraction

LEVELS = (1, 2, 3, 4, 5)

# Problem text, the lines that lead to the answer, the answer in LaTeX.
Parts = tuple[str, list[str], str]


def latex_fraction(value: Fraction | int) -> str:
    r"""Write a rational number in LaTeX.

    Examples
    --------
    >>> latex_fraction(Fraction(-6, 4)), latex_fraction(Fraction(4, 2))
    ('-\\frac{3}{2}', '2')
    """
    value = Fraction(value)
    if value.denominator == 1:
        return str(value.numerator)
    sign = "-" if value < 0 else ""
    return f"{sign}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


def latex_polynomial(coefficients: list[int]) -> str:
    """Write a polynomial in x, highest power first.

    Examples
    --------
    >>> latex_polynomial([2, -1, 0, 7])
    '2x^3-x^2+7'
    """
    text = ""
    for power, value in zip(range(len(coefficients) - 1, -1, -1), coefficients, strict=True):
        if value == 0:
            continue
        size = "" if abs(value) == 1 and power else str(abs(value))
        variable = {0: "", 1: "x"}.get(power, f"x^{power}")
        text += ("-" if value < 0 else "+" if text else "") + size + variable
    return text or "0"


def _nonzero(rng: random.Random, bound: int) -> int:
    return rng.choice([-1, 1]) * rng.randint(1, bound)


def _signed(value: int) -> str:
    """Write a number as it stands inside a product: in parentheses when negative."""
    return f"({value})" if value < 0 else str(value)


def _linear(rng: random.Random, level: int) -> Parts:
    a, c = rng.randint(2, 3 + 3 * level), 0
    x = Fraction(_nonzero(rng, 4 + 4 * level))
    if level >= 3:
        x = Fraction(_nonzero(rng, 20), a)
        c = rng.choice([k for k in range(1, 9) if k != a]) if level >= 4 else 0
    b = _nonzero(rng, 10 * level)
    if c:
        x = Fraction(_nonzero(rng, 20), a - c)
    right = (a - c) * x + b
    left_text = latex_polynomial([a, b])
    right_text = latex_polynomial([c, int(right)]) if c else str(right)
    moved = int(right) - b
    lines = [f"${latex_polynomial([a - c, 0])}={right}{'-' if b > 0 else '+'}{abs(b)}={moved}$"]
    answer = latex_fraction(x)
    return f"Solve for $x$: ${left_text}={right_text}$.", [*lines, f"$x={moved}/{a - c}$"], answer


def _evaluate(rng: random.Random, level: int) -> Parts:
    a, b, c = (_nonzero(rng, 2 + 2 * level) for _ in range(3))
    x = _nonzero(rng, 2 + 2 * level)
    terms = [a * x * x, b * x, c]
    lines = [
        f"${a}*{x * x}={terms[0]}$",
        f"${b}*{_signed(x)}={terms[1]}$",
        f"${terms[0]}{terms[1]:+d}={terms[0] + terms[1]}$",
        f"${terms[0] + terms[1]}{c:+d}={sum(terms)}$",
    ]
    return f"If $f(x)={latex_polynomial([a, b, c])}$, what is $f({x})$?", lines, str(sum(terms))


def _roots(rng: random.Random, level: int) -> Parts:
    low, high = sorted(rng.sample([k for k in range(-3 - 3 * level, 4 + 3 * level) if k], 2))
    poly = latex_polynomial([1, -low - high, low * high])
    factors = [latex_polynomial([1, -low]), latex_polynomial([1, -high])]
    lines = [f"${poly}=({factors[0]})({factors[1]})$"]
    return f"List the roots of ${poly}$, smaller one first.", lines, f"{low},{high}"


def _expand(rng: random.Random, level: int) -> Parts:
    a = rng.randint(1, 1 if level < 3 else level + 1)
    c = rng.randint(1, 1 if level < 4 else level + 1)
    b, d = _nonzero(rng, 2 + 2 * level), _nonzero(rng, 2 + 2 * level)
    middle = [a * d, b * c]
    lines = [f"${middle[0]}{middle[1]:+d}={sum(middle)}$", f"${b}*{_signed(d)}={b * d}$"]
    text = f"Expand $({latex_polynomial([a, b])})({latex_polynomial([c, d])})$."
    return text, lines, latex_polynomial([a * c, sum(middle), b * d])


def _proper(rng: random.Random, bound: int) -> Fraction:
    """Draw a positive fraction that is not a whole number."""
    bottom = rng.randint(2, bound)
    top = rng.choice([k for k in range(1, bound + 1) if k % bottom])
    return Fraction(top, bottom)


def _fractions(rng: random.Random, level: int) -> Parts:
    bound = 3 + 2 * level
    first, second = _proper(rng, bound), _proper(rng, bound)
    one, two = latex_fraction(first), latex_fraction(second)
    (p, q), (r, s) = first.as_integer_ratio(), second.as_integer_ratio()
    sign = rng.choice("+-" if level > 1 else "+*")
    if sign == "*":
        lines, value = [f"$({p}*{r})/({q}*{s})={p * r}/{q * s}$"], first * second
        return f"Compute ${one}\\cdot{two}$.", lines, latex_fraction(value)
    base = math.lcm(q, s)
    left, right = p * base // q, r * base // s
    value = first + second if sign == "+" else first - second
    top = left + right if sign == "+" else left - right
    lines = [f"$({left}{sign}{right})/{base}={top}/{base}$"]
    return f"Compute ${one}{sign}{two}$.", lines, latex_fraction(value)


def _arithmetic(rng: random.Random, level: int) -> Parts:
    a, b, c, d = (rng.randint(2, 4 + 4 * level) for _ in range(4))
    sign = rng.choice("+-")
    inner = c + d if sign == "+" else c - d
    product = b * inner
    lines = [
        f"${c}{sign}{d}={inner}$",
        f"${b}*{_signed(inner)}={product}$",
        f"${a}-{_signed(product)}={a - product}$",
    ]
    return f"Compute ${a}-{b}({c}{sign}{d})$.", lines, str(a - product)


def _common(rng: random.Random, level: int) -> Parts:
    shared = rng.randint(2, 4 + 3 * level)
    a, b = (shared * rng.randint(2, 3 + 2 * level) for _ in range(2))
    while a == b:
        b = shared * rng.randint(2, 3 + 2 * level)
    lines, (high, low) = [], (max(a, b), min(a, b))
    while low:
        lines.append(f"${high}={high // low}*{low}+{high % low}$")
        high, low = low, high % low
    if rng.random() < 0.6:
        return f"What is the greatest common divisor of {a} and {b}?", lines, str(high)
    lines += [f"${a}/{high}={a // high}$", f"${a // high}*{b}={a * b // high}$"]
    text = f"What is the least common multiple of {a} and {b}?"
    return text, lines, str(a * b // high)


def _remainder(rng: random.Random, level: int) -> Parts:
    divisor = rng.randint(3, 5 + 2 * level)
    number = rng.randint(20, [100, 300, 1000, 3000, 9999][level - 1])
    quotient, rest = divmod(number, divisor)
    lines = [f"${quotient}*{divisor}={quotient * divisor}$", f"${number}-{quotient * divisor}$"]
    return f"What is the remainder when {number} is divided by {divisor}?", lines, str(rest)


def _marbles(rng: random.Random, level: int) -> Parts:
    red, blue, green = (rng.randint(1, 3 + 2 * level) for _ in range(3))
    total = red + blue + green
    color, count = rng.choice([("red", red), ("blue", blue), ("green", green)])
    text = f"A bag has {red} red, {blue} blue and {green} green marbles. "
    lines = [f"${red}+{blue}+{green}={total}$"]
    if level < 4:
        text += f"One is drawn. What is the probability that it is {color}?"
        return text, [*lines, f"${count}/{total}$"], latex_fraction(Fraction(count, total))
    text += f"One is drawn. What is the probability that it is not {color}?"
    lines += [f"${total}-{count}={total - count}$", f"${total - count}/{total}$"]
    return text, lines, latex_fraction(Fraction(total - count, total))


def _committees(rng: random.Random, level: int) -> Parts:
    people = rng.randint(3 + level, 6 + 4 * level)
    club = f"A club has {people} people."
    if rng.random() < 0.4:
        ways = people * (people - 1)
        text = f"{club} In how many ways can a president and a vice president be chosen?"
        return text, [f"${people}*{people - 1}={ways}$"], str(ways)
    pairs = people * (people - 1)
    text = f"{club} In how many ways can two of them be chosen?"
    return text, [f"${people}*{people - 1}={pairs}$", f"${pairs}/2={pairs // 2}$"], str(pairs // 2)


def _shapes(rng: random.Random, level: int) -> Parts:
    a, b = rng.randint(2, 6 + 6 * level), rng.randint(2, 4 + 3 * level)
    kind = rng.choice(["triangle", "rectangle", "angle"])
    if kind == "triangle":
        text = f"What is the area of a triangle with base {a} and height {b}?"
        return text, [f"${a}*{b}={a * b}$", f"${a * b}/2$"], latex_fraction(Fraction(a * b, 2))
    if kind == "rectangle":
        half = a + b
        text = f"A rectangle has perimeter {2 * half} and one side {a}. What is its area?"
        lines = [f"${2 * half}/2={half}$", f"${half}-{a}={b}$", f"${a}*{b}={a * b}$"]
        return text, lines, str(a * b)
    one, two = rng.randint(10, 85), rng.randint(10, 85)
    text = f"Two angles of a triangle are {one} and {two} degrees. What is the third, in degrees?"
    return text, [f"${one}+{two}={one + two}$", f"$180-{one + two}$"], str(180 - one - two)


def _midpoint(rng: random.Random, level: int) -> Parts:
    bound = 4 + 4 * level
    p, q, r, s = (rng.randint(-bound, bound) for _ in range(4))
    lines = [f"$({p}{r:+d})/2={p + r}/2$", f"$({q}{s:+d})/2={q + s}/2$"]
    x, y = latex_fraction(Fraction(p + r, 2)), latex_fraction(Fraction(q + s, 2))
    return f"What is the midpoint of $({p},{q})$ and $({r},{s})$?", lines, f"({x},{y})"


def _vectors(rng: random.Random, level: int) -> Parts:
    bound = 4 + 3 * level
    p, q, r, s = (rng.randint(-bound, bound) for _ in range(4))
    if rng.random() < 0.5:
        k = rng.randint(2, 2 + level)
        lines = [f"${k}*{_signed(r)}={k * r}$", f"${p}{k * r:+d}={p + k * r}$"]
        lines += [f"${k}*{_signed(s)}={k * s}$", f"${q}{k * s:+d}={q + k * s}$"]
        return f"Compute $({p},{q})+{k}({r},{s})$.", lines, f"({p + k * r},{q + k * s})"
    lines = [f"${p}*{_signed(r)}={p * r}$", f"${q}*{_signed(s)}={q * s}$"]
    lines.append(f"${p * r}{q * s:+d}={p * r + q * s}$")
    return f"What is the dot product of $({p},{q})$ and $({r},{s})$?", lines, str(p * r + q * s)


SUBJECTS: dict[str, tuple[Callable[[random.Random, int], Parts], ...]] = {
    "Algebra": (_linear, _evaluate),
    "Counting & Probability": (_marbles, _committees),
    "Geometry": (_shapes, _midpoint),
    "Intermediate Algebra": (_roots, _expand),
    "Number Theory": (_common, _remainder),
    "Prealgebra": (_fractions, _arithmetic),
    "Precalculus": (_vectors,),
}


def math_problem(rng: random.Random, level: int) -> dict[str, str | int]:
    r"""Write one short mathematics problem.

    Parameters
    ----------
    level : int
        Difficulty, 1 to 5: larger numbers, and fractions or unknowns on both sides from 3 on.

    Returns
    -------
    dict
        ``problem``, ``solution`` (ending in ``\boxed{answer}``), ``answer``, ``level``
        ("Level 3") and ``type`` (the subject).

    Raises
    ------
    ValueError
        If ``level`` is outside 1..5.
    """
    if level not in LEVELS:
        raise ValueError(f"level={level}: must be one of 1, 2, 3, 4, 5")
    subject = rng.choice(list(SUBJECTS))
    problem, lines, answer = rng.choice(SUBJECTS[subject])(rng, level)
    return {
        "problem": problem,
        "solution": "\n".join([*lines, f"$\\boxed{{{answer}}}$"]),
        "answer": answer,
        "level": f"Level {level}",
        "type": subject,
    }

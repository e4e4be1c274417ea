"""Every kind of mathematics problem is solved again with sympy, from its text."""

import random
import re
from math import comb

import pytest
import sympy

from lm_eval_ext.data.tiny.math_problems import LEVELS, SUBJECTS, math_problem

X = sympy.Symbol("x")


def to_sympy(latex: str):
    text = re.sub(r"\\frac\{(-?\d+)\}\{(\d+)\}", r"(Integer(\1)/\2)", latex)
    text = text.replace(r"\cdot", "*").replace("^", "**")
    text = re.sub(r"(?<=[\dx)])(?=[x(])(?<!Integer)", "*", text)
    return sympy.sympify(text.replace("Integer*", "Integer"), locals={"x": X})


def integers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"-?\d+", text)]


def math_spans(text: str) -> list[str]:
    return re.findall(r"\$(.*?)\$", text)


def solve_linear(text):
    left, right = math_spans(text)[1].split("=")
    (root,) = sympy.solve(to_sympy(left) - to_sympy(right), X)
    return root


def solve_roots(text):
    return tuple(sorted(sympy.solve(to_sympy(math_spans(text)[0]), X)))


def solve_value(text):
    rule, point = math_spans(text)
    return to_sympy(rule.removeprefix("f(x)=")).subs(X, integers(point)[0])


def solve_marbles(text):
    counts = {color: int(n) for n, color in re.findall(r"(\d+) (red|blue|green)", text)}
    color = re.search(r"it is (?:not )?(\w+)\?", text).group(1)
    share = sympy.Rational(counts[color], sum(counts.values()))
    return 1 - share if "it is not" in text else share


def solve_rectangle(text):
    perimeter, side = integers(text)
    return (sympy.Rational(perimeter, 2) - side) * side


def solve_midpoint(text):
    p, q, r, s = integers(text)
    return (sympy.Rational(p + r, 2), sympy.Rational(q + s, 2))


def solve_vectors(text):
    p, q, k, r, s = integers(text)
    return (p + k * r, q + k * s)


SOLVERS = {
    r"Solve for": solve_linear,
    r"List the roots": solve_roots,
    r"If \$f\(x\)": solve_value,
    r"Expand": lambda t: sympy.expand(to_sympy(math_spans(t)[0])),
    r"Compute \$\(-?\d+,": solve_vectors,
    r"Compute": lambda t: to_sympy(math_spans(t)[0]),
    r".*greatest common divisor": lambda t: sympy.gcd(*integers(t)),
    r".*least common multiple": lambda t: sympy.lcm(*integers(t)),
    r".*remainder": lambda t: integers(t)[0] % integers(t)[1],
    r"A bag": solve_marbles,
    r".*president": lambda t: integers(t)[0] * (integers(t)[0] - 1),
    r"A club": lambda t: comb(integers(t)[0], 2),
    r".*area of a triangle": lambda t: sympy.Rational(integers(t)[0] * integers(t)[1], 2),
    r"A rectangle": solve_rectangle,
    r"Two angles": lambda t: 180 - sum(integers(t)),
    r".*midpoint": solve_midpoint,
    r".*dot product": lambda t: sum(
        a * b for a, b in zip(integers(t)[:2], integers(t)[2:], strict=True)
    ),
}


def solve(problem: str):
    pattern = next(p for p in SOLVERS if re.match(p, problem))
    return pattern, SOLVERS[pattern](problem)


@pytest.mark.parametrize("level", LEVELS)
def test_answer_follows_from_the_text(level):
    rng = random.Random(level)
    met = set()
    for _ in range(150):
        record = math_problem(rng, level)
        pattern, expected = solve(record["problem"])
        met.add(pattern)
        answer = to_sympy(record["answer"])
        if isinstance(expected, tuple):
            assert tuple(answer) == expected, record
        else:
            assert sympy.expand(answer - expected) == 0, record
    assert met == set(SOLVERS)


def test_solution_ends_in_the_boxed_answer_and_its_steps_hold():
    rng = random.Random(0)
    checked = 0
    for _ in range(300):
        record = math_problem(rng, rng.choice(LEVELS))
        *steps, last = record["solution"].split("\n")
        assert last == f"$\\boxed{{{record['answer']}}}$"
        for step in steps:
            sides = step.strip("$").split("=")
            if len(sides) == 2 and not re.match(r"-?x$", sides[0]):
                assert sympy.expand(to_sympy(sides[0]) - to_sympy(sides[1])) == 0 or "x" in step
                checked += 1
    assert checked > 300


def test_answers_are_of_many_kinds_and_in_lowest_terms():
    rng = random.Random(1)
    records = [math_problem(rng, rng.choice(LEVELS)) for _ in range(1500)]
    answers = [record["answer"] for record in records]
    for kind in (r"-\d+$", r"\\frac", r"-\\frac", r"\(.*,.*\)", r"-?\d+,-?\d+$", r".*x\^2"):
        assert any(re.match(kind, answer) for answer in answers), kind
    for top, bottom in re.findall(r"\\frac\{(\d+)\}\{(\d+)\}", " ".join(answers)):
        assert sympy.gcd(int(top), int(bottom)) == 1
        assert int(bottom) > 1
    assert {record["type"] for record in records} == set(SUBJECTS)


@pytest.mark.parametrize("level", [0, 6])
def test_out_of_range_is_refused(level):
    with pytest.raises(ValueError, match=f"level={level}"):
        math_problem(random.Random(0), level)

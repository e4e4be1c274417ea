"""Small Python functions described in words, in the record shape of MBPP.

Three kinds of function (on a list of numbers, on one number, on a string). A hard variant leaves
a constant out of the description, so that it has to be read off the three asserts.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

LEVELS = (1, 2, 3, 4, 5)


class _Clause(NamedTuple):
    """One piece of a function: its words and its expression."""

    words: str
    code: str


class _Program(NamedTuple):
    """A described function and how to draw an argument for it."""

    text: str
    name: str
    parameter: str
    body: str
    draw: Callable[[random.Random], Any]


def _numbers(rng: random.Random) -> list[int]:
    return [rng.randint(0, 20) for _ in range(rng.randint(2, 5))]


def _number(rng: random.Random) -> int:
    return rng.randint(0, 30)


def _word(rng: random.Random) -> str:
    return "".join(rng.choice("abcdeo") for _ in range(rng.randint(2, 5)))


def _constant(rng: random.Random, hidden: bool, low: int, high: int) -> tuple[int, str]:
    """Draw a constant and its words: its digits, or "a fixed number" when hidden."""
    value = rng.randint(low, high)
    return value, "a fixed number" if hidden else str(value)


def _element(rng: random.Random, hidden: bool) -> _Clause:
    """Draw what is done to each number, called x in the code."""
    kind = rng.choice(["plus", "minus", "times", "square"])
    if kind == "square":
        return _Clause("the square of each number", "x*x")
    value, words = _constant(rng, hidden, 2, 12)
    if kind == "plus":
        return _Clause(f"each number plus {words}", f"x+{value}")
    if kind == "minus":
        return _Clause(f"each number minus {words}", f"x-{value}")
    return _Clause(f"each number times {words}", f"x*{value}")


def _condition(rng: random.Random, hidden: bool) -> _Clause:
    """Draw which numbers are taken, as a clause on x."""
    kind = rng.choice(["even", "odd", "greater", "smaller", "multiple"])
    if kind in ("even", "odd"):
        return _Clause(f"that is {kind}", f"x%2=={int(kind == 'odd')}")
    if kind == "multiple":
        value, words = _constant(rng, hidden, 3, 7)
        return _Clause(f"that is a multiple of {words}", f"x%{value}==0")
    value, words = _constant(rng, hidden, 3, 17)
    return _Clause(f"that is {kind} than {words}", f"x{'>' if kind == 'greater' else '<'}{value}")


_LIST_RESULTS = {
    "the list of": "[{}]",
    "the sum of": "sum({})",
    "the sorted list of": "sorted({})",
    "the reversed list of": "[{}][::-1]",
    "the largest of": "max([0]+[{}])",
    "the number of different values of": "len(set({}))",
}


def _list_program(rng: random.Random, level: int) -> _Program:
    hide_element, hide_condition = level >= 3 and rng.random() < 0.6, level >= 5
    element = _Clause("each number", "x") if level == 1 else _element(rng, hide_element)
    result = rng.choice(list(_LIST_RESULTS))
    if level in (1, 2, 4, 5):
        condition = _condition(rng, hide_condition)
        inner = f"{element.code} for x in a if {condition.code}"
        text = f"return {result} {element.words} {condition.words}, for a list of numbers."
    else:
        inner = f"{element.code} for x in a"
        text = f"return {result} {element.words}, for a list of numbers."
    body = f"return {_LIST_RESULTS[result].format(inner)}"
    return _Program(text, rng.choice(["pick", "work", "scan"]), "a", body, _numbers)


_SIGNS = {"add": "+", "subtract": "-", "multiply": "*"}


def _step(rng: random.Random, hidden: bool) -> _Clause:
    """Draw an arithmetic step; ``{}`` stands for the value so far."""
    kind = rng.choice(["add", "subtract", "multiply", "remainder", "floor"])
    if kind == "remainder":
        value, words = _constant(rng, hidden, 3, 9)
        return _Clause(f"take the remainder by {words}", f"{{}}%{value}")
    if kind == "floor":
        value, words = _constant(rng, hidden, 2, 9)
        return _Clause(f"divide by {words} rounding down", f"{{}}//{value}")
    value, words = _constant(rng, hidden, 2, 20)
    verb = "multiply by" if kind == "multiply" else kind
    return _Clause(f"{verb} {words}", f"{{}}{_SIGNS[kind]}{value}")


def _number_program(rng: random.Random, level: int) -> _Program:
    count = {1: 2, 2: 3, 3: 2, 4: 3, 5: 3}[level]
    secret = rng.randrange(count) if level >= 3 else -1
    steps = [_step(rng, index == secret) for index in range(count)]
    code = "n"
    for step in steps:
        code = step.code.format(code if code == "n" else f"({code})")
    if level == 5:
        condition = _condition(rng, False)
        other = rng.randint(0, 9)
        words = f" if it is a number {condition.words}, else return {other}"
        code = f"{code} if {condition.code.replace('x', 'n')} else {other}"
    else:
        words = ""
    text = f"take a number, {', '.join(step.words for step in steps)} and return it{words}."
    return _Program(text, rng.choice(["calc", "step", "turn"]), "n", f"return {code}", _number)


_STRING_STEPS = {
    "reverse it": "{}[::-1]",
    "turn it into upper case": "{}.upper()",
    "drop its first letter": "{}[1:]",
    "drop its last letter": "{}[:-1]",
    "sort its letters": "''.join(sorted({}))",
}


def _string_step(rng: random.Random, hidden: bool) -> _Clause:
    kind = rng.choice(["plain", "repeat", "replace", "append"])
    if kind == "plain" and not hidden:
        words = rng.choice(list(_STRING_STEPS))
        return _Clause(words, _STRING_STEPS[words])
    if kind == "repeat":
        value, words = _constant(rng, hidden, 2, 3)
        return _Clause(f"repeat it {words} times" if not hidden else "repeat it", f"{{}}*{value}")
    if kind == "replace":
        old, new = rng.sample("abcdeo", 2)
        words = "replace one letter by another" if hidden else f"replace {old} by {new}"
        return _Clause(words, f"{{}}.replace('{old}','{new}')")
    end = "".join(rng.choice("xyz") for _ in range(rng.randint(1, 3)))
    return _Clause("add a fixed ending" if hidden else f"add {end} at the end", f"({{}}+'{end}')")


def _string_program(rng: random.Random, level: int) -> _Program:
    count = {1: 1, 2: 2, 3: 2, 4: 3, 5: 3}[level]
    secret = rng.randrange(count) if level >= 3 else -1
    steps = [_string_step(rng, index == secret) for index in range(count)]
    code = "s"
    for step in steps:
        code = step.code.format(f"({code})" if "*" in code else code)
    text = f"take a string, {', '.join(step.words for step in steps)} and return it."
    return _Program(text, rng.choice(["edit", "form", "make"]), "s", f"return {code}", _word)


_KINDS = (_list_program, _list_program, _number_program, _string_program)


def _cases(rng: random.Random, program: _Program) -> list[str] | None:
    """Write three asserts; None when their results are all alike or too long."""
    # The source is ours, written a few lines above, so evaluating it here is safe.
    function = eval(f"lambda {program.parameter}: {program.body.removeprefix('return ')}")
    seen: dict[str, Any] = {}
    for _ in range(12):
        argument = program.draw(rng)
        if len(seen) < 3:
            seen.setdefault(repr(argument), function(argument))
    results = {repr(value) for value in seen.values()}
    if len(seen) < 3 or len(results) == 1 or max(map(len, results)) > 32:
        return None
    return [f"assert {program.name}({argument}) == {value!r}" for argument, value in seen.items()]


def code_problem(rng: random.Random, level: int) -> dict[str, Any]:
    """Write one small programming problem.

    Parameters
    ----------
    level : int
        Difficulty, 1 to 5: more steps, and from 3 on a constant that only the asserts show.

    Returns
    -------
    dict
        ``text``, ``code``, ``test_setup_code`` (empty), ``test_list`` (three asserts) and
        ``challenge_test_list`` (empty).

    Raises
    ------
    ValueError
        If ``level`` is outside 1..5.
    """
    if level not in LEVELS:
        raise ValueError(f"level={level}: must be one of 1, 2, 3, 4, 5")
    cases = None
    while cases is None:
        program = rng.choice(_KINDS)(rng, level)
        cases = _cases(rng, program)
    return {
        "text": f"Write a function to {program.text}",
        "code": f"def {program.name}({program.parameter}):\n    {program.body}",
        "test_setup_code": "",
        "test_list": cases,
        "challenge_test_list": [],
    }

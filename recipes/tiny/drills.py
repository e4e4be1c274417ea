"""Bare equations for training: arithmetic as dense as in a table, in the notation of solutions.

A word problem spends a hundred tokens on a handful of results. A small model learns the single
steps much sooner when some documents are nothing but steps.
"""

from __future__ import annotations

import random

from lm_eval_ext.data.tiny.word_problems import addend, factor, multiplicand

# Share of each size of numbers (as in the word problems), small ones more often than there.
SIZE_MIX = {1: 0.4, 2: 0.4, 3: 0.2}
EQUATIONS = (6, 14)


def equation(rng: random.Random) -> tuple[str, str]:
    """Draw one equation as its unpredictable left part and its predictable right part.

    The parts meet where the tokenizer never joins two characters. Divisions are exact.
    """
    size = rng.choices(list(SIZE_MIX), weights=list(SIZE_MIX.values()))[0]
    kind = rng.choice(["+", "-", "*", "/", "signed sum", "signed product"])
    if kind in ("*", "/"):
        a, b = multiplicand(rng, size), factor(rng, size)
        a, b = (b, a) if kind == "*" and rng.random() < 0.3 else (a, b)
        return (f"{a}*{b}", f"={a * b}") if kind == "*" else (f"{a * b}/{b}", f"={a}")
    if kind == "signed product":
        a, b = rng.choice([-1, 1]) * factor(rng, size), multiplicand(rng, 1)
        return f"{a}*(-{b}", f")={-a * b}"
    a, b = addend(rng, size), addend(rng, size)
    if kind == "+":
        return f"{a}+{b}", f"={a + b}"
    if kind == "-":
        a, b = max(a, b), min(a, b)
        return f"{a}-{b}", f"={a - b}"
    a, b = rng.choice([-1, 1]) * a, rng.choice([-1, 1]) * b
    return f"{a}{b:+d}", f"={a + b}"


def drill(rng: random.Random) -> list[tuple[str, str]]:
    """Draw the equations of one document, all with the same line ends (plain, or LaTeX)."""
    count = rng.randint(*EQUATIONS)
    opening, closing = rng.choice([("", "\n"), ("$", "$\n")])
    parts = [equation(rng) for _ in range(count)]
    return [(opening + left, right + closing) for left, right in parts]

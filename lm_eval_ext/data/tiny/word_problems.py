"""Word problems with step-by-step solutions, in the record shape of GSM8K.

Four kinds of story (a changing stock, comparisons between people, shopping, production), each
written for a wanted number of steps and size of numbers. A solution has one equation per line
and ends with ``#### N``.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

# Few and short, so that each becomes one token.
_NAMES = "Tom Mia Ben Ana Leo Eva Sam Zoe Max Ivy Dan Amy Raj Lin Omar Nina"
_ITEMS = "apples books pens cards eggs coins stamps shells beads cups"
NAMES, ITEMS = _NAMES.split(), _ITEMS.split()

STEPS = (2, 3, 4, 5, 6)
SIZES = (1, 2, 3)

# Largest addend, smallest addend, largest factor and largest running value for each size.
_LIMITS = {1: (2, 30, 5, 200), 2: (10, 200, 9, 2000), 3: (100, 2000, 12, 9999)}


@dataclass
class _Draft:
    """A story being written: its sentences and the equations that solve it."""

    sentences: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def equation(self, left: int, sign: str, right: int, label: str = "") -> int:
        """Write ``left sign right = value`` as one solution line and return the value."""
        value = {"+": left + right, "-": left - right, "*": left * right}.get(sign)
        if value is None:
            value, rest = divmod(left, right)
            if rest:
                raise ValueError(f"{left}/{right} is not an integer")
        self.lines.append(f"{label}{left}{sign}{right}={value}")
        return value


def addend(rng: random.Random, size: int) -> int:
    """Draw a number to start from, add or subtract."""
    low, high, _, _ = _LIMITS[size]
    return rng.randint(low, high)


def factor(rng: random.Random, size: int) -> int:
    """Draw the smaller side of a product."""
    return rng.randint(2, _LIMITS[size][2])


def multiplicand(rng: random.Random, size: int) -> int:
    """Draw the larger side of a product."""
    return rng.randint(2, {1: 12, 2: 40, 3: 150}[size])


def _exact_divisors(value: int) -> list[int]:
    return [k for k in range(2, 10) if value % k == 0 and value // k > 1]


def _stock_moves(rng: random.Random, value: int, size: int, room: int) -> list[str]:
    """List the moves that keep the stock positive, whole and below the size's cap."""
    cap = _LIMITS[size][3]
    moves = []
    if value + _LIMITS[size][1] <= cap:
        moves += ["add", "add"]
    if value > _LIMITS[size][0] + 1:
        moves += ["sub", "sub"]
    if value * 2 <= cap:
        moves.append("times")
    if _exact_divisors(value):
        moves += ["divide", "divide"]
    if room >= 2:
        moves += ["boxes"] if value + 40 * multiplicand(rng, size) <= cap else []
        moves += ["friends"] if value > 12 else []
    return moves or ["sub"]


def _stock_step(
    rng: random.Random, draft: _Draft, owner: tuple[str, str], value: int, size: int, move: str
) -> int:
    """Append one move of a stock story and return the new stock."""
    name, item = owner
    low, high, top_factor, cap = _LIMITS[size]
    if move == "add":
        extra = rng.randint(low, min(high, cap - value))
        verb = rng.choice(["buys", "finds", "gets"])
        draft.sentences.append(f"{name} {verb} {extra} more {item}.")
        return draft.equation(value, "+", extra)
    if move == "sub":
        less = rng.randint(min(low, value - 1), min(high, value - 1))
        verb = rng.choice(["sells", "loses", "gives away"])
        draft.sentences.append(f"{name} {verb} {less} {item}.")
        return draft.equation(value, "-", less)
    if move == "times":
        ratio = rng.randint(2, max(2, min(top_factor, cap // value)))
        draft.sentences.append(f"Then the number of {item} becomes {ratio} times as large.")
        return draft.equation(value, "*", ratio)
    if move == "divide":
        parts = rng.choice(_exact_divisors(value))
        draft.sentences.append(f"{name} puts the {item} into {parts} equal bags and keeps one bag.")
        return draft.equation(value, "/", parts)
    if move == "boxes":
        count, each = factor(rng, size), multiplicand(rng, size)
        draft.sentences.append(f"{name} buys {count} boxes of {each} {item} each.")
        return draft.equation(value, "+", draft.equation(count, "*", each))
    count = rng.randint(2, min(12, value // 4))
    each = rng.randint(2, max(2, min(multiplicand(rng, size), (value - 1) // count)))
    draft.sentences.append(f"{name} gives {each} {item} to each of {count} friends.")
    return draft.equation(value, "-", draft.equation(each, "*", count))


def _stock(rng: random.Random, steps: int, size: int) -> _Draft:
    name, item = rng.choice(NAMES), rng.choice(ITEMS)
    value = addend(rng, size)
    draft = _Draft([f"{name} has {value} {item}."])
    while len(draft.lines) < steps:
        room = steps - len(draft.lines)
        move = rng.choice(_stock_moves(rng, value, size, room))
        value = _stock_step(rng, draft, (name, item), value, size, move)
    draft.sentences.append(f"How many {item} does {name} have now?")
    return draft


def _relation(
    rng: random.Random, draft: _Draft, pair: tuple[str, str], value: int, size: int
) -> int:
    """Append one person's count relative to the previous one's, and return it."""
    person, other = pair
    low, high, top_factor, cap = _LIMITS[size]
    kinds = ["more", "more"]
    if value > low + 1:
        kinds += ["fewer", "fewer"]
    if value * 2 <= cap // 2:
        kinds.append("times")
    if value % 2 == 0 and value > 3:
        kinds.append("half")
    kind = rng.choice(kinds)
    label = f"{person}: "
    if kind == "times":
        ratio = rng.randint(2, max(2, min(top_factor, cap // 2 // value)))
        draft.sentences.append(f"{person} has {ratio} times as many as {other}.")
        return draft.equation(value, "*", ratio, label)
    if kind == "half":
        draft.sentences.append(f"{person} has half as many as {other}.")
        return draft.equation(value, "/", 2, label)
    amount = rng.randint(low, high if kind == "more" else min(high, value - 1))
    draft.sentences.append(f"{person} has {amount} {kind} than {other}.")
    return draft.equation(value, "+" if kind == "more" else "-", amount, label)


def _comparison(rng: random.Random, steps: int, size: int) -> _Draft:
    together = steps % 2 == 0
    people = rng.sample(NAMES, steps // 2 + 1 if together else steps)
    item = rng.choice(ITEMS)
    counts = [addend(rng, size)]
    draft = _Draft([f"{people[0]} has {counts[0]} {item}."])
    for other, person in pairwise(people):
        counts.append(_relation(rng, draft, (person, other), counts[-1], size))
    if together:
        total = counts[0]
        for count in counts[1:]:
            total = draft.equation(total, "+", count, "Total: ")
        draft.sentences.append(f"How many {item} do they have together?")
        return draft
    first, last = (people[0], counts[0]), (people[-1], counts[-1])
    (more, high), (less, low) = (first, last) if first[1] > last[1] else (last, first)
    draft.equation(high, "-", low)
    draft.sentences.append(f"How many more {item} does {more} have than {less}?")
    return draft


def _shopping(rng: random.Random, steps: int, size: int) -> _Draft:
    name = rng.choice(NAMES)
    items = rng.sample(ITEMS, steps // 2 if steps % 2 == 0 else (steps + 1) // 2)
    draft = _Draft()
    costs: list[int] = []
    bought: list[str] = []
    for item in items:
        price, count = factor(rng, size), multiplicand(rng, size)
        draft.sentences.append(f"{item.capitalize()} cost {price} dollars each.")
        bought.append(f"{count} {item}")
        costs.append(draft.equation(count, "*", price, f"{item.capitalize()}: "))
    total = costs[0]
    for cost in costs[1:]:
        total = draft.equation(total, "+", cost, "Total: ")
    draft.sentences.append(f"{name} buys {' and '.join(bought)}.")
    if steps % 2 == 0:
        paid = total + addend(rng, size)
        draft.sentences.append(f"{name} pays with {paid} dollars. How many dollars are left?")
        draft.equation(paid, "-", total)
    else:
        draft.sentences.append("How many dollars is that in total?")
    return draft


def _production(rng: random.Random, steps: int, size: int) -> _Draft:
    item = rng.choice(ITEMS)
    rate, hours, days = multiplicand(rng, size), factor(rng, size), rng.randint(2, 7)
    draft = _Draft([f"A machine makes {rate} {item} per hour."])
    draft.sentences.append(f"It runs {hours} hours a day for {days} days.")
    made = draft.equation(draft.equation(rate, "*", hours), "*", days)
    question = f"How many {item} does it make?"
    if steps >= 3:
        box = rng.randint(2, min(9, made // 2))
        broken = made - box * rng.randint(1, (made - 1) // box)
        draft.sentences.append(f"{broken} {item} are broken.")
        good = draft.equation(made, "-", broken)
        question = f"How many good {item} are there?"
    if steps >= 4:
        draft.sentences.append(f"The rest are packed into boxes of {box}.")
        boxes = draft.equation(good, "/", box)
        question = "How many boxes are there?"
    if steps >= 5:
        extra = addend(rng, size)
        draft.sentences.append(f"There were already {extra} boxes.")
        boxes = draft.equation(boxes, "+", extra)
        question = "How many boxes are there now?"
    if steps >= 6:
        price = rng.randint(2, 9)
        draft.sentences.append(f"Each box is sold for {price} dollars.")
        draft.equation(boxes, "*", price)
        question = "How many dollars is that in total?"
    draft.sentences.append(question)
    return draft


_STORIES: tuple[Callable[[random.Random, int, int], _Draft], ...] = (
    _stock,
    _stock,
    _comparison,
    _shopping,
    _production,
)


def word_problem(rng: random.Random, steps: int, size: int) -> dict[str, str]:
    """Write one word problem.

    Parameters
    ----------
    steps : int
        Number of equations in the solution, 2 to 6.
    size : int
        Size of the numbers: 1 (up to about 200), 2 (up to about 2000), 3 (up to about 9999).

    Returns
    -------
    dict
        ``question`` and ``answer``, the answer ending in ``#### N`` with a whole ``N``.

    Raises
    ------
    ValueError
        If ``steps`` or ``size`` is outside its range.
    """
    if steps not in STEPS or size not in SIZES:
        raise ValueError(f"steps={steps}, size={size}: steps must be 2..6 and size 1..3")
    draft = rng.choice(_STORIES)(rng, steps, size)
    final = draft.lines[-1].rsplit("=", 1)[1]
    return {
        "question": " ".join(draft.sentences),
        "answer": "\n".join([*draft.lines, f"#### {final}"]),
    }

"""Word problems are solved again from their text alone, by a reader that shares no code."""

import random
import re

import pytest

from lm_eval_ext.data.tiny.word_problems import SIZES, STEPS, word_problem

RELATIONS = {
    r"(\w+) has (\d+) more than (\w+)": lambda n, other: other + n,
    r"(\w+) has (\d+) fewer than (\w+)": lambda n, other: other - n,
    r"(\w+) has (\d+) times as many as (\w+)": lambda n, other: other * n,
    r"(\w+) has (half) as many as (\w+)": lambda _, other: other / 2,
}
MOVES = {
    r"(?:buys|finds|gets) (\d+) more": lambda have, n: have + n,
    r"(?:sells|loses|gives away) (\d+) ": lambda have, n: have - n,
    r"becomes (\d+) times as large": lambda have, n: have * n,
    r"into (\d+) equal bags": lambda have, n: have / n,
    r"buys (\d+) boxes of (\d+)": lambda have, n, each: have + n * each,
    r"gives (\d+) \w+ to each of (\d+) friends": lambda have, each, n: have - n * each,
}


def solve_production(text: str) -> float:
    numbers = [int(n) for n in re.findall(r"\d+", text)]
    made = numbers[0] * numbers[1] * numbers[2]
    steps = [
        lambda v, n: v - n,
        lambda v, n: v / n,
        lambda v, n: v + n,
        lambda v, n: v * n,
    ]
    for step, number in zip(steps, numbers[3:], strict=False):
        made = step(made, number)
    return made


def solve_shopping(text: str) -> float:
    prices = {
        item.lower(): int(p) for item, p in re.findall(r"(\w+) cost (\d+) dollars each", text)
    }
    basket = re.search(r"buys ((?:\d+ \w+(?: and )?)+)\.", text)
    total = sum(prices[item] * int(n) for n, item in re.findall(r"(\d+) (\w+)", basket.group(1)))
    paid = re.search(r"pays with (\d+)", text)
    return int(paid.group(1)) - total if paid else total


def solve_comparison(text: str) -> float:
    first = re.match(r"(\w+) has (\d+) \w+\.", text)
    counts = {first.group(1): int(first.group(2))}
    for sentence in text.split(". ")[1:]:
        for pattern, rule in RELATIONS.items():
            if found := re.match(pattern, sentence):
                person, number, other = found.groups()
                amount = 0 if number == "half" else int(number)
                counts[person] = rule(amount, counts[other])
    if "together" in text:
        return sum(counts.values())
    more, less = re.search(r"does (\w+) have than (\w+)\?", text).groups()
    return counts[more] - counts[less]


def solve_stock(text: str) -> float:
    have = int(re.search(r"has (\d+)", text).group(1))
    for sentence in text.split(". ")[1:]:
        for pattern, rule in MOVES.items():
            if found := re.search(pattern, sentence):
                have = rule(have, *map(int, found.groups()))
                break
    return have


def solve(text: str) -> float:
    if "machine" in text:
        return solve_production(text)
    if "dollars each" in text:
        return solve_shopping(text)
    if "together" in text or re.search(r"How many more", text):
        return solve_comparison(text)
    return solve_stock(text)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("steps", STEPS)
def test_answer_follows_from_the_text(steps, size):
    rng = random.Random(100 * steps + size)
    for _ in range(300):
        record = word_problem(rng, steps, size)
        *lines, final = record["answer"].split("\n")
        assert len(lines) == steps
        assert final == f"#### {int(solve(record['question']))}", record
        assert solve(record["question"]) == int(final.removeprefix("#### "))


def test_every_equation_holds():
    rng = random.Random(0)
    for _ in range(500):
        record = word_problem(rng, rng.choice(STEPS), rng.choice(SIZES))
        for line in record["answer"].split("\n")[:-1]:
            left, sign, right, value = re.search(r"(\d+)([-+*/])(\d+)=(\d+)$", line).groups()
            if sign == "/":
                assert int(right) * int(value) == int(left)
            else:
                a, b = int(left), int(right)
                assert {"+": a + b, "-": a - b, "*": a * b}[sign] == int(value)


def test_sizes_and_steps_grade_the_numbers():
    def largest(size):
        rng = random.Random(size)
        records = [word_problem(rng, 3, size) for _ in range(200)]
        return sum(max(map(int, re.findall(r"\d+", r["answer"]))) for r in records) / 200

    assert largest(1) * 3 < largest(2)
    assert largest(2) * 3 < largest(3)


@pytest.mark.parametrize(("steps", "size"), [(1, 1), (7, 1), (2, 0), (2, 4)])
def test_out_of_range_is_refused(steps, size):
    with pytest.raises(ValueError, match=f"steps={steps}, size={size}"):
        word_problem(random.Random(0), steps, size)

"""The reference answers of MATH and MATH-500, by the whole grader and by math-verify alone.

The whole grader finds a reference answer equal to itself by comparing strings, which says nothing
about whether math-verify can read it. So each is also compared by the worker alone. All 500 and all
5000 are equal either way; none is left over to explain. As published, 3 of the 5000 are outside the
LaTeX grammar (``\\frac{12}{5,\\!525}``, ``\\frac \\pi4 + 2 - \\sqrt2`` and ``\\frac{7}{5} +
\\frac{1}{5} i.``, with a full stop); after `tidy` the grammar knows all.
"""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from lm_eval_ext.grading import grade_many
from lm_eval_ext.grading import math as math_grader
from lm_eval_ext.grading.math_extraction import references
from lm_eval_ext.grading.math_pool import shared_pool


def read(path):
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def math500(published_data):
    return read(published_data / "math500.jsonl")


@pytest.fixture(scope="module")
def math_test(published_data):
    return read(published_data / "math_test.jsonl")


def in_two_threads(function, items, size=100):
    parts = [items[start : start + size] for start in range(0, len(items), size)]
    with ThreadPoolExecutor(2) as executor:
        return [result for part in executor.map(function, parts) for result in part]


def by_math_verify(pairs):
    """Return the comparison of each pair, with no shortcut."""

    def compare_all(part):
        with shared_pool().borrowed() as compare:
            return [compare(gold, answer) for gold, answer in part]

    return in_two_threads(compare_all, pairs)


def wrong(records, completion):
    """Return the records whose reference the grader does not find in a completion."""
    return [r for r in records if not grade_many("math", [completion(r)], r)[0].correct]


def test_math500(math500):
    assert len(math500) == 500
    assert wrong(math500, lambda record: record["solution"]) == []
    assert wrong(math500, lambda record: rf"\boxed{{{record['answer']}}}") == []


def test_math500_by_math_verify_alone(math500):
    pairs = [
        (record["answer"], references({"solution": record["solution"]})[0]) for record in math500
    ]
    comparisons = by_math_verify(pairs)
    assert sum(c.equal for c in comparisons) == 500
    assert sum(c.gold_parsed and c.answer_parsed for c in comparisons) == 500


def test_math(math_test):
    assert len(math_test) == 5000
    # One solution ends in "-3/2 - [2]", where 2 was asked for; two box their values in several
    # sentences, and one boxes no answer.
    failed = wrong(math_test, lambda record: record["solution"])
    assert [record["idx"] for record in failed] == [1081, 2656, 4060, 4562]


def test_math_by_math_verify_alone(math_test):
    golds = sorted({gold for record in math_test for gold in references(record)})
    as_published = by_math_verify([(gold, gold) for gold in golds])
    assert [gold for gold, c in zip(golds, as_published, strict=True) if not c.equal] == []
    assert sum(not c.gold_parsed for c in as_published) == 3
    tidied = sorted({math_grader.tidy(gold) for gold in golds})
    comparisons = by_math_verify([(gold, gold) for gold in tidied])
    assert all(c.equal and c.gold_parsed for c in comparisons)


def test_tidying_keeps_the_value(math_test):
    golds = sorted({gold for record in math_test for gold in references(record)})
    pairs = [(gold, tidy) for gold in golds if (tidy := math_grader.tidy(gold)) != gold]
    assert len(pairs) > 300
    comparisons = by_math_verify(pairs)
    # The three above, which the grammar does not know; "\text { ...}", no unit with its space; and
    # cosines, of which math-verify drops the degrees.
    changed = {gold for (gold, _), c in zip(pairs, comparisons, strict=True) if not c.equal}
    assert changed == {
        r"\frac{12}{5,\!525}",
        r"\frac \pi4 + 2 - \sqrt2",
        r"\frac{7}{5} + \frac{1}{5} i.",
        r"8\sqrt{3} \text { square inches}",
        r"\cos 13^\circ",
        r"\cos 58^\circ",
        r"2\cos 15^{\circ}",
    }


def test_another_problems_answer_is_wrong(math500):
    records = [record for record in math500 if not record["answer"].isdigit()]
    others = records[1:] + records[:1]
    graded = [
        (record["answer"], other["answer"])
        for record, other in zip(records, others, strict=True)
        if grade_many("math", [rf"\boxed{{{other['answer']}}}"], record)[0].correct
    ]
    assert graded == []


def test_a_changed_number_is_wrong(math500):
    changed = []
    for record in math500:
        numbers = list(re.finditer(r"[0-9]+", record["answer"]))
        if numbers and "box{" not in record["answer"]:  # units are not compared, nor cm^2 and cm^3
            last = numbers[-1]
            more = str(int(last[0]) + 1)
            answer = record["answer"][: last.start()] + more + record["answer"][last.end() :]
            changed.append((record, answer))
    assert len(changed) > 450
    right = [
        (record["answer"], answer)
        for record, answer in changed
        if grade_many("math", [rf"\boxed{{{answer}}}"], record)[0].correct
    ]
    assert right == []

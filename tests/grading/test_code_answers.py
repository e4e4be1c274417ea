"""Equal values have one text, others another."""

from __future__ import annotations

import copy
import itertools
from fractions import Fraction

from lm_eval_ext.grading.code_answers import MAX_SHOWN, answer_of, canonical
from lm_eval_ext.grading.sandbox.wire import decode, encode

VALUES = [
    None,
    0,
    False,
    0.0,
    -0.0,
    1,
    True,
    1.0,
    1.5,
    Fraction(3, 2),
    Fraction(4, 2),
    2,
    10**400,
    1e300,
    int(1e300),
    float("inf"),
    "",
    "1",
    "[1]",
    b"1",
    bytearray(b"1"),
    [],
    [1],
    [True],
    [1.0],
    ["1"],
    [[1]],
    [1, 2],
    [2, 1],
    (),
    (1,),
    ((1,),),
    (1, 2),
    set(),
    {1, 2},
    {2, 1.0},
    frozenset({1, 2}),
    {(1, 2)},
    {},
    {1: 2},
    {True: 2.0},
    {1: 2, 3: 4},
    {3: 4, 1: 2},
    {"1": 2},
    {1: {2}},
    int,
    float,
]


def test_texts_are_equal_exactly_where_values_are() -> None:
    for one, other in itertools.product(VALUES, repeat=2):
        if one == other == Fraction(3, 2):
            continue  # 1.5 and 3/2 are equal in Python and told apart here
        assert (canonical(one) == canonical(other)) == (one == other), (one, other)


def test_order_in_sets_and_dictionaries_does_not_count() -> None:
    words = [f"word {n}" for n in range(50)]
    assert canonical(set(words)) == canonical({*sorted(words)})
    table = {word: {word} for word in words}
    assert canonical(table) == canonical(dict(reversed(table.items())))


def test_an_iterator_is_not_used_up() -> None:
    numbers = decode(encode(n for n in (1, 2)))
    kept = copy.copy(numbers)
    assert canonical(numbers) == canonical(kept) == "iterator(1, 2)"
    assert list(numbers) == [1, 2]


def test_answers() -> None:
    assert answer_of(["1", "2"]) == "1; 2"
    long = answer_of(["x" * 100, "y"])
    assert long.startswith("x" * MAX_SHOWN)
    assert long != answer_of(["x" * 100, "z"])
    assert len(long) < MAX_SHOWN + 30
    assert answer_of(["a\nb"]).isprintable()
    assert answer_of(["\u202e"]).isascii()

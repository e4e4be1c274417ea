"""Plain data arrives as it left, and nothing else arrives at all."""

from __future__ import annotations

import collections
import enum
import itertools
import math
import random
import re
import struct
from decimal import Decimal
from fractions import Fraction

import pytest

from lm_eval_ext.grading.sandbox.limits import MAX_BYTES, MAX_DEPTH, MAX_NODES
from lm_eval_ext.grading.sandbox.wire import Match, WireError, decode, encode

VALUES = [
    None,
    True,
    False,
    0,
    -1,
    255,
    256,
    -128,
    2**63,
    -(2**64),
    10**5000,
    0.0,
    1.5,
    math.inf,
    -math.inf,
    5e-324,
    1 + 2j,
    complex(-0.0, math.inf),
    "",
    "héllo \u202e \U0001f600",
    "\ud800",
    "a\0b",
    b"",
    b"\xff\0",
    bytearray(b"x"),
    [],
    [1, [2, [3, []]]],
    (),
    (1,),
    ((1, 2), [3]),
    set(),
    {1, "a", (2, 3)},
    frozenset({1, frozenset()}),
    {},
    {"a": [1], 2: {"b": None}, (1, 2): 3},
    range(3, 30, 4),
    collections.deque([1, 2]),
    Decimal("1.50"),
    Decimal("NaN"),
    Fraction(-1, 3),
    int,
    str,
    type(None),
    [-1, *[-2] * 500],  # hash(-1) == hash(-2)
    [0] * 1000,
    list(range(-500, 500)),
]


def exactly(value):
    """Describe a value with its types and signs, so that 1, 1.0 and True differ."""
    if isinstance(value, list | tuple | collections.deque):
        return type(value), [exactly(element) for element in value]
    if isinstance(value, set | frozenset):
        return type(value), sorted(map(repr, map(exactly, value)))
    if isinstance(value, dict):
        return type(value), [(exactly(key), exactly(held)) for key, held in value.items()]
    if isinstance(value, int) and abs(value) > 10**100:
        return type(value), hex(value)
    return type(value), repr(value)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: str(exactly(value))[:60])
def test_round_trip(value) -> None:
    assert exactly(decode(encode(value))) == exactly(value)


def random_value(rng: random.Random, depth: int):
    kind = rng.randrange(10 if depth else 6)
    if kind == 0:
        return rng.choice([None, True, False])
    if kind == 1:
        return rng.randint(-(10 ** rng.randint(1, 30)), 10 ** rng.randint(1, 30))
    if kind == 2:
        return struct.unpack("<d", rng.randbytes(8))[0]
    if kind in (3, 4):
        return "".join(chr(rng.randrange(1, 0x3000)) for _ in range(rng.randrange(5)))
    if kind == 5:
        return rng.randbytes(rng.randrange(5))
    elements = [random_value(rng, depth - 1) for _ in range(rng.randrange(5))]
    if kind == 6:
        return elements
    if kind == 7:
        return tuple(elements)
    keys = [repr(random_value(rng, 0)) for _ in elements]
    return dict(zip(keys, elements, strict=True)) if kind == 8 else set(keys)


def test_random_values_arrive_as_they_left() -> None:
    rng = random.Random(0)
    for _ in range(500):
        value = random_value(rng, 4)
        assert exactly(decode(encode(value))) == exactly(value)


def test_random_damage_is_an_error_or_another_value_and_never_anything_else() -> None:
    rng = random.Random(1)
    refused = 0
    for _ in range(3000):
        data = bytearray(encode(random_value(rng, 3)))
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            decode(bytes(data))
        except WireError:
            refused += 1
    assert refused > 1000
    for _ in range(3000):
        with pytest.raises(WireError):
            decode(rng.choice([b"l", b"d", b"n", b"q", b"Z"]) + rng.randbytes(rng.randrange(30)))


class Text(str):
    def __str__(self) -> str:
        return "a lie"

    def encode(self, *args) -> bytes:
        return b"a lie"

    def __len__(self) -> int:
        return 0


class Number(int):
    def __int__(self) -> int:
        return 7

    def __eq__(self, other) -> bool:
        return True

    __hash__ = int.__hash__

    def bit_length(self) -> int:
        return 0

    def to_bytes(self, *args, **kwargs) -> bytes:
        return b"\7"


class Real(float):
    def __float__(self) -> float:
        return 7.0


class Many(list):
    def __iter__(self):
        return iter([7])

    def __len__(self) -> int:
        return 1


class Table(dict):
    def items(self):
        return [(7, 7)]

    def __iter__(self):
        return iter([7])


class Color(enum.IntEnum):
    RED = 3


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Text("truth"), "truth"),
        (Number(3), 3),
        (Real(2.5), 2.5),
        (Many([1, 2]), [1, 2]),
        (Table(a=1), {"a": 1}),
        (Color.RED, 3),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.defaultdict(list, a=[1]), {"a": [1]}),
        (collections.namedtuple("Point", "x y")(1, 2), (1, 2)),
        ([Many([Number(1)])], [[1]]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_subclass_arrives_as_what_its_base_type_holds(value, plain) -> None:
    assert exactly(decode(encode(value))) == exactly(plain)


def test_iterators_and_views() -> None:
    assert list(decode(encode(x * x for x in range(4)))) == [0, 1, 4, 9]
    assert decode(encode(map(abs, [-1]))) != [1]  # as in Python
    assert decode(encode({1: 2}.keys())) == {1}
    assert list(decode(encode({1: [2]}.values()))) == [[2]]
    assert decode(encode({1: 2}.items())) == {(1, 2)}
    match = decode(encode(re.search("b(c)", "abcd")))
    assert isinstance(match, Match)
    assert match.spans == ((1, 3), (2, 3))


@pytest.mark.parametrize(
    "value",
    [
        object(),
        len,
        lambda: 0,
        Color,
        NotImplemented,
        itertools.repeat(0),
        iter(int, 1),
        "x" * (MAX_BYTES + 1),
        b"x" * (MAX_BYTES + 1),
        1 << (8 * MAX_BYTES + 8),
        [0] * (MAX_NODES + 1),
        range(MAX_NODES + 1),
        ["x" * 1000] * 2000,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_does_not_cross(value) -> None:
    with pytest.raises(WireError):
        encode(value)


def test_depth() -> None:
    value: list = []
    for _ in range(MAX_DEPTH - 1):
        value = [value]
    assert decode(encode(value)) == value
    for _ in range(2):
        value = [value]
    with pytest.raises(WireError):
        encode(value)
    loop: list = []
    loop.append(loop)
    with pytest.raises(WireError):
        encode(loop)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"n",
        b"l" + b"\xff" * 4,
        b"l\x01\0\0\0" * 5000,
        encode([1, 2])[:-1],
        encode(1) + b"x",
        b"t\x04\0\0\0eval",
        b"t\x06\0\0\0object",
        b"S\x01\0\0\0" + encode([]),
        b"d\x01\0\0\0" + encode(1),
        b"h\x04\0\0\0\0\0\0\0",
        b"m\x06\0\0\0001E9999"[:5] + b"1E9999"[:0],
        b"m" + struct.pack("<I", 9) + b"1E+999999",
        b"q\x02\0\0\0" + encode(1) + encode(0),
        b"q\x02\0\0\0" + encode("1/3") + encode(None),
        b"r\x03\0\0\0" + encode(0) + encode(10**18) + encode(1),
        b"f\x04\0\0\0abcd",
        bytes(3 * MAX_BYTES),
    ],
)
def test_bytes_that_are_no_value(data: bytes) -> None:
    with pytest.raises(WireError):
        decode(data)


def test_elements_made_to_collide_are_refused() -> None:
    multiples = [(2**61 - 1) * k for k in range(300)]
    assert len(set(map(hash, multiples))) == 1
    for value in (multiples, set(multiples), dict.fromkeys(multiples), [tuple(multiples)]):
        with pytest.raises(WireError, match="collide"):
            decode(encode(value))


def test_handles_go_by_number() -> None:
    kept: list = []

    def number_of(value) -> int:
        kept.append(value)
        return len(kept) - 1

    data = encode([len, 1, {"a": max}], number_of)
    assert decode(data, kept.__getitem__) == [len, 1, {"a": max}]


def test_a_fraction_that_takes_long_to_reduce_is_refused():
    huge = Fraction(1)
    huge._numerator, huge._denominator = 3**10_000, 2**15_000 + 1
    with pytest.raises(WireError, match="a fraction of numbers of more than 10000 bits"):
        decode(encode(huge))

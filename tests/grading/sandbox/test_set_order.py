"""Sets are rebuilt to be iterated as they were, in bounded time."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import time

import pytest

from lm_eval_ext.grading.sandbox.launch import _environment
from lm_eval_ext.grading.sandbox.set_order import LARGEST, SetBuilder, slots_of
from lm_eval_ext.grading.sandbox.wire import decode, encode

ELEMENTS = {
    "small": lambda rng: rng.randrange(64),
    "negative": lambda rng: rng.randrange(-100, 100),
    "large": lambda rng: rng.randrange(10**30),
    "colliding": lambda rng: 8 * rng.randrange(1000),
    "strings": lambda rng: str(rng.randrange(10**6)),
    "tuples": lambda rng: (rng.randrange(5), str(rng.randrange(10))),
    "mixed": lambda rng: rng.choice([None, rng.random(), str(rng.randrange(99)), (1, 2), int]),
}


def several(kind: str, number: int) -> list:
    rng = random.Random(f"{kind} {number}")
    return list(dict.fromkeys(ELEMENTS[kind](rng) for _ in range(number)))


def without_every_third(elements: list) -> set:
    found = set(elements)
    for element in elements[::3]:
        found.discard(element)
    return found


@pytest.mark.parametrize("kind", ELEMENTS)
@pytest.mark.parametrize("number", [2, 3, 4, 5, 6, 8, 13, 20, 30])
def test_a_set_is_rebuilt_in_order_and_in_size(kind: str, number: int) -> None:
    elements = several(kind, number)
    for made in (set(elements), set(elements).copy(), {*elements[::-1]}):
        built = SetBuilder().build(set, list(made), slots_of(made))
        assert built == made
        assert list(built) == list(made)
        assert slots_of(built) == slots_of(made)
    made = without_every_third(elements)
    built = SetBuilder().build(set, list(made), slots_of(made))
    assert built == made
    assert list(built) == list(made)


@pytest.mark.parametrize("kind", ELEMENTS)
@pytest.mark.parametrize("number", [2, 3, 5, 9, 14, 25, 40])
def test_any_order_can_be_had(kind: str, number: int) -> None:
    """As when the hashes differ between the two processes."""
    elements = several(kind, number)
    random.Random(number).shuffle(elements)
    built = SetBuilder().build(set, elements, slots_of(set(elements)))
    assert type(built) is set
    assert list(built) == elements
    assert all(element in built for element in elements)
    built.add("another")
    assert built == {*elements, "another"}
    built -= {"another"}
    assert built == set(elements)
    assert len(built.copy()) == len(elements)


def test_frozen_sets_of_numbers() -> None:
    for elements in ([15, 7], [7, 15, 23], [3, 1, 2], list(range(30, 0, -3)), [-1, -2]):
        for made in (frozenset(elements), frozenset(set(elements))):
            built = SetBuilder().build(frozenset, list(made), slots_of(made))
            assert type(built) is frozenset
            assert list(built) == list(made)


def test_across_processes_with_other_hashes() -> None:
    """Sent by an interpreter with another seed, a set arrives in that interpreter's order."""
    script = (
        "import sys\nfrom lm_eval_ext.grading.sandbox.wire import encode\n"
        "s = set(sys.argv[1:])\nsys.stdout.buffer.write(encode([s, list(s)]))\n"
    )
    words = ["a", "set", "of", "words", "in", "another", "order", "each", "time"]
    orders = set()
    for seed in "1234":
        command = [sys.executable, "-c", script, *words]
        done = subprocess.run(
            command, capture_output=True, check=True, env={"PYTHONHASHSEED": seed}
        )
        arrived, order = decode(done.stdout)
        assert list(arrived) == order
        assert arrived == set(words)
        orders.add(tuple(order))
    assert len(orders) > 1


class Liar(set):
    def __iter__(self):
        return iter([7])

    def __len__(self) -> int:
        return 1

    def __sizeof__(self) -> int:
        return 2**40


def test_a_subclass_is_written_by_what_it_holds() -> None:
    arrived = decode(encode(Liar([15, 7])))
    assert list(arrived) == [7, 15]
    assert type(arrived) is set


def forged(elements: list, table: int, tag: bytes = b"S") -> bytes:
    head = tag + struct.pack("<I", len(elements) | table << 24)
    return head + b"".join(map(encode, elements))


@pytest.mark.parametrize("table", [0, 3, 5, 15, 16, 20, 63, 255])
@pytest.mark.parametrize("tag", [b"S", b"F"])
def test_a_forged_size_costs_little_time_and_room(table: int, tag: bytes) -> None:
    rng = random.Random(table)
    one = [rng.random() for _ in range(20_000)]
    many = [forged([str(rng.random()) for _ in range(9)], table, tag) for _ in range(3000)]
    colliding = [number << 20 for number in range(3000, 0, -1)]
    data = [forged(one, table, tag), forged(colliding, table, tag)]
    data.append(b"l" + struct.pack("<I", len(many)) + b"".join(many))
    data.append(forged(["b", "a", "c"], table, tag))
    started = time.process_time()
    values = [decode(each) for each in data]
    assert time.process_time() - started < 5
    assert values[0] == set(one)
    assert slots_of(values[3]) <= LARGEST
    assert decode(forged([1, 1, 2, 1], table, tag)) == {1, 2}


@pytest.mark.parametrize(
    ("given", "used"),
    [(None, "0"), ("random", "0"), ("7", "7"), ("4294967296", "0"), ("9" * 5000, "0"), ("", "0")],
)
def test_the_seed_of_hashes_is_ours_where_it_is_fixed(monkeypatch, given, used: str) -> None:
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    if given is not None:
        monkeypatch.setenv("PYTHONHASHSEED", given)
    assert _environment() == {"PYTHONHASHSEED": used}

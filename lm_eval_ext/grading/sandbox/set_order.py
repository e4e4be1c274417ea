"""Sets that are iterated in a given order.

The order of a set depends on its elements' hashes, the size of its table and its history. Made
again from a list, it could have another order, and a program that returns ``tuple(s)`` would be
judged by its transport. So the size of the table crosses too, and the set is rebuilt to be iterated
as it was, also where the hashes of strings differ between two processes. How the interpreter places
elements (``Objects/setobject.c``) is followed only to find a way: what was built is looked at, and
where its order is another one, the next way is tried.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Container, Iterator
from typing import Any

SMALLEST = 8  # slots of the table of a small set
LARGEST = 2**15  # slots of the largest table that is built for the sake of an order
EFFORT = 2**18
"""Steps that may be spent on the sets of one message, so that a hostile one costs no time."""

_SLOT_BYTES = 16
_LINEAR_PROBES = 9
_PERTURB_SHIFT = 5
_WORD = 2**64 - 1
_SHUFFLES = 200
_LARGEST_KNOWN = 2**20


def slots_of(value: Any) -> int:
    """Return the number of slots in the table of a set or frozenset, a power of two."""
    kind = type(value)
    base = set if issubclass(kind, set) else frozenset
    return max(SMALLEST, (base.__sizeof__(value) - kind.__basicsize__) // _SLOT_BYTES)


class SetBuilder:
    """Builds the sets of one message, in any order once `EFFORT` steps are spent."""

    def __init__(self) -> None:
        self._effort = EFFORT

    def build(self, kind: type[Any], elements: list[Any], slots: int) -> Any:
        """Return a set that is iterated in the order of the elements, where that can be had.

        A ``frozenset`` can be had only in the orders that its elements' hashes allow. ``slots`` is
        what `slots_of` gave for the set they come from: where it can be, the set gets as many, so
        that what is added to it later goes where it would have gone.
        """
        plain = kind(elements)
        if len(plain) < 2 or len(plain) != len(elements):
            return plain
        slots = max(SMALLEST, min(slots, _LARGEST_KNOWN))  # said by a side that is not trusted
        found = None
        for built in self._alike(plain, elements, slots):
            if all(map(operator.is_, built, elements)):
                if slots_of(built) == slots:
                    return built
                found = built if found is None else found
        if found is not None or kind is frozenset:
            return plain if found is None else found
        return self._larger(elements, slots) or plain

    def _alike(self, plain: Any, elements: list[Any], slots: int) -> Iterator[Any]:
        """Yield sets that may be in order and of the size wanted."""
        kind = type(plain)
        yield plain
        yield kind(dict.fromkeys(elements))  # has room for twice as many from the start
        hashes = [hash(element) for element in elements]
        places = self._natural(hashes, slots)
        order = _insertion(hashes, places, slots) if places else None
        if places and order:
            inserted = [elements[index] for index in order]
            yield kind(inserted)
            yield kind(dict.fromkeys(inserted))
            if kind is set:
                yield from _held_off(inserted, set(), set(places), slots)
        if kind is set:
            yield from self._forced(elements, hashes, slots)
            return
        rng = random.Random(0)
        for _ in range(_SHUFFLES):
            self._effort -= len(elements)
            if self._effort > 0:
                yield kind(rng.sample(elements, len(elements)))

    def _larger(self, elements: list[Any], slots: int) -> set[Any] | None:
        """Return a set in order, of the smallest larger size that has room for it."""
        hashes = [hash(element) for element in elements]
        while (slots := 2 * slots) <= LARGEST and self._effort > 0:
            for built in self._forced(elements, hashes, slots):
                if all(map(operator.is_, built, elements)):
                    return built
        return None

    def _natural(self, hashes: list[int], slots: int) -> list[int] | None:
        """Return slots that elements may take in this order with nothing else in the table.

        A depth-first search: each element takes the slot its hash points to, or a later one of its
        probes where the slots before are taken by others.
        """
        chosen: dict[int, None] = {}
        ways = [self._choices(hashes[0], chosen, -1, slots)]
        while ways:
            place = next(ways[-1], None)
            if place is None:
                ways.pop()
                if chosen:
                    chosen.popitem()
                continue
            chosen[place] = None
            if len(chosen) < len(hashes):
                ways.append(self._choices(hashes[len(chosen)], chosen, place, slots))
                continue
            self._effort -= len(hashes)
            if _insertion(hashes, [*chosen], slots) is not None:
                return [*chosen]
            chosen.popitem()
        return None

    def _choices(self, number: int, taken: Container[int], last: int, slots: int) -> Iterator[int]:
        """Yield the slots after the last one taken that a hash can come to."""
        nearest = slots  # of those passed over: they will be taken by elements that come later
        for count, slot in enumerate(_probes(number, slots)):
            self._effort -= 1
            if count > slots or self._effort < 0:
                return
            if slot > last:
                if slot < nearest:
                    yield slot
                    nearest = slot
            elif slot not in taken:
                return

    def _forced(self, elements: list[Any], hashes: list[int], slots: int) -> Iterator[set[Any]]:
        """Yield sets of a size in which elements are kept from the slots they would rather have."""
        for narrow in (False, True):
            found = self._detours(hashes, slots, narrow)
            if found is not None:
                yield from _held_off(elements, *found, slots)

    def _detours(
        self, hashes: list[int], slots: int, narrow: bool
    ) -> tuple[set[int], set[int]] | None:
        """Return slots to block, and the slots that the elements then take, in order.

        An element goes on to its next probe where a slot is blocked, and so comes to any slot.
        Where `narrow`, each gets a share of the table, so that there is room for those after it.
        """
        blocked: set[int] = set()
        places: set[int] = set()
        room = slots * 3 // 5 - len(hashes)
        last = -1
        for index, number in enumerate(hashes, 1):
            end = slots * index // len(hashes) if narrow else slots
            for count, slot in enumerate(_probes(number, slots)):
                self._effort -= 1
                if count > slots or len(blocked) > room or self._effort < 0:
                    return None
                if last < slot < end and slot not in blocked:
                    break
                if slot not in places:
                    blocked.add(slot)
            places.add(slot)
            last = slot
        self._effort -= slots
        return blocked, places


def _insertion(hashes: list[int], places: list[int], slots: int) -> list[int] | None:
    """Return an order of insertion that puts each element in its place; None if none does."""
    owners = {place: index for index, place in enumerate(places)}
    order: list[int] = []
    state = dict.fromkeys(owners, 0)  # 1 while what it waits for is put in, 2 once it is in
    for start in owners:
        path = [start]
        while path:
            place = path[-1]
            if state[place] == 2:
                path.pop()
                continue
            state[place] = 1
            waits = None
            for slot in _probes(hashes[owners[place]], slots):
                if slot == place:
                    break
                if slot not in state or state[slot] == 1:
                    return None
                if state[slot] == 0:
                    waits = slot
                    break
            if waits is None:
                state[place] = 2
                order.append(owners[path.pop()])
            else:
                path.append(waits)
    # Those where their hash points to come first: a table that grows under them keeps them there.
    return sorted(order, key=lambda index: places[index] != hashes[index] & (slots - 1))


class _Blocker:
    """What holds a slot of a table while elements are put in."""

    def __init__(self, slot: int) -> None:
        self._slot = slot

    def __hash__(self) -> int:
        return self._slot


def _held_off(
    elements: list[Any], blocked: set[int], places: set[int], slots: int
) -> Iterator[set[Any]]:
    """Yield the set, if there is room, that elements make of a table with some slots blocked.

    A table of the right size comes from a dictionary of a fourth to half as many blockers. Those
    beyond the ones asked for take slots that nobody probes on the way to a place.
    """
    if slots > LARGEST:
        return
    fewest = {8: 0, 16: 5}.get(slots, slots // 4)
    free = (slot for slot in range(slots) if slot not in blocked and slot not in places)
    spare = [slot for slot, _ in zip(free, range(fewest - len(blocked)), strict=False)]
    blockers = [_Blocker(slot) for slot in (*blocked, *spare)]
    if (len(blockers) + len(elements)) * 5 >= (slots - 1) * 3:
        return
    built: set[Any] = set(dict.fromkeys(blockers))
    built.update(iter(elements))
    for blocker in blockers:  # one by one: `difference_update` would make the table again
        built.discard(blocker)
    yield built


def _probes(number: int, slots: int) -> Iterator[int]:
    """Yield the slots in which a set looks for a hash, one after the other, without end."""
    mask = slots - 1
    perturb = number & _WORD
    slot = perturb & mask
    while True:
        yield from range(slot, slot + (_LINEAR_PROBES if slot + _LINEAR_PROBES <= mask else 0) + 1)
        perturb >>= _PERTURB_SHIFT
        slot = (slot * 5 + 1 + perturb) & mask

"""Plain data as bytes: what crosses between a program and the tests.

Only values of built-in types cross, rebuilt on the other side from their contents. An instance of a
subclass crosses as the contents its *base* type sees, so no method of a program (`__eq__`,
`__iter__`, `__hash__`, ...) has a say in what arrives. What is not data crosses as the number of a
handle, or not at all; so do iterators of classes that a program defines itself.

The decoder trusts nothing: it bounds length, count and depth, reads no names but those of built-in
types, and refuses elements made to collide in a hash table. Both sides use this module, so it
imports nothing outside the standard library.

Numbers keep their type, sign of zero and size; NaN arrives as NaN. A built-in iterator or a
generator arrives as an iterator over at most `limits.MAX_NODES` elements, a dictionary view as such
a view, a match of a regular expression as a `Match`, a built-in type as that type. Dictionaries and
sets are iterated in the order they had (`lm_eval_ext.grading.sandbox.set_order`).
"""

from __future__ import annotations

import re
import struct
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from decimal import Decimal
from fractions import Fraction
from itertools import chain
from typing import Any

from lm_eval_ext.grading.sandbox.limits import MAX_BYTES, MAX_DEPTH, MAX_NODES
from lm_eval_ext.grading.sandbox.set_order import SetBuilder, slots_of

_COUNT = struct.Struct("<I")
_DOUBLE = struct.Struct("<d")
_TYPES = {
    kind.__name__: kind
    for kind in (bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict)
} | {"NoneType": type(None)}
_NAMES = {kind: name for name, kind in _TYPES.items()}
_MAX_EXPONENT = 10_000  # of a Decimal: int() of a larger one would fill the memory
_MAX_FRACTION_BITS = 10_000  # reducing a fraction takes quadratic time
_MAX_COLLISIONS = 200
_COUNT_BITS = 24  # of the number of a set's elements; above it stands the size of its table


class WireError(ValueError):
    """A value that cannot cross, or bytes that are no value."""


class Match:
    """What arrives for a match of a regular expression: true, and equal to nothing but itself."""

    def __init__(self, spans: tuple[Any, ...]) -> None:
        self.spans = spans


def encode(value: Any, number_of: Callable[[Any], int] | None = None) -> bytes:
    """Return the bytes of a value; `WireError` if it is too long, too deep or not data.

    ``number_of`` gives the number of the handle for an object that is not data.
    """
    encoder = _Encoder(number_of)
    encoder.write(value, 0)
    return b"".join(encoder.parts)


class _Encoder:
    """The bytes written so far, and how much room is left."""

    def __init__(self, number_of: Callable[[Any], int] | None) -> None:
        self.number_of = number_of
        self.parts: list[bytes] = []
        self.room = MAX_BYTES
        self.nodes = MAX_NODES

    def put(self, tag: bytes, body: bytes) -> None:
        self.room -= len(body) + 5
        if self.room < 0:
            raise WireError(f"a value of more than {MAX_BYTES} bytes")
        self.parts += (tag, _COUNT.pack(len(body)), body)

    def write(self, value: Any, depth: int) -> None:
        self.nodes -= 1
        if self.nodes < 0 or depth > MAX_DEPTH:
            raise WireError(f"a value of more than {MAX_NODES} parts or {MAX_DEPTH} levels")
        kind = type(value)
        base = kind if kind in _BASES else next((b for b in kind.__mro__ if b in _BASES), None)
        if base is not None:
            _BASES[base](self, base, value, depth)
        elif kind is type and value in _NAMES:
            self.put(b"t", _NAMES[value].encode())
        elif hasattr(kind, "__next__") and kind.__module__ in ("builtins", "itertools"):
            self.several(b"i", value, depth)
        elif self.number_of is not None:
            self.put(b"h", _COUNT.pack(self.number_of(value)))
        else:
            raise WireError(f"an object of type {kind.__name__}, which is not plain data")

    def several(self, tag: bytes, elements: Iterable[Any], depth: int, above: int = 0) -> None:
        """Write elements after their number, which is known only once they are written.

        What the number has no need of, its upper bits, are ``above``.
        """
        place = len(self.parts)
        self.put(tag, b"")
        count = 0
        for element in elements:
            self.write(element, depth + 1)
            count += 1
        self.parts[place + 1] = _COUNT.pack(count | above << _COUNT_BITS)


_Writer = Callable[[_Encoder, type, Any, int], None]


def _body(tag: bytes, body: Callable[[Any], bytes]) -> _Writer:
    return lambda encoder, base, value, depth: encoder.put(tag, body(value))


def _parts(
    tag: bytes,
    parts: Callable[[Any, Any], Iterable[Any]] = lambda base, value: base.__iter__(value),
    above: Callable[[Any], int] = lambda value: 0,
) -> _Writer:
    return lambda encoder, base, value, depth: encoder.several(
        tag, parts(base, value), depth, above(value)
    )


def _integer(value: int) -> bytes:
    number = int.__int__(value)
    length = int.bit_length(number) // 8 + 1
    if length > MAX_BYTES:
        raise WireError(f"a number of more than {MAX_BYTES} bytes")
    return int.to_bytes(number, length, "little", signed=True)


def _text(value: str) -> bytes:
    if str.__len__(value) > MAX_BYTES:
        raise WireError(f"a string of more than {MAX_BYTES} characters")
    return str.encode(value, "utf-8", "surrogatepass")


def _octets(value: Any) -> bytes:
    if memoryview(value).nbytes > MAX_BYTES:
        raise WireError(f"more than {MAX_BYTES} bytes")
    return memoryview(value).tobytes()


def _range_parts(base: type, value: range) -> tuple[int, int, int]:
    if not -MAX_NODES <= value.stop - value.start <= MAX_NODES:
        raise WireError(f"a range of more than {MAX_NODES} numbers")
    return value.start, value.stop, value.step


def _pair_parts(base: Any, value: Any) -> Iterable[Any]:
    return chain.from_iterable(base.items(value))


def _table_of(value: Any) -> int:
    return slots_of(value).bit_length() - 1


# A subclass is written by the first of its bases that is here.
_BASES: dict[type, _Writer] = {
    bool: _body(b"b", lambda value: b"1" if value else b"0"),
    type(None): _body(b"0", lambda value: b""),
    int: _body(b"n", _integer),
    float: _body(b"f", lambda value: _DOUBLE.pack(float.__float__(value))),
    complex: _body(
        b"c", lambda z: b"".join(_DOUBLE.pack(x.__get__(z)) for x in (complex.real, complex.imag))
    ),
    str: _body(b"s", _text),
    bytes: _body(b"y", _octets),
    bytearray: _body(b"Y", _octets),
    Decimal: _body(b"m", lambda value: Decimal.__str__(value).encode()),
    re.Match: _body(b"g", lambda value: repr(value.regs).encode()),
    list: _parts(b"l"),
    tuple: _parts(b"u"),
    deque: _parts(b"Q"),
    set: _parts(b"S", above=_table_of),
    frozenset: _parts(b"F", above=_table_of),
    OrderedDict: _parts(b"d", _pair_parts),
    dict: _parts(b"d", _pair_parts),
    type({}.keys()): _parts(b"K"),
    type({}.values()): _parts(b"V"),
    type({}.items()): _parts(b"I"),
    Fraction: _parts(b"q", lambda base, value: (value._numerator, value._denominator)),
    range: _parts(b"r", _range_parts),
}


def decode(data: bytes, handle: Callable[[int], Any] | None = None) -> Any:
    """Return the value of bytes from a side that is not trusted; ``handle`` makes the handles.

    `WireError` if they are not exactly one value within the limits.
    """
    if len(data) > 2 * MAX_BYTES:
        raise WireError("more bytes than a value may have")
    decoder = _Decoder(data, handle)
    try:
        value = decoder.read(0)
    except WireError:
        raise
    except Exception as error:  # whatever odd bytes can make a constructor raise
        raise WireError(f"no value: {type(error).__name__}") from None
    if decoder.place != len(data):
        raise WireError("bytes after the value")
    return value


class _Decoder:
    """Bytes, and how far they have been read."""

    def __init__(self, data: bytes, handle: Callable[[int], Any] | None) -> None:
        self.data, self.handle = data, handle
        self.place, self.nodes = 0, 2 * MAX_NODES
        self.sets = SetBuilder()

    def read(self, depth: int) -> Any:
        self.nodes -= 1
        start = self.place + 5
        if self.nodes < 0 or depth > MAX_DEPTH + 2 or start > len(self.data):
            raise WireError("no value: too many parts, too deep or cut short")
        tag = self.data[self.place : self.place + 1]
        (count,) = _COUNT.unpack_from(self.data, self.place + 1)
        self.place = start
        if tag in _SETS:
            table, count = count >> _COUNT_BITS, count & (1 << _COUNT_BITS) - 1
            return self.sets.build(_SETS[tag], self.several(count, depth), 1 << table)
        if tag in _CONTAINERS:
            return _CONTAINERS[tag](self.several(count, depth))
        end = start + count
        if end > len(self.data):
            raise WireError("cut short")
        self.place = end
        body = self.data[start:end]
        if tag == b"h":
            if self.handle is None:
                raise WireError("a handle where none can be")
            return self.handle(_COUNT.unpack(body)[0])
        return _SCALARS[tag](body)

    def several(self, count: int, depth: int) -> list[Any]:
        """Read the elements of a container."""
        if count > len(self.data):
            raise WireError("more elements than bytes")
        elements = [self.read(depth + 1) for _ in range(count)]
        _refuse_collisions(elements)
        return elements


def _refuse_collisions(elements: list[Any]) -> None:
    """Refuse many different elements with one hash: a set of them takes quadratic time."""
    if len(elements) <= _MAX_COLLISIONS:
        return
    seen: dict[int, set[Any]] = {}
    for element in elements:
        try:
            alike = seen.setdefault(hash(element), set())
        except TypeError:
            continue
        alike.add(element)
        if len(alike) > _MAX_COLLISIONS:
            raise WireError("elements that collide in a hash table")


def _pairs(elements: list[Any]) -> dict[Any, Any]:
    _refuse_collisions(elements[::2])
    return dict(zip(elements[::2], elements[1::2], strict=True))


def _decimal(body: bytes) -> Decimal:
    number = Decimal(body.decode("ascii"))
    if number.is_finite() and abs(number.adjusted()) > _MAX_EXPONENT:
        raise WireError("a Decimal with too large an exponent")
    return number


def _fraction(elements: list[Any]) -> Fraction:
    numerator, denominator = elements
    if type(numerator) is not int or type(denominator) is not int:
        raise WireError("a fraction of something else than integers")
    if max(numerator.bit_length(), denominator.bit_length()) > _MAX_FRACTION_BITS:
        raise WireError(f"a fraction of numbers of more than {_MAX_FRACTION_BITS} bits")
    return Fraction(numerator, denominator)


def _number_range(elements: list[Any]) -> range:
    numbers = range(*elements)
    if not -MAX_NODES <= numbers.stop - numbers.start <= MAX_NODES:
        raise WireError("a range of too many numbers")
    return numbers


def _match(body: bytes) -> Match:
    numbers = [int(number) for number in re.findall(rb"-?\d{1,12}", body[:10_000])]
    return Match(tuple(zip(numbers[::2], numbers[1::2], strict=False)))


_SETS: dict[bytes, type[Any]] = {b"S": set, b"F": frozenset}
_CONTAINERS: dict[bytes, Callable[[list[Any]], Any]] = {
    b"l": lambda elements: elements,
    b"u": tuple,
    b"Q": deque,
    b"i": iter,
    b"d": _pairs,
    b"K": lambda elements: dict.fromkeys(elements).keys(),
    b"V": lambda elements: dict(enumerate(elements)).values(),
    b"I": lambda elements: dict(elements).items(),
    b"q": _fraction,
    b"r": _number_range,
}
_SCALARS: dict[bytes, Callable[[bytes], Any]] = {
    b"0": lambda body: None,
    b"b": lambda body: body == b"1",
    b"n": lambda body: int.from_bytes(body, "little", signed=True),
    b"f": lambda body: _DOUBLE.unpack(body)[0],
    b"c": lambda body: complex(_DOUBLE.unpack(body[:8])[0], _DOUBLE.unpack(body[8:])[0]),
    b"s": lambda body: body.decode("utf-8", "surrogatepass"),
    b"y": bytes,
    b"Y": bytearray,
    b"t": lambda body: _TYPES[body.decode("ascii")],
    b"m": _decimal,
    b"g": _match,
}

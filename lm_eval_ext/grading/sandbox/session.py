"""The conversation with one program. Outside the sandbox.

Each message is its length in four bytes and one value as `lm_eval_ext.grading.sandbox.wire` writes
it. A request is ``(number, operation, *arguments)``; the reply ``(number, True, value)`` or
``(number, False, name of an exception)``. The program's process is not trusted: a reply with
another number, too long, late, cut short or no value at all ends the conversation, and the program
has failed.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from lm_eval_ext.grading.sandbox.limits import MAX_BYTES
from lm_eval_ext.grading.sandbox.wire import WireError, decode, encode

_STATUS = struct.Struct("<i")
_STATUS_SECONDS = 10.0
_MAX_AHEAD = 32_000  # bytes, which fit into a socket while nobody reads


class HandleError(TypeError):
    """A test asked a program's object for a truth that only plain data can give."""


class ProgramError(Exception):
    """An exception the program raised, by the name of its type."""


class ProgramGone(BaseException):
    """The program's process is gone, and why; no `BaseException` is caught by a test."""


class SandboxLost(BaseException):
    """The sandbox around the program is gone, which says nothing about the program."""


class Deadline:
    """A wall-clock limit in seconds for everything one program does, counted from now.

    When the time is up, ``extend`` is called once; the limit it returns, counted from the same
    start, holds instead.
    """

    def __init__(self, seconds: float, extend: Callable[[], float] | None = None) -> None:
        self._start = time.monotonic()
        self._seconds, self._extend = seconds, extend

    def remaining(self) -> float:
        """Return the seconds left, zero or less when there are none."""
        left = self._start + self._seconds - time.monotonic()
        if left <= 0 and self._extend is not None:
            extend, self._extend = self._extend, None
            self._seconds = max(self._seconds, extend())
            return self.remaining()
        return left

    def spent(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self._start


def _refuse(self: Handle, *args: Any) -> NoReturn:
    raise HandleError("an object of the program is not plain data: it has no value to test")


class Handle:
    """An object of a program. It can be called, passed back, and its attributes read and set.

    It has no truth value, no length, no hash, no order, and is equal to nothing: each of these
    raises `HandleError`, because the answer would be the program's word on its own result.
    """

    __slots__ = ("_number", "_session")

    def __init__(self, session: Session, number: int) -> None:
        object.__setattr__(self, "_session", session)
        object.__setattr__(self, "_number", number)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the object; data comes back as data, anything else as a handle."""
        return self._session.call(self._number, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        # Special methods belong to the type; asking the program for them would hand it the
        # conversions, copies and comparisons of the tests.
        if name.startswith("__"):
            raise AttributeError(name)
        return self._session.get(self._number, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._session.set(self._number, name, value)

    def __repr__(self) -> str:
        return "<an object of the program>"

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __hash__ = __bool__ = __len__ = __iter__ = __contains__ = _refuse
    __str__ = __format__ = _refuse


class Session:
    """A program in a process of its own, with the sockets of `launch.Zygote.program`."""

    on_return: Callable[[Any], None] | None = None
    """Called with the value of every call that returned, before the caller gets it."""

    def __init__(self, channel: socket.socket, lease: socket.socket, deadline: Deadline) -> None:
        self._channel, self._lease, self.deadline = channel, lease, deadline
        self._number = 0
        self._end: ProgramGone | None = None
        self._ahead: deque[tuple[int, Any]] = deque()

    def load(
        self,
        source: str,
        names: Sequence[str],
        ahead: Sequence[tuple[str, tuple[Any, ...]]] = (),
        imports: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Run the program; return what it defines under the names, functions as handles.

        Calls ``ahead``, a name and arguments each, will be made next and in this order. They are
        asked for at once, which saves a wait per call: `call` then finds the reply under way. The
        ``imports`` are statements to run first; one that fails is passed over.

        Raises
        ------
        ProgramError
            If the program raises an exception or is not Python.
        ProgramGone
            If its process ends, or the time does. So do the other methods.
        """
        requests = [self._request("load", source, list(names), list(imports))]
        requests += [self._request("call_name", *call) for call in ahead]
        if sum(map(len, requests)) > _MAX_AHEAD:
            del requests[1:]
        self._number -= len(ahead) + 1 - len(requests)
        self._send(b"".join(requests))
        found = self._reply(self._number - len(requests) + 1)
        if type(found) is not dict:
            self._fail("malformed reply")
        calls = ahead[: len(requests) - 1]
        for number, (name, arguments) in enumerate(calls, self._number - len(calls) + 1):
            target = found.get(name)
            held = self._number_of(target) if type(target) is Handle else None
            self._ahead.append((number, (held, arguments)))
        return {name: value for name, value in found.items() if name in names}

    def call(self, target: int, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Call an object of the program."""
        while self._ahead:
            number, announced = self._ahead.popleft()
            if not keywords and _same(announced, (target, arguments)):
                value = self._reply(number)
                break
            with contextlib.suppress(ProgramError):  # announced, but not made
                self._reply(number)
        else:
            value = self._ask("call", _Numbered(target), arguments, keywords)
        if self.on_return is not None:
            self.on_return(value)
        return value

    def get(self, target: int, name: str) -> Any:
        """Read an attribute of an object of the program."""
        return self._ask("get", _Numbered(target), name)

    def set(self, target: int, name: str, value: Any) -> None:
        """Set an attribute of an object of the program."""
        self._ask("set", _Numbered(target), name, value)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exception: object) -> None:
        """End the program."""
        self._channel.close()
        self._lease.close()

    def _number_of(self, value: Any) -> int:
        if type(value) is _Numbered:
            return value.number
        if type(value) is Handle and value._session is self:
            number: int = object.__getattribute__(value, "_number")
            return number
        raise WireError(f"an object of type {type(value).__name__}, which is not plain data")

    def _ask(self, operation: str, *arguments: Any) -> Any:
        """Send a request and return the value of its reply."""
        if self._end is not None:
            raise self._end
        self._send(self._request(operation, *arguments))
        return self._reply(self._number)

    def _request(self, operation: str, *arguments: Any) -> bytes:
        self._number += 1
        request = encode((self._number, operation, *arguments), self._number_of)
        return len(request).to_bytes(4, "little") + request

    def _send(self, requests: bytes) -> None:
        try:
            self._channel.settimeout(self._left())
            self._channel.sendall(requests)
        except TimeoutError:
            self._fail("timeout")
        except OSError:
            self._ended()

    def _reply(self, expected: int) -> Any:
        """Wait for the reply to a request and return its value."""
        if self._end is not None:
            raise self._end
        try:
            length = int.from_bytes(self._exactly(4), "little")
            if length > 2 * MAX_BYTES:
                self._fail("malformed reply")
            reply = self._exactly(length)
        except TimeoutError:
            self._fail("timeout")
        except OSError:
            self._ended()
        try:
            reply = decode(reply, lambda number: Handle(self, number))
        except WireError:
            self._fail("malformed reply")
        if self.deadline.remaining() <= 0:  # the time it took to read counts too
            self._fail("timeout")
        match reply:
            case (int(number), True, value) if number == expected:
                return value
            case (int(number), False, str(name)) if number == expected:
                raise ProgramError(_readable(name))
        self._fail("malformed reply")

    def _left(self) -> float:
        left = self.deadline.remaining()
        if left <= 0:
            raise TimeoutError
        return left

    def _exactly(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            try:
                self._channel.settimeout(self._left())
                more = self._channel.recv(min(length - len(data), 2**16))
            except TimeoutError:
                if self.deadline.remaining() > 0:  # the limit was extended
                    continue
                raise
            if not more:
                raise ConnectionError
            data += more
        return bytes(data)

    def _ended(self) -> NoReturn:
        """Find out how the process ended."""
        self._lease.settimeout(_STATUS_SECONDS)
        try:
            self._lease.shutdown(socket.SHUT_WR)
            status = self._lease.recv(_STATUS.size)
        except OSError:
            status = b""
        if len(status) < _STATUS.size:
            raise SandboxLost
        self._fail(_cause(_STATUS.unpack(status)[0]))

    def _fail(self, reason: str) -> NoReturn:
        self._end = ProgramGone(reason)
        raise self._end


def _same(announced: tuple[int | None, Any], made: tuple[int, Any]) -> bool:
    """Return whether two calls are the same to the last detail, types included."""
    try:
        return announced[0] == made[0] and encode(announced[1]) == encode(made[1])
    except WireError:
        return False


class _Numbered:
    """The number of an object of the program, to be sent as a handle."""

    def __init__(self, number: int) -> None:
        self.number = number


def _readable(name: str) -> str:
    """Return the name of an exception as far as it is safe to show."""
    return re.sub(r"[^\w .,-]", "?", name[:120], flags=re.ASCII) or "an exception"


def _cause(status: int) -> str:
    """Say how a process ended, from what `os.waitpid` told."""
    if not os.WIFSIGNALED(status):
        return "exited"
    number = os.WTERMSIG(status)
    # Killed by the limit on processor time, or because it closed its channel and went on.
    if number in (signal.SIGKILL, signal.SIGXCPU):
        return "killed"
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"

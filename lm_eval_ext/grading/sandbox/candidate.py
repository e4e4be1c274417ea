"""Run one program and call what it defines, on requests from outside. Inside the sandbox.

This code shares its process with the program, which can change it. That is why it holds nothing to
protect: it sees the program and the arguments of calls, never a test or an expected value, and what
it sends back counts as data, whoever wrote it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import types
from typing import Any

from lm_eval_ext.grading.sandbox.limits import MAX_BYTES
from lm_eval_ext.grading.sandbox.wire import WireError, decode, encode

MODULE = "candidate"
"""Name of the module a program runs as; not ``__main__``, so its own demonstration does not run."""


class _Kept:
    """An object that is to be sent as a handle even where it could be sent as data."""

    def __init__(self, value: Any) -> None:
        self.value = value


class _Program:
    """The program's module and the objects that the outside holds handles for."""

    def __init__(self) -> None:
        self.module = types.ModuleType(MODULE)
        self.objects: list[Any] = []

    def number_of(self, value: Any) -> int:
        self.objects.append(value.value if type(value) is _Kept else value)
        return len(self.objects) - 1

    def load(self, source: str, names: list[str], imports: list[str]) -> dict[str, Any]:
        """Run the imports and the source; return what is then found under the names."""
        sys.modules[MODULE] = self.module
        space = self.module.__dict__
        for statement in imports:
            with contextlib.suppress(Exception):  # not there, perhaps, and perhaps not used
                exec(compile(statement, "<imports>", "exec", dont_inherit=True), space)
        exec(compile(source, f"<{MODULE}>", "exec", dont_inherit=True), space)
        found = {name: space[name] for name in names if name in space}
        return {name: _Kept(value) if callable(value) else value for name, value in found.items()}

    def call_name(self, name: str, arguments: Any) -> Any:
        return self.module.__dict__[name](*arguments)

    def call(self, target: Any, arguments: Any, keywords: dict[str, Any]) -> Any:
        return target(*arguments, **keywords)

    def get(self, target: Any, name: str) -> Any:
        return getattr(target, name)

    def set(self, target: Any, name: str, value: Any) -> None:
        setattr(target, name, value)

    def answer(self, request: bytes) -> bytes:
        """Do what a request asks; return the reply, an exception's name if there was one."""
        number, operation, *arguments = decode(request, self.objects.__getitem__)
        try:
            value = getattr(self, operation)(*arguments)
            return encode((number, True, value), self.number_of)
        except WireError as error:
            return encode((number, False, f"result is {error}"[:200]))
        except BaseException as error:
            # `sys.exit()` ends here too, and counts as the exception it is.
            return encode((number, False, type(error).__name__[:100]))


def serve(channel: int) -> None:
    """Answer requests, their length first, until the other side closes the channel."""
    program = _Program()
    while True:
        length = int.from_bytes(_exactly(channel, 4), "little")
        if length > 2 * MAX_BYTES:
            os._exit(1)
        reply = program.answer(_exactly(channel, length))
        data = len(reply).to_bytes(4, "little") + reply
        while data:
            data = data[os.write(channel, data) :]


def _exactly(channel: int, length: int) -> bytes:
    data = b""
    while len(data) < length:
        more = os.read(channel, min(length - len(data), 2**20))
        if not more:
            os._exit(0)
        data += more
    return data

"""What stands, outside the sandbox, for an object inside it."""

from __future__ import annotations

from typing import Any, NoReturn, Protocol


class HandleError(TypeError):
    """A test asked a program's object for a truth that only plain data can give."""


class Conversation(Protocol):
    """What a handle asks of a `lm_eval_ext.grading.sandbox.session.Session`."""

    def call(self, target: int, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Call an object of the program."""

    def get(self, target: int, name: str) -> Any:
        """Read an attribute of an object of the program."""

    def set(self, target: int, name: str, value: Any) -> None:
        """Set an attribute of an object of the program."""


def _refuse(self: Handle, *args: Any) -> NoReturn:
    raise HandleError("an object of the program is not plain data: it has no value to test")


class Handle:
    """An object of a program. It can be called, passed back, and its attributes read and set.

    It has no truth value, no length, no hash, no order, and is equal to nothing: each of these
    raises `HandleError`, because the answer would be the program's word on its own result.

    Parameters
    ----------
    session
        The conversation with the program.
    number
        The number under which the program's process keeps the object.
    """

    __slots__ = ("_number", "_session")

    def __init__(self, session: Conversation, number: int) -> None:
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

"""JSON Lines files that a kill may have cut off: their complete lines, and what follows them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval_ext.models.digests import digest

logger = logging.getLogger(__name__)

_dumps = partial(json.dumps, ensure_ascii=True, separators=(",", ":"))

KINDS = ("key", "context", "group")
"""What a line of a store holds: an attempt, or what attempts have in common; version 0.1 also wrote
``group`` lines, which are skipped."""


class Line(NamedTuple):
    """A line of a file: its number from 1, and its bytes without the end, where it has one."""

    number: int
    offset: int
    data: bytes
    complete: bool


def read_lines(path: Path) -> Iterator[Line]:
    """Yield the lines of a file, which may be growing, a cut-off last one too."""
    offset = 0
    with path.open("rb") as file:
        for number, data in enumerate(file, start=1):
            complete = data.endswith(b"\n")
            yield Line(number, offset, data[:-1] if complete else data, complete)
            offset += len(data)


def drop_unfinished_line(path: Path, *, what: str = "what it held") -> bool:
    """Cut off a last line that a kill left without its end, and return whether there was one.

    The file may be missing; `what` names what a line holds.
    """
    if not path.exists():
        return False
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end == len(content):
        return False
    with path.open("r+b") as file:
        file.truncate(end)
    logger.warning(
        "%s: the last line was cut off (%d bytes) and is dropped; %s is made again",
        path,
        len(content) - end,
        what,
    )
    return True


def encode_line(kind: str, name: str, value: Any) -> bytes:
    """Return a line with its end: a name, and plain JSON values with their checksum.

    The kind, one of `KINDS`, comes first, so that a line is recognized by its beginning.
    """
    line = {kind: name, "sum": digest(_dumps(value))[:16], "value": value}
    return _dumps(line).encode("ascii") + b"\n"


def decode_line(data: bytes) -> tuple[str, str, Any]:
    """Return (kind, name, value) of a line, checked.

    Raises
    ------
    ValueError
        If it is damaged or something else.
    """
    line = json.loads(data)
    if not isinstance(line, Mapping) or len(line) != 3:
        raise ValueError("no line of a store")
    kind = next(iter(line))
    if kind not in KINDS or digest(_dumps(line.get("value")))[:16] != line.get("sum"):
        raise ValueError("damaged")
    return kind, line[kind], line["value"]

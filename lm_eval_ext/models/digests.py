"""Short hashes of settings and data, the same on every machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np

_SIZE = 16


def digest(*parts: str | bytes) -> str:
    """Return a hash of parts and of where each ends, 32 hexadecimal characters.

    Examples
    --------
    >>> digest("a", "bc") == digest("ab", "c"), len(digest("a"))
    (False, 32)
    """
    result = hashlib.blake2b(digest_size=_SIZE)
    for part in parts:
        data = part.encode("utf-8", errors="surrogatepass") if isinstance(part, str) else part
        result.update(len(data).to_bytes(8, "little"))
        result.update(data)
    return result.hexdigest()


def canonical(value: Any) -> str:
    """Return settings as JSON text that is the same for the same settings.

    Examples
    --------
    >>> canonical({"b": 1, "a": (2.5, None)})
    '{"a":[2.5,null],"b":1}'
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=_plain
    )


def _plain(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=str)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, PurePath):
        return str(value)
    return repr(value)

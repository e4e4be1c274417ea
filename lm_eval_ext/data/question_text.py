"""What a question asks, whatever a prompt has around it: to know it again, and its twins."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

_FIELDS = ("question", "problem", "text")
_NUMBER = re.compile(r"[0-9][0-9.,]*")


def question_text(record: Mapping[str, Any], *, otherwise: str) -> str:
    """Return a question's own text, spaces even; of a code problem also its tests.

    ``otherwise`` stands for it where the record has no text under a known name, as the prompt can.

    Examples
    --------
    >>> question_text({"question": "2 +  2?", "answer": "4"}, otherwise="Q: 2 + 2?")
    '2 + 2?'
    """
    found = (record[name] for name in _FIELDS if isinstance(record.get(name), str))
    parts = [next(found, otherwise)]
    if isinstance(record.get("test_list"), list):
        parts += map(str, record["test_list"])
    return " ".join(" ".join(parts).split())


def masked(text: str) -> str:
    """Return a text with every number as 0, in small letters: equal for equal templates.

    Examples
    --------
    >>> masked("Ann has 1,200 pens.")
    'ann has 0 pens.'
    """
    # A full stop or comma after a number is none of its digits.
    return _NUMBER.sub(lambda match: "0" + match[0][len(match[0].rstrip(".,")) :], text.lower())


def text_hash(text: str) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of a text.

    Examples
    --------
    >>> text_hash("2+2=")
    '20243c49d24c4af1'
    """
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()[:16]

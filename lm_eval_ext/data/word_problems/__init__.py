"""MAWPS and SVAMP: questions as text, exact answers, and a split without leaks.

MAWPS repeats itself: many problems differ in names and numbers only. Its training and test side are
therefore chosen by groups of near-duplicates (`recipes/mawps_split.py`) and kept as
hashes of the texts, so that the sides are the same whether the records come from the Hub or from a
file. A problem whose text is in neither list is left out. Where a question of SVAMP has a
near-duplicate in MAWPS is kept in the same way.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

from lm_eval_ext.data.rounding import WrittenDecimal, exact_gold, terminates
from lm_eval_ext.errors import UserError

SPLIT_FILE = Path(__file__).with_name("split.json")
"""The hashes: those of MAWPS under ``train`` and ``test``, those of SVAMP under ``svamp_twins``."""

CORRECTED_SVAMP = {"chal-680": 5}
"""Answers of SVAMP that differ from what their own equation, and the question, say. chal-680: of 4
apples 2 are picked and 3 grow, published as ``(4 - 2) + 3`` with the answer 1."""

NUMBER = re.compile(r"[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+")

logger = logging.getLogger(__name__)


def plain(question: str, *, masked: bool = False) -> str:
    """Return a question's letters and numbers, whatever the case, spacing and punctuation.

    With ``masked``, every number is written as 0.

    Examples
    --------
    >>> plain("Joan 's dog ate 7.0 of 1,200 treats .")
    'joansdogate7of1200treats'
    >>> plain("Joan's dog ate 7 of 1200 treats.", masked=True)
    'joansdogate0of0treats'
    """
    text = NUMBER.sub(lambda match: "0" if masked else _digits(match[0]), question.lower())
    return re.sub(r"[^a-z0-9.]|\.(?![0-9])", "", text)


def _digits(number: str) -> str:
    number = number.replace(",", "")
    return number.rstrip("0").rstrip(".") if "." in number else number


def key(question: str) -> str:
    """Return the hash under which a question is kept, 12 hexadecimal digits; numbers are masked.

    Examples
    --------
    >>> key("Joan 's dog ate 7.0 treats .") == key("Joan's dog ate 12 treats.")
    True
    """
    return hashlib.sha256(plain(question, masked=True).encode()).hexdigest()[:12]


def keys(name: str) -> frozenset[str]:
    """Return the hashes kept under ``train``, ``test`` or ``svamp_twins``."""
    return _all_keys(SPLIT_FILE)[name]


@functools.cache
def _all_keys(path: Path) -> dict[str, frozenset[str]]:
    kept = json.loads(path.read_text(encoding="utf-8"))
    return {name: frozenset(hashes) for name, hashes in kept.items()}


def answer(published: float | str) -> str:
    """Return a published answer as text: an integer, a decimal that ends, or a fraction.

    Raises
    ------
    UserError
        If it is not a number.

    Examples
    --------
    >>> answer(14.0), answer(23.86), answer(0.6666666667), answer("56/9"), answer("7/2")
    ('14', '23.86', '2/3', '56/9', '3.5')
    """
    text = str(published).strip().replace(",", "")
    try:
        written = WrittenDecimal(text) if "." in text else Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise UserError(f"answer={published!r} is not a number: fetch the data again") from error
    number = exact_gold(written)
    if not terminates(number):
        return str(number)
    return format(Decimal(number.numerator) / Decimal(number.denominator), "f")


def mawps(
    records: Iterable[Mapping[str, Any]], split: str, *, single_step: bool = False
) -> list[dict[str, Any]]:
    """Return one side of MAWPS, ``train`` or ``test``, without exact duplicates.

    Parameters
    ----------
    records
        Records of the local file (``subset``, ``question``, ``answer``) or of the Hub
        (``question``, ``result``, ``equation``).
    single_step
        Whether only problems with one operation are wanted: those of the subset ``singleop`` or,
        where there are no subsets, those whose equation has one operator.

    Returns
    -------
    list of dict
        ``question`` and ``answer``, which ends ``#### N`` as GSM8K's (for N see `answer`).
    """
    sides = {side: keys(side) for side in ("train", "test")}
    known = frozenset[str]().union(*sides.values())
    chosen: dict[str, dict[str, Any]] = {}
    unknown = set()
    for record in records:
        question = record["question"]
        hashed = key(question)
        if hashed not in known:
            unknown.add(plain(question))
        # Of equal problems the first stands for all, whichever subset the others are in.
        elif hashed in sides[split] and plain(question) not in chosen:
            chosen[plain(question)] = dict(record)
    if unknown:
        logger.info("MAWPS: %d problems that the split does not know are left out", len(unknown))
    return [
        {
            "question": record["question"],
            "answer": f"#### {answer(record['answer' if 'answer' in record else 'result'])}",
        }
        for record in chosen.values()
        if not single_step or is_single_step(record)
    ]


def is_single_step(record: Mapping[str, Any]) -> bool:
    """Tell whether a problem of MAWPS takes one operation.

    Examples
    --------
    >>> is_single_step({"subset": "addsub"}), is_single_step({"equation": "x = 7.0 - -2.0"})
    (False, True)
    >>> is_single_step({"equation": "X=(7+2)*3"}), is_single_step({"equation": "x=5"})
    (False, False)
    """
    if "subset" in record:
        return bool(record["subset"] == "singleop")
    # An operator has something on its left; a sign has nothing, "=", "(" or another operator.
    return len(re.findall(r"[A-Za-z0-9.)]\s*[-+*/]", record["equation"])) == 1


def svamp(
    records: Iterable[Mapping[str, Any]], split: str, *, untwinned: bool = False
) -> list[dict[str, Any]]:
    """Return the questions of SVAMP; ``test`` is the only split: it was made to test.

    With ``untwinned``, questions that have a near-duplicate in MAWPS are left out.

    Returns
    -------
    list of dict
        ``id``, ``question`` (the body, then the question), ``answer`` (``#### N``, where the
        published one is wrong that of `CORRECTED_SVAMP`) and ``has_twin``.
    """
    twins = keys("svamp_twins")
    questions = []
    for record in records:
        question = svamp_question(record)
        questions.append(
            {
                "id": record["ID"],
                "question": question,
                "answer": f"#### {answer(CORRECTED_SVAMP.get(record['ID'], record['Answer']))}",
                "has_twin": key(question) in twins,
            }
        )
    return [each for each in questions if not (untwinned and each["has_twin"])]


def svamp_question(record: Mapping[str, Any]) -> str:
    """Return the body and the question of a record of SVAMP as one text."""
    return f"{record['Body'].strip()} {record['Question'].strip()}"

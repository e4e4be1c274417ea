"""Split MAWPS into halves without a leak, and find SVAMP's near-duplicates in it.

    python recipes/mawps_split.py FOLDER

reads ``mawps.jsonl`` and ``svamp.jsonl`` from the folder and writes ``split.json`` into
`lm_eval_ext.data.word_problems`. Two questions are near-duplicates if their words, with names and
numbers masked, have a Jaccard similarity of .8 or more. The split joins questions from .7 on, and
both with names masked and with all words written large, so that near-duplicates are on one side
also where words or names are told apart in another way.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from lm_eval_ext.data.word_problems import NUMBER, SPLIT_FILE, key, plain, svamp_question

JOINED_FROM = 0.7
"""Jaccard similarity from which two questions are in one group."""

_WORD = re.compile(r"[A-Za-z]+")
_SENTENCE_END = re.compile(r"[.?!]\s")


def names(questions: Iterable[str]) -> frozenset[str]:
    """Return the words that are written large inside a sentence more often than small.

    Examples
    --------
    >>> sorted(names(["Now Ann has 3 pens. Then Mark gives Ann a mark.", "Ann and Mark mark it."]))
    ['Ann']
    """
    large: Counter[str] = Counter()
    small: Counter[str] = Counter()
    for question in questions:
        for sentence in _SENTENCE_END.split(question):
            for place, word in enumerate(_WORD.findall(sentence)):
                if word[0].islower():
                    small[word] += 1
                elif place:
                    large[word] += 1
    return frozenset(word for word in large if large[word] > small[word.lower()])


def masked_words(question: str, names: frozenset[str] | None = None) -> frozenset[str]:
    """Return the set of a question's words, names as ``NAME`` and numbers as ``0``.

    Parameters
    ----------
    question
        The text.
    names
        The words that are names; by default every word that is written large.

    Examples
    --------
    >>> sorted(masked_words("The dog ate 7.5 treats of Ann.", frozenset({"Ann"})))
    ['0', 'NAME', 'ate', 'dog', 'of', 'the', 'treats']
    """
    words = re.findall(r"[A-Za-z]+|0", NUMBER.sub(" 0 ", question))
    masked = (word[0].isupper() if names is None else word in names for word in words)
    return frozenset("NAME" if m else w.lower() for m, w in zip(masked, words, strict=True))


def similar_pairs(
    left: Sequence[frozenset[str]], right: Sequence[frozenset[str]], threshold: float
) -> Iterator[tuple[int, int]]:
    """Yield the places of all pairs whose Jaccard similarity is at least ``threshold``."""
    places = defaultdict(list)
    for place, words in enumerate(right):
        for word in words:
            places[word].append(place)
    for i, words in enumerate(left):
        shared = Counter(place for word in words for place in places[word])
        for j, n_shared in shared.items():
            if n_shared >= threshold * (len(words) + len(right[j]) - n_shared):
                yield i, j


def related(
    left: Sequence[str], right: Sequence[str], names: frozenset[str]
) -> Iterator[tuple[int, int]]:
    """Yield the places of all pairs of questions that the split joins, some of them twice."""
    for known in (names, None):
        words = [[masked_words(question, known) for question in side] for side in (left, right)]
        yield from similar_pairs(words[0], words[1], JOINED_FROM)


def groups(questions: Sequence[str], names: frozenset[str]) -> list[list[int]]:
    """Return the places of the questions by group: near-duplicates, and theirs, are in one."""
    parents = list(range(len(questions)))

    def root(place: int) -> int:
        while parents[place] != place:
            parents[place] = parents[parents[place]]
            place = parents[place]
        return place

    for i, j in related(questions, questions, names):
        parents[root(i)] = root(j)
    found = defaultdict(list)
    for place in range(len(questions)):
        found[root(place)].append(place)
    return list(found.values())


def halves(problems: Sequence[Mapping[str, str]], names: frozenset[str]) -> dict[str, list[int]]:
    """Return the places of the problems on either side; each subset is halved as well.

    The largest groups come first, each to the side that it leaves more even.
    """
    found = groups([problem["question"] for problem in problems], names)
    found.sort(key=lambda group: (-len(group), key(problems[group[0]]["question"])))
    balance: Counter[str] = Counter()  # subset -> problems in train less those in test
    sides: dict[str, list[int]] = {"train": [], "test": []}
    for group in found:
        sizes = Counter(problems[place]["subset"] for place in group)
        uneven = {
            sign: sum(abs(balance[s] + sign * sizes[s]) for s in {*balance, *sizes})
            for sign in (1, -1)
        }
        sign = 1 if uneven[1] <= uneven[-1] else -1
        sides["train" if sign == 1 else "test"] += group
        for subset, size in sizes.items():
            balance[subset] += sign * size
    return sides


def compute(
    mawps: Iterable[Mapping[str, str]], svamp: Iterable[Mapping[str, str]]
) -> dict[str, list[str]]:
    """Return what `SPLIT_FILE` holds, from the published records."""
    problems = list({plain(record["question"]): record for record in [*mawps][::-1]}.values())[::-1]
    texts = [problem["question"] for problem in problems]
    questions = [svamp_question(record) for record in svamp]
    known = names([*texts, *questions])
    sides = halves(problems, known)
    twins = {i for i, _ in related(questions, texts, known)}
    kept = {side: {key(texts[i]) for i in sides[side]} for side in sides}
    kept["svamp_twins"] = {key(questions[i]) for i in twins}
    return {name: sorted(hashes) for name, hashes in kept.items()}


def main() -> None:
    """Write the split."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="with mawps.jsonl and svamp.jsonl")
    folder = parser.parse_args().folder
    kept = compute(
        *(
            [json.loads(line) for line in (folder / name).open(encoding="utf-8")]
            for name in ("mawps.jsonl", "svamp.jsonl")
        )
    )
    SPLIT_FILE.write_text(json.dumps(kept, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Calibration data: the token sequences on which heads are scored.

A source is one of

- ``tiny``, or ``tiny:SPLIT``: generated problems of the validation split, or of another, with their
  answers, for the shipped models;
- the path of a local text file (``.txt``, ``.md``: one text) or JSON Lines file (a text per line);
- the name of an lm-eval task, tag or group, several joined by ``+``: their rendered prompts;
- a data set of the Hub as ``ID[:CONFIGURATION[:SPLIT]]``.

Text becomes segments of equal length, each with the tokens before it that the tokenizer puts
before every text (BOS). Prompts and problems stay as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lm_eval_ext.errors import UserError
from lm_eval_ext.harness import requests as harness
from lm_eval_ext.models.shipped import SHIPPED, model_path

if TYPE_CHECKING:
    from lm_eval.models.huggingface import HFLM

HUB_TEXT = "Salesforce/wikitext:wikitext-2-raw-v1:train"
"""The default source for calibration."""

HUB_TEST_TEXT = "Salesforce/wikitext:wikitext-2-raw-v1:test"
"""The default source for perplexity."""

TINY = "tiny"
TEXT_FIELDS = ("text", "content", "prompt", "question", "problem")
_FILES = (".txt", ".md", ".jsonl", ".json")
_DEFAULT_SPLIT = "train"


class CalibrationSet(NamedTuple):
    """Token sequences, and a record with which they can be checked and repeated."""

    prompts: tuple[tuple[int, ...], ...]
    record: dict[str, Any]


def default_source(pretrained: object, *, test: bool = False) -> str:
    """Return the source for a model: the Hub's text, or ``tiny`` for a shipped model.

    With `test`, the text to measure on, which differs from the text to calibrate on.

    Examples
    --------
    >>> default_source("tiny"), default_source("tiny", test=True)
    ('tiny', 'tiny:test')
    >>> default_source("meta-llama/Llama-3.1-8B") == HUB_TEXT
    True
    """
    shipped = {*SHIPPED, *map(model_path, SHIPPED)}
    if isinstance(pretrained, str) and pretrained in shipped:
        return f"{TINY}:test" if test else TINY
    return HUB_TEST_TEXT if test else HUB_TEXT


def calibration_set(lm: HFLM, source: str, *, size: int, length: int = 512) -> CalibrationSet:
    """Read at most `size` sequences from a source (see the module).

    Segments of text have `length` tokens, BOS included; prompts are cut to the model's longest
    input.

    Raises
    ------
    UserError
        If the source is unknown, cannot be read, or holds no text.
    """
    for name, value, minimum in (("calibration_size", size, 1), ("length", length, 2)):
        if value < minimum:
            raise UserError(f"{name}={value} must be at least {minimum}")
    longest = int(lm.max_length)
    if source.partition(":")[0] == TINY:
        prompts = _tokenized(lm, _tiny_documents(source, size), longest)
    elif Path(source).suffix.lower() in _FILES:
        prompts = _segments(lm, _file_texts(Path(source)), size, min(length, longest))
    elif "/" in source:
        prompts = _segments(lm, _hub_texts(source), size, min(length, longest))
    else:
        prompts = _tokenized(lm, _task_prompts(source, size), longest)
    if not prompts:
        raise UserError(f"calibration={source} holds no text of {length} tokens: lower the length")
    return CalibrationSet(tuple(prompts), _record(lm, source, prompts))


def _record(lm: HFLM, source: str, prompts: Sequence[tuple[int, ...]]) -> dict[str, Any]:
    first = Counter(prompt[0] for prompt in prompts)
    token_id, count = first.most_common(1)[0]
    return {
        "source": source,
        "sha256": hashlib.sha256(json.dumps(prompts).encode()).hexdigest(),
        "n_prompts": len(prompts),
        "n_tokens": sum(map(len, prompts)),
        "token_0_id": token_id,
        "token_0": str(lm.tokenizer.convert_ids_to_tokens(token_id)),
        "token_0_share": count / len(prompts),
        "add_bos_token": lm.add_bos_token,
    }


def _tokenized(lm: HFLM, texts: Iterable[str], longest: int) -> list[tuple[int, ...]]:
    sequences = (tuple(harness.prompt_tokens(lm, text)[:longest]) for text in texts)
    return [sequence for sequence in sequences if sequence]


def _segments(lm: HFLM, texts: Iterable[str], size: int, length: int) -> list[tuple[int, ...]]:
    """Cut texts, one after the other, into segments of `length` tokens."""
    before = tuple(harness.prompt_tokens(lm, ""))
    segments: list[tuple[int, ...]] = []
    rest: list[int] = []
    room = length - len(before)
    for text in texts:
        tokens = tuple(harness.prompt_tokens(lm, text))
        rest += tokens[len(before) :] if tokens[: len(before)] == before else tokens
        while len(rest) >= room:
            segments.append(before + tuple(rest[:room]))
            rest = rest[room:]
            if len(segments) == size:
                return segments
    if not segments and len(rest) > 1:
        segments.append(before + tuple(rest))  # a short file is one short segment
    return segments


def _tiny_documents(source: str, size: int) -> Iterator[str]:
    from lm_eval_ext.data.tiny.formats import FAMILIES, TARGET_DELIMITER, prompt, target
    from lm_eval_ext.data.tiny.problems import load_split

    split = source.partition(":")[2] or "validation"
    if split not in ("train", "validation", "test"):
        raise UserError(f"calibration={source}: {split!r} is not one of train, validation, test")
    per_family = -(-size // len(FAMILIES))
    splits = [load_split(family, split, size=per_family) for family in FAMILIES]
    documents = (
        prompt(family, doc) + TARGET_DELIMITER[family] + target(family, doc)
        for docs in zip(*splits, strict=True)
        for family, doc in zip(FAMILIES, docs, strict=True)
    )
    return islice(documents, size)


def _file_texts(path: Path) -> Iterator[str]:
    if not path.is_file():
        raise UserError(f"calibration={path} is not there: give the path of a text or JSONL file")
    if path.suffix.lower() in (".txt", ".md"):
        yield path.read_text(encoding="utf-8")
        return
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield _text_of(json.loads(line))
                except (ValueError, LookupError, TypeError) as error:
                    raise UserError(
                        f"calibration={path}: line {number} is not a JSON string, or an object "
                        f"with one of the fields {', '.join(TEXT_FIELDS)}"
                    ) from error


def _text_of(record: Any) -> str:
    if isinstance(record, str):
        return record
    for field in TEXT_FIELDS:
        if field in record:
            return str(record[field])
    raise KeyError(TEXT_FIELDS[0])


def _hub_texts(source: str) -> Iterator[str]:
    import datasets

    repository, _, rest = source.partition(":")
    configuration, _, split = rest.partition(":")
    try:
        data = datasets.load_dataset(
            repository, configuration or None, split=split or _DEFAULT_SPLIT, streaming=True
        )
        yield from (_text_of(record) for record in data)
    except Exception as error:  # the library has many: no network, no such name, no such split
        first_line = str(error).partition("\n")[0]
        raise UserError(
            f"calibration={source} cannot be read ({type(error).__name__}: {first_line}); give a "
            "local text or JSONL file, or the name of a task"
        ) from error


def _task_prompts(source: str, size: int) -> list[str]:
    """Return the first prompts of tasks, evenly over them, each once."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager()
    names = source.split("+")
    if not set(names) <= set(manager.all_tasks):
        raise UserError(
            f"calibration={source} is neither {TINY!r}, a file ({', '.join(_FILES)}), an lm-eval "
            "task, nor a data set of the Hub (ID[:CONFIGURATION[:SPLIT]])"
        )
    tasks = list(manager.load(names)["tasks"].values())
    prompts: dict[str, None] = {}
    for task in tasks:
        task.build_all_requests(limit=-(-size // len(tasks)))
        prompts.update(dict.fromkeys(str(instance.args[0]) for instance in task.instances))
    return list(prompts)[:size]

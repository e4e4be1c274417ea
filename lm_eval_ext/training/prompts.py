"""Where training prompts come from: a published data set, generated problems, or a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from lm_eval_ext.errors import UserError

TINY_SIZE = 4000
"""Problems taken from an endless generated split when no number is asked for."""


@dataclass(frozen=True)
class PromptSet:
    """Prompts and the strings that end a response to them.

    Parameters
    ----------
    prompts
        Distinct prompts, in the order of their source.
    stop
        Stop strings; the end-of-sequence token always ends a response.
    """

    prompts: tuple[str, ...]
    stop: tuple[str, ...] = ()


def load_prompts(
    source: str, *, limit: int | None = None, data_folder: str | None = None
) -> PromptSet:
    """Read the prompts of a source; repeated ones count once.

    Parameters
    ----------
    source
        ``gsm8k:train`` (eight-shot chain of thought, as the task ``gsm8k_passn`` asks),
        ``gsm8k_zero_shot:train`` (``Question: ... Answer:``), ``tiny_gsm8k:train``,
        ``tiny_math:train`` or ``tiny_mbpp:train``, ``tiny_gsm8k:train_hard`` (and so on: training
        problems as difficult as those of the test split), or a JSON Lines file whose records have
        a field ``prompt``. Several sources are joined by ``+``.
    limit
        Most prompts of each source, from its beginning.
    data_folder
        Folder of published data files; see `lm_eval_ext.datasets`.

    Raises
    ------
    UserError
        For an unknown source, a damaged file, or a source without prompts.

    Examples
    --------
    >>> load_prompts("tiny_gsm8k:train", limit=3).stop
    ('Question:',)
    """
    if limit is not None and limit < 1:
        raise UserError(f"num_prompts={limit} must be at least 1")
    sets = [_load_one(part, limit, data_folder) for part in source.split("+")]
    prompts = dict.fromkeys(prompt for part in sets for prompt in part.prompts)
    stop = dict.fromkeys(text for part in sets for text in part.stop)
    if not prompts:
        raise UserError(f"prompts={source} has no prompts")
    return PromptSet(tuple(prompts), tuple(stop))


def _load_one(source: str, limit: int | None, data_folder: str | None) -> PromptSet:
    path = Path(source).expanduser()
    if path.is_file():
        return _from_file(path, limit)
    name, _, split = source.partition(":")
    readers: dict[str, Callable[[], PromptSet]] = {
        "gsm8k": lambda: _published(split, limit, data_folder, few_shot=True),
        "gsm8k_zero_shot": lambda: _published(split, limit, data_folder, few_shot=False),
        **{
            f"tiny_{family}": lambda family=family: _generated(family, split, limit)  # type: ignore[misc]
            for family in ("gsm8k", "math", "mbpp")
        },
    }
    if name not in readers:
        known = ", ".join(f"{reader}:train" for reader in readers)
        raise UserError(
            f"prompts={source} is no file and no known source: use {known} or a JSON Lines file "
            "whose records have a field 'prompt'"
        )
    return readers[name]()


def _from_file(path: Path, limit: int | None) -> PromptSet:
    from lm_eval_ext.datasets import read_json_lines

    records = read_json_lines(path, fields=("prompt",))[:limit]
    wrong = [i for i, record in enumerate(records, 1) if not _is_text(record["prompt"])]
    if wrong:
        raise UserError(f"{path}, record {wrong[0]}: the field 'prompt' must be a text")
    return PromptSet(tuple(record["prompt"] for record in records))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _published(
    split: str, limit: int | None, data_folder: str | None, *, few_shot: bool
) -> PromptSet:
    from lm_eval_ext.datasets import load_split
    from lm_eval_ext.exemplars import gsm8k_exemplars

    records = load_split("gsm8k", split, data_folder=data_folder)
    questions = [record["question"] for record in islice(records, limit)]
    if not few_shot:
        return PromptSet(tuple(f"Question: {q}\nAnswer:" for q in questions), ("Question:",))
    shots = "".join(f"Q: {shot['question']}\nA: {shot['target']}\n\n" for shot in gsm8k_exemplars())
    return PromptSet(tuple(f"{shots}Q: {q}\nA:" for q in questions), ("Q:",))


def _generated(family: str, split: str, limit: int | None) -> PromptSet:
    from lm_eval_ext.tiny import formats
    from lm_eval_ext.tiny.problems import DEFAULT_SIZES, TEST_MIX, iter_problems

    hard = split == "train_hard"
    try:
        stream = iter_problems(
            family, "train" if hard else split, mix=TEST_MIX[family] if hard else None
        )
        # The stream knows which splits there are, and says so at its first problem.
        first = next(stream)
        size = limit or (TINY_SIZE if split.startswith("train") else DEFAULT_SIZES[family][split])
        records = [first, *islice(stream, size - 1)]
    except ValueError as error:
        raise UserError(f"prompts=tiny_{family}:{split}: {error}") from error
    prompts = tuple(formats.prompt(family, record) for record in records)
    stop = {"gsm8k": "Question:", "math": "Problem:", "mbpp": "[DONE]"}[family]
    return PromptSet(prompts, (stop,))

"""The target's responses to the training prompts, kept in a JSON Lines file that can be continued.

Every attempt draws from its own random stream, so what a file holds does not depend on where a
run was interrupted or on how many processes shared the work.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from lm_eval_ext.errors import UserError
from lm_eval_ext.harness import requests as harness
from lm_eval_ext.store.lines import drop_unfinished_line, read_lines
from lm_eval_ext.training.drafts.settings import ResponseSettings
from lm_eval_ext.training.drafts.shards import prompt_hash

if TYPE_CHECKING:
    from lm_eval_ext.model_wrappers.sampled import SampledLM
    from lm_eval_ext.models.generation import Generation

logger = logging.getLogger(__name__)

# Responses are written after every so many: what a kill can lose.
_CHUNK = 256

Key = tuple[str, int]
"""A response's place: hash of its prompt, number of the attempt."""


def generate_responses(
    lm: SampledLM,
    prompts: Sequence[str],
    settings: ResponseSettings,
    *,
    folder: Path,
    rank: int = 0,
    world_size: int = 1,
) -> None:
    """Let the target respond to the prompts that have no response yet, and append to a file.

    Parameters
    ----------
    folder
        Where ``responses-<rank>.jsonl`` is; every such file in it is read.
    rank, world_size
        This process and how many there are; each takes every ``world_size``-th open prompt.
    """
    own = folder / f"responses-{rank}.jsonl"
    drop_unfinished_line(own, what="its response")
    known = set(read_responses(folder))
    attempts = range(settings.responses_per_prompt)
    mine = prompts[rank::world_size]
    names = {prompt: prompt_hash(prompt) for prompt in mine}
    open_prompts = [p for p in mine if any((names[p], i) not in known for i in attempts)]
    total = len(mine) * settings.responses_per_prompt
    per_chunk = max(1, _CHUNK // settings.responses_per_prompt)
    with (
        own.open("a", encoding="utf-8") as file,
        tqdm(
            total=total,
            initial=total - len(open_prompts) * settings.responses_per_prompt,
            desc="Target's responses",
            unit="response",
            disable=rank != 0,
        ) as progress,
    ):
        for start in range(0, len(open_prompts), per_chunk):
            chunk = [p for p in open_prompts[start : start + per_chunk] for _ in attempts]
            generations = harness.complete(lm, chunk, **settings.generation_kwargs())
            for prompt, generation in zip(chunk, generations, strict=True):
                if (names[prompt], generation.record.attempt) not in known:
                    file.write(json.dumps(_line(names[prompt], generation)) + "\n")
            file.flush()
            progress.update(len(chunk))


def _line(name: str, generation: Generation) -> dict[str, Any]:
    record = generation.record
    return {
        "prompt": name,
        "attempt": record.attempt,
        "token_ids": list(record.token_ids),
        "finish_reason": record.finish_reason,
        "n_prompt_tokens": record.n_prompt_tokens,
        "text": str(generation),
    }


def read_responses(folder: Path) -> dict[Key, dict[str, Any]]:
    """Read every response file of a folder.

    Raises
    ------
    UserError
        For a line that is not a response; the message names it.
    """
    result: dict[Key, dict[str, Any]] = {}
    for path in sorted(folder.glob("responses-*.jsonl")):
        for line in _lines(path):
            result.setdefault((line["prompt"], line["attempt"]), line)
    return result


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    fields = {"prompt", "attempt", "token_ids", "n_prompt_tokens"}
    for number, _, text, complete in read_lines(path):
        if not complete:
            return
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if not isinstance(line, dict) or not fields <= set(line):
            raise UserError(
                f"{path}, line {number} is not a response: delete the line, and the same command "
                "makes the response again"
            )
        yield line


@dataclass(frozen=True)
class Example:
    """One response to learn from."""

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.response_ids)


def examples_of(
    lm: SampledLM, prompts: Iterable[str], responses: Mapping[Key, Mapping[str, Any]], n: int
) -> list[list[Example]]:
    """Return the examples of each prompt."""
    result = []
    for prompt in prompts:
        token_ids, name = lm.prompt_token_ids(prompt), prompt_hash(prompt)
        lines = [responses[name, attempt] for attempt in range(n)]
        result.append(
            [
                Example(tuple(token_ids[-line["n_prompt_tokens"] :]), tuple(line["token_ids"]))
                for line in lines
                if line["token_ids"]
            ]
        )
    return result

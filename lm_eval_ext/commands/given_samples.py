"""Attempts that exist already: sample files of lm-eval, and JSON Lines of other tools."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard.run_files import RunFiles, files_of, read_samples
from lm_eval_ext.models.digests import canonical, digest

# How APIs and this package call an end by the end-of-sequence token.
_ENDED = ("eos", "stop")


def read_given(path: Path, grader: str | None) -> tuple[RunFiles, str]:
    """Return the run of a sample file, one made up for the lines of another tool, and its task.

    Parameters
    ----------
    path
        The file.
    grader
        Family of graders for another tool's lines, or None.

    Raises
    ------
    UserError
        If there is no such file, or it holds something else.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; give sample files of lm_eval, or JSON Lines")
    first = next(_lines(path), None)
    if first is None:
        raise UserError(f"{path}: holds no lines")
    if "doc_id" not in first:
        return _made_up(path, grader)
    for results in sorted(path.parent.glob("results_*.json")):
        files = files_of(results)
        for task, samples in files.samples.items():
            if samples.name == path.name:
                return files, task
    raise UserError(f"{path}: no results_*.json of its run beside it; give the file where it was")


def _made_up(path: Path, grader: str | None) -> tuple[RunFiles, str]:
    task = re.sub(r"\W+", "_", path.stem) or "responses"
    counts = [len(sample["attempts"]) for sample in samples_of(path)]
    n_samples = {"original": len(counts), "effective": len(counts)}
    metadata = {"attempts": max(counts), "metrics": "passn", "ungraded": True}
    if grader is not None:
        metadata["grader"] = grader
    results = {
        "results": {task: {}},
        "configs": {task: {"task": task, "metadata": metadata, "repeats": max(counts)}},
        "n-samples": {task: n_samples},
        "config": {"model": "responses", "model_args": {}},
        "model_name": path.stem,
    }
    stamp = time.strftime("%Y-%m-%dT%H-%M-%S")
    return RunFiles(path.with_name(f"results_{stamp}.json"), results, {task: path}), task


def samples_of(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the samples of a file; those of another tool in the form that lm-eval's have.

    Raises
    ------
    UserError
        For a line that is neither, or has no attempts; the message names it.
    """
    for number, line in enumerate(_lines(path), start=1):
        if "doc_id" in line:
            break
        yield _sample(path, number, line)
    else:
        return
    for sample in read_samples(path):
        if "attempts" not in sample:
            raise UserError(
                f"{path}: its samples have no attempts; run a task such as gsm8k_passn, or give "
                "lines with prompt and response"
            )
        yield sample


def _sample(path: Path, number: int, line: Mapping[str, Any]) -> dict[str, Any]:
    where = f"{path}, line {number}"
    prompt = line.get("prompt")
    if not isinstance(prompt, (str, list)) or not prompt:
        raise UserError(f"{where}: no prompt; give a text, or a list of chat messages")
    texts = line.get("responses", [line.get("response")])
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise UserError(f"{where}: no response; give a text, or a list of texts as responses")
    ends = line.get("finish_reason")
    ends = ends if isinstance(ends, list) else [ends] * len(texts)
    attempts: list[dict[str, Any]] = [{"attempt": i} for i in range(len(texts))]
    for attempt, end in zip(attempts, ends, strict=False):
        if end is not None:
            attempt["finish_reason"] = "eos" if end in _ENDED else str(end)
    doc = {k: v for k, v in line.items() if k not in ("response", "responses")}
    return {
        "doc_id": number - 1,
        "doc": doc,
        "target": "",
        "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": {}}},
        "resps": [texts],
        "filtered_resps": [texts],
        "filter": "none",
        "metrics": [],
        "doc_hash": digest("doc", canonical(doc)),
        "attempts": attempts,
    }


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, text in enumerate(file, start=1):
            try:
                line = json.loads(text)
            except json.JSONDecodeError as error:
                raise UserError(f"{path}, line {number}: not JSON (cut off?)") from error
            if not isinstance(line, dict):
                raise UserError(f"{path}, line {number}: not an object")
            yield line

"""A stored run: one small JSON file, lm-eval's results trimmed and one block of this package.

The block ``lm_eval_ext`` holds what tables and paired tests need: metrics with intervals, settings,
cost, the hash of the samples, and the value of every question. Texts are not in it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard.formatting import one_line
from lm_eval_ext.leaderboard.run_data import RunOutput, TaskDetails, TaskOutput
from lm_eval_ext.scoring.scores import Score

SCHEMA = "lm_eval_ext.result/1"

DECIMALS = 6
"""Of the values of single questions."""

DIGEST_DIGITS = 8

_KEPT = (
    "results",
    "groups",
    "group_subtasks",
    "versions",
    "n-shot",
    "higher_is_better",
    "n-samples",
    "config",
    "git_hash",
    "date",
    "transformers_version",
    "lm_eval_version",
    "task_hashes",
    "model_source",
    "model_name",
    "system_instruction_sha",
    "fewshot_as_multiturn",
    "chat_template_sha",
    "total_evaluation_time_seconds",
)
_KEPT_OF_TASK = (
    "task",
    "dataset_path",
    "dataset_name",
    "test_split",
    "output_type",
    "num_fewshot",
    "generation_kwargs",
    "repeats",
    "metadata",
)
_FOLDERS = re.compile(r"(?:(?<=^)|(?<==))(?:/|[A-Za-z]:\\)(?:[^,/\\]+[/\\])+")


def entry_of(run: RunOutput) -> dict[str, Any]:
    """Return a run as it is stored.

    Returns
    -------
    dict
        Plain JSON without NaN.
    """
    results = {key: run.results[key] for key in _KEPT if key in run.results}
    results["configs"] = {
        task: {key: config[key] for key in _KEPT_OF_TASK if key in config}
        for task, config in (run.results.get("configs") or {}).items()
    }
    for config in results["configs"].values():
        if isinstance(config.get("metadata"), dict):
            config["metadata"] = {
                k: v for k, v in config["metadata"].items() if k != "config_source"
            }
    block = {
        "schema": SCHEMA,
        "label": one_line(run.label),
        "digest": digest_of(run),
        "tasks": {task: _task_block(output) for task, output in run.tasks.items()},
    }
    return plain_json({**results, "lm_eval_ext": block})


def digest_of(run: RunOutput) -> str:
    """Return a short hash of what was run and came out, whatever the label."""
    told = {
        "results": run.results.get("results"),
        "config": run.results.get("config"),
        "date": run.results.get("date"),
        "samples": {t: o.details.samples_sha256 for t, o in run.tasks.items()},
    }
    text = json.dumps(plain_json(told), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_DIGITS]


def write_entry(
    run: RunOutput, store: Path, *, replace: bool = False, spare: Collection[Path] = ()
) -> Path:
    """Store a run.

    Parameters
    ----------
    replace
        Remove other entries with the same label, and leave the same run under the same label as
        it is.

    Returns
    -------
    Path
        The file, which is there completely or not at all.

    Raises
    ------
    UserError
        If the same run is stored already, and is not to be replaced or has another label.
    """
    entry = entry_of(run)
    digest = entry["lm_eval_ext"]["digest"]
    store.mkdir(parents=True, exist_ok=True)
    label = entry["lm_eval_ext"]["label"]
    stored = sorted(store.glob(f"*-{digest}.json"))
    if stored and not (replace and _label_of(stored[0]) == label):
        raise UserError(f"{run.folder or run.label}: is stored already, as {stored[0]}")
    slug = re.sub(r"[^A-Za-z0-9._]+", "-", label).strip("-.") or "run"
    path = stored[0] if stored else store / f"{slug[:80]}-{digest}.json"
    write_whole(path, _layout(entry) + "\n")
    if replace:
        for other in store.glob("*.json"):
            if other != path and other not in spare and _label_of(other) == label:
                other.unlink()
    return path


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader finds the old content or all of the new, and no part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def read_entry(path: Path) -> RunOutput:
    """Read a stored run.

    Raises
    ------
    UserError
        If it is damaged or no entry: one line with the file and the remedy.
    """
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); add the run again") from error
    block = entry.get("lm_eval_ext") if isinstance(entry, dict) else None
    if not isinstance(block, dict) or "schema" not in block:
        raise UserError(
            f"{path}: no stored entry (it has no block lm_eval_ext); make one of the run's folder "
            "with lm-eval-ext leaderboard add"
        )
    if block["schema"] != SCHEMA:
        raise UserError(
            f"{path}: has schema {block['schema']!r}, and this version reads {SCHEMA!r}; update "
            "lm-eval-ext or add the run again"
        )
    try:
        tasks = {task: _task_of(stored) for task, stored in block["tasks"].items()}
        return RunOutput(str(block["label"]), entry, tasks)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: damaged entry ({error!r}); add the run again") from error


def _task_block(task: TaskOutput) -> dict[str, Any]:
    details = task.details
    questions = sorted(task.questions)
    return {
        "metrics": {name: score._asdict() for name, score in task.metrics.items()},
        "samples_sha256": details.samples_sha256,
        "cost": {
            "tokens": details.tokens,
            "seconds": details.seconds,
            "tokens_per_second": details.tokens_per_second,
        },
        "decoding": {
            "attempts": details.attempts,
            "temperature": details.temperature,
            "num_fewshot": details.num_fewshot,
            "k": _ks(task),
        },
        "truncated_rate": details.truncated_rate,
        "invalid_rate": details.invalid_rate,
        "questions": {
            "ids": questions,
            "hashes": [task.questions[i] for i in questions],
            "values": {
                name: [_rounded(values.get(i)) for i in questions]
                for name, values in task.values.items()
            },
        },
    }


def _task_of(block: Mapping[str, Any]) -> TaskOutput:
    questions = block["questions"]
    ids = [int(i) for i in questions["ids"]]
    values = {
        name: {i: float(v) for i, v in zip(ids, column, strict=True) if v is not None}
        for name, column in questions["values"].items()
    }
    metrics = {name: _score(stored) for name, stored in block["metrics"].items()}
    decoding = {name: v for name, v in block["decoding"].items() if name != "k"}
    details = TaskDetails(
        **decoding,
        **block["cost"],
        truncated_rate=block["truncated_rate"],
        invalid_rate=block["invalid_rate"],
        samples_sha256=block["samples_sha256"],
    )
    hashes = dict(zip(ids, map(str, questions["hashes"]), strict=True))
    return TaskOutput(hashes, values, metrics, {}, details)


def _score(stored: Mapping[str, Any]) -> Score:
    numbers = ("value", "standard_error", "low", "high")
    if stored["higher_is_better"] not in (True, False, None):
        raise ValueError(f"higher_is_better is {stored['higher_is_better']!r}")
    known = {k: math.nan if stored[k] is None else float(stored[k]) for k in numbers}
    return Score(
        **known,
        n_questions=int(stored["n_questions"]),
        higher_is_better=stored["higher_is_better"],
    )


def _label_of(path: Path) -> str | None:
    try:
        return read_entry(path).label
    except UserError:
        return None


def _ks(task: TaskOutput) -> list[int]:
    found = (re.fullmatch(r"pass@(\d+)", name) for name in task.metrics)
    return sorted(int(match[1]) for match in found if match)


def _rounded(value: float | None) -> float | int | None:
    if value is None or not math.isfinite(value):
        return None
    short = round(value, DECIMALS)
    return int(short) if short == int(short) else short


def plain_json(value: Any) -> Any:
    """Return JSON without NaN, and without the folders of the machine it comes from.

    Named tuples become objects.
    """
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(k): plain_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_json(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return _FOLDERS.sub("", value) if isinstance(value, str) else value


def _layout(value: Any, indent: str = "") -> str:
    """Return JSON with objects over several lines and lists on one, which diffs and reads well."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    if all(not isinstance(v, (dict, list)) for v in value.values()) and len(value) <= 6:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    inner = indent + " "
    lines = [
        f"{inner}{json.dumps(key, ensure_ascii=False)}: {_layout(v, inner)}"
        for key, v in value.items()
    ]
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"

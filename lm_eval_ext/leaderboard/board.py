"""The board: runs, tasks, and a cell for each metric, as plain JSON that every form is made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from typing import Any

from lm_eval_ext.checks import is_number
from lm_eval_ext.leaderboard.entry import digest_of
from lm_eval_ext.leaderboard.formatting import one_line, printed
from lm_eval_ext.leaderboard.noise import noise_of
from lm_eval_ext.leaderboard.run_data import RunOutput
from lm_eval_ext.leaderboard.run_ranking import places

SCHEMA = "lm_eval_ext.board/1"

_VERSIONS = ("lm_eval_version", "transformers_version", "git_hash")


def board_of(runs: Sequence[RunOutput], *, metrics: Sequence[str] = ("*",)) -> dict[str, Any]:
    """Lay out runs as one table.

    Returns
    -------
    dict
        Plain JSON of schema ``lm_eval_ext.board/1``, described in docs/leaderboards.md.
    """
    ids = _ids(runs)
    tasks, cells = [], []
    for task in dict.fromkeys(name for run in runs for name in run.tasks):
        having = [i for i, run in enumerate(runs) if task in run.tasks]
        outputs = [runs[i].tasks[task] for i in having]
        names = [
            name
            for name in dict.fromkeys(name for output in outputs for name in output.metrics)
            if any(fnmatchcase(name, pattern) for pattern in metrics)
        ]
        if not names:
            continue
        listed = [
            {
                "name": name,
                "higher_is_better": next(o.direction(name) for o in outputs if name in o.metrics),
            }
            for name in names
        ]
        n_questions = max((len(output.questions) for output in outputs), default=0)
        n_questions = n_questions or max(s.n_questions for o in outputs for s in o.metrics.values())
        tasks.append({"name": task, "n_questions": n_questions, "metrics": listed})
        for name in names:
            for i, output, place in zip(having, outputs, places(outputs, name), strict=True):
                score = output.metrics.get(name)
                if score is None:
                    continue
                cells.append(
                    {
                        "run": ids[i],
                        "task": task,
                        "metric": name,
                        "value": _number(score.value),
                        "low": _number(score.low),
                        "high": _number(score.high),
                        "n": score.n_questions,
                        "printed": printed(score.value, score.low, score.high),
                        "rank": place.rank,
                        "best": place.best,
                    }
                )
    return {
        "schema": SCHEMA,
        "runs": [_run(run, name) for run, name in zip(runs, ids, strict=True)],
        "tasks": tasks,
        "cells": cells,
        "details": _details(runs, ids),
        "noise": [
            one._asdict()
            for one in noise_of(runs, [(str(task["name"]), "pass@1") for task in tasks])
        ],
    }


def _ids(runs: Sequence[RunOutput]) -> list[str]:
    """Return a short name of each run that no other has."""
    ids: list[str] = []
    for run in runs:
        name = f"{one_line(run.label)}-{digest_of(run)}"
        taken = sum(other == name or other.startswith(f"{name}.") for other in ids)
        ids.append(f"{name}.{taken + 1}" if taken else name)
    return ids


def _run(run: RunOutput, name: str) -> dict[str, Any]:
    results = run.results
    return {
        "id": name,
        "label": one_line(run.label),
        "model": one_line(run.model),
        "wrapper": one_line(run.wrapper),
        "date": _date(results.get("date")),
        "settings": _settings(results.get("config") or {}),
        "versions": {key: results[key] for key in _VERSIONS if results.get(key) is not None},
        "seconds": _number(run.seconds),
        "folder": None if run.folder is None else str(run.folder),
    }


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a reader needs of lm-eval's configuration to run it again."""
    names = ("model_args", "batch_size", "limit", "gen_kwargs", "torch_seed", "numpy_seed")
    return {name: config[name] for name in names if config.get(name) not in (None, {}, "")}


def _details(runs: Sequence[RunOutput], ids: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for run, name in zip(runs, ids, strict=True):
        for task, output in run.tasks.items():
            details = {
                key: _number(value) if isinstance(value, float) else value
                for key, value in output.details._asdict().items()
            }
            rows.append({"run": name, "task": task, **details})
    return rows


def _date(seconds: Any) -> str | None:
    if not is_number(seconds):
        return None
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None

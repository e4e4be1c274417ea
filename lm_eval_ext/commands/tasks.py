"""``lm-eval-ext tasks``: the tasks of this package, read from their files alone."""

from __future__ import annotations

import json
from dataclasses import KW_ONLY, dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lm_eval_ext.checks import did_you_mean, option
from lm_eval_ext.errors import UserError
from lm_eval_ext.harness.bridge import tasks_folder

METRICS = {
    "passn": "pass@k, maj@k, calibration",
    "calib": "accuracy, calibration",
    "eu": "AUROC of token uncertainty",
}
"""What the rows of a suite begin with."""


@dataclass(frozen=True)
class TasksOptions:
    """List the tasks of this package.

    Example: lm-eval-ext tasks 'gsm8k_*'
    """

    names: tuple[str, ...] = option("only these, with * for anything", ())
    _: KW_ONLY
    json: bool = option("print JSON", False)


class ListedTask(NamedTuple):
    """A task or a group of tasks."""

    task: str
    kind: str
    data: str
    shots: int
    metric: str


def run(options: TasksOptions) -> int:
    """Print the list; return the exit status."""
    found = listed_tasks()
    for name in options.names:
        if not any(fnmatchcase(one.task, name) for one in found):
            close = did_you_mean(name, [one.task for one in found])
            raise UserError(f"{name} is not a task of this package{close}")
    shown = [o for o in found if any(fnmatchcase(o.task, name) for name in options.names or "*")]
    if options.json:
        print(json.dumps([one._asdict() for one in shown], indent=1))
        return 0
    rows = [ListedTask._fields, *(tuple(map(str, one)) for one in shown)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(map(str.ljust, row, widths)).rstrip())
    return 0


def listed_tasks() -> list[ListedTask]:
    """Return all tasks and groups by name."""
    folder = tasks_folder()
    if folder is None:
        raise UserError("the package lm_eval_ext.tasks is missing: see lm-eval-ext doctor")
    configs = [_config(path) for path in folder.rglob("*.yaml")]
    return sorted(map(_listed, configs), key=lambda one: one.task)


def _listed(config: dict[str, Any]) -> ListedTask:
    if "group" in config:
        suite = config["group"].partition("_")[2].partition("_")[0]
        return ListedTask(
            config["group"], "group", f"{len(config['task'])} tasks", 0, METRICS[suite]
        )
    suite, source = config["metrics"], config["custom_dataset"].split(".")
    data = "tiny_" * ("tiny" in source) + source[-1].removesuffix("_dataset")
    chat = "_chat" in config["task"] or "instruct" in config["task"]
    split = config.get("test_split", "test")
    return ListedTask(
        config["task"],
        suite + " chat" * chat,
        f"{data}:{split}",
        config.get("num_fewshot", 0),
        METRICS[suite],
    )


class _Loader(yaml.SafeLoader):
    """Reads the name of a function instead of the function."""


_Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


@cache
def _config(path: Path) -> dict[str, Any]:
    """Return a task file with what it includes."""
    config = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    includes = config.pop("include", [])
    merged: dict[str, Any] = {}
    for name in [includes] if isinstance(includes, str) else includes:
        merged |= _config((path.parent / name).resolve())
    return merged | config

"""``lm-eval-ext prune sweep``: criteria x ratios, measured on lm-eval tasks and by perplexity.

Every cell is saved as it is done, and a sweep that was interrupted resumes where it stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from lm_eval_ext.commands.prune.command_options import (
    Subject,
    add_convention_options,
    add_model_options,
    add_text_options,
    convention_of,
    load_subject,
    plain_record,
    text_to_measure,
    whole_numbers,
)
from lm_eval_ext.commands.prune.perplexity import perplexity, token_nll
from lm_eval_ext.commands.prune.sweep_table import DENSE, PERPLEXITY, shown_metrics, tables
from lm_eval_ext.commands.prune.task_values import TaskRunner
from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.sinks.calibration_data import CalibrationSet
from lm_eval_ext.methods.sinks.criteria import criteria_for
from lm_eval_ext.methods.sinks.plan import PruningPlan, PruningSettings, make_plan
from lm_eval_ext.methods.sinks.selection import ALLOCATIONS, UNITS
from lm_eval_ext.methods.sinks.statistics import collect_statistics

RANDOM = "random"


class Cell(NamedTuple):
    """One measurement of a sweep."""

    name: str
    plan: PruningPlan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_model_options(parser)
    add_convention_options(parser)
    parser.add_argument("--unit", choices=UNITS, default="head", help="(default: %(default)s)")
    parser.add_argument(
        "--criteria", metavar="NAME,...", help="which criteria (default: all of the unit)"
    )
    parser.add_argument(
        "--ratios",
        default="0.0625,0.125,0.25,0.375,0.5",
        metavar="RATIO,...",
        help="shares to remove (default: %(default)s)",
    )
    parser.add_argument(
        "--seeds",
        type=whole_numbers,
        default=(0, 1, 2, 3, 4),
        metavar="SEED,...",
        help="of the random criterion (default: 0,1,2,3,4)",
    )
    parser.add_argument("--skip_first", type=int, default=0, help="blocks after the first to spare")
    parser.add_argument(
        "--allocation", choices=ALLOCATIONS, default="global", help="(default: %(default)s)"
    )
    parser.add_argument("--mean_compensation", action="store_true")
    parser.add_argument("--tasks", default="", metavar="TASK,...", help="lm-eval tasks to measure")
    parser.add_argument("--limit", type=int, help="questions per task (default: all)")
    parser.add_argument(
        "--metrics",
        metavar="NAME,...",
        help="metrics to show, or all (default: perplexity and the first of each task)",
    )
    add_text_options(parser)
    parser.add_argument(
        "--output", type=Path, default=Path("pruning_sweep"), help="folder for cells and tables"
    )


def run(args: argparse.Namespace) -> int:
    """Measure the cells that are missing, then write and print the tables."""
    wanted = _settings(args)
    subject = load_subject(args)
    text = text_to_measure(args, subject)
    cells = _cells(args, subject, wanted)
    folder = args.output / "cells"
    missing = [cell for cell in cells if not (folder / cell.name).exists()]
    tasks = TaskRunner(args.tasks, args.limit) if missing else None
    _claim(args, subject, text)
    folder.mkdir(exist_ok=True)
    for cell in tqdm(missing, desc="Sweep", unit="cell"):
        assert tasks is not None
        measured = measure(subject, cell.plan, text, tasks)
        partial = folder / f".{cell.name}.partial"
        partial.write_text(json.dumps(measured) + "\n", encoding="utf-8")
        partial.rename(folder / cell.name)  # so that a file is either whole or not there
    read = [json.loads((folder / cell.name).read_text(encoding="utf-8")) for cell in cells]
    shown = shown_metrics(read[0]["metrics"], args.metrics)
    page = tables(read, shown, title=f"{Path(subject.pretrained).name}, unit {args.unit}")
    (args.output / "sweep.md").write_text(page, encoding="utf-8")
    print(page)
    print(f"cells: {folder}\ntables: {args.output / 'sweep.md'}")
    return 0


def measure(
    subject: Subject, plan: PruningPlan, text: CalibrationSet | None, tasks: TaskRunner
) -> dict[str, Any]:
    """Measure one plan and return the content of its cell."""
    started = time.perf_counter()
    lm = subject.lm.with_plan(plan, subject.calibration.record)
    metrics = {}
    if text is not None:
        with lm.pruning():
            nll = token_nll(lm.model, text.prompts)
        metrics[PERPLEXITY] = {
            **perplexity(nll)._asdict(),
            "values": [float(values.mean()) for values in nll],
            "higher_is_better": False,
        }
    record = {name: value for name, value in plan.record().items() if name != "scores"}
    return {
        **record,
        "criterion": plan.settings.criterion if plan.removal else DENSE,
        "metrics": {**metrics, **tasks.run(lm)},
        "seconds": time.perf_counter() - started,
    }


def _settings(args: argparse.Namespace) -> list[PruningSettings]:
    """Return the settings of every cell, the dense model first; checks the options."""
    try:
        ratios = [float(part) for part in args.ratios.split(",")]
    except ValueError as error:
        raise UserError(f"--ratios={args.ratios} must be numbers with commas between") from error
    names = args.criteria.split(",") if args.criteria else list(criteria_for(args.unit))
    if RANDOM in names and not args.seeds:
        raise UserError("--seeds= is empty: name at least one seed for the random criterion")
    settings = [PruningSettings(ratio=0.0, unit=args.unit)]
    for ratio in ratios:
        for name in names:
            settings += [
                PruningSettings(
                    ratio=ratio,
                    unit=args.unit,
                    criterion=name,
                    skip_first=args.skip_first,
                    allocation=args.allocation,
                    seed=seed,
                    mean_compensation=args.mean_compensation,
                )
                for seed in (args.seeds if name == RANDOM else (0,))
                if ratio > 0
            ]
    return settings


def _cells(args: argparse.Namespace, subject: Subject, wanted: list[PruningSettings]) -> list[Cell]:
    """Plan every cell, so that an impossible ratio is refused before anything runs."""
    parts = {part for settings in wanted for part in settings.needs()}
    statistics = collect_statistics(
        subject.lm.model, subject.calibration.prompts, parts, convention=convention_of(args)
    )
    cells = []
    for settings in wanted:
        plan = make_plan(subject.layout, settings, statistics)
        name = f"{settings.criterion}_{settings.ratio:g}"
        if settings.criterion == RANDOM:
            name += f"_{settings.seed}"
        cells.append(Cell((name if settings.ratio else DENSE) + ".json", plan))
    return cells


def _claim(args: argparse.Namespace, subject: Subject, text: CalibrationSet) -> None:
    """Say in the output folder what is measured, or check that it was the same before."""
    unlike = {"ratios", "criteria", "seeds", "metrics", "output"}  # these only choose cells
    settings = {name: value for name, value in plain_record(args).items() if name not in unlike}
    settings["calibration_sha256"] = subject.calibration.record["sha256"]
    settings["text_sha256"] = text.record["sha256"]
    file = args.output / "settings.json"
    args.output.mkdir(parents=True, exist_ok=True)
    if file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        differing = [
            name for name in {**before, **settings} if before.get(name) != settings.get(name)
        ]
        if differing:
            name = min(differing)
            raise UserError(
                f"--output={args.output} holds a sweep with {name}={before.get(name)}, this one "
                f"has {settings.get(name)}: name another folder"
            )
    file.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")

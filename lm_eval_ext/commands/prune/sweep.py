"""``lm-eval-ext prune sweep``: criteria x ratios, measured on lm-eval tasks and by perplexity.

Every cell is saved as it is done, and a sweep that was interrupted resumes where it stopped.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from lm_eval_ext.commands.prune.options import SweepOptions
from lm_eval_ext.commands.prune.perplexity import perplexity, token_nll
from lm_eval_ext.commands.prune.subject import Subject, load_subject, text_to_measure
from lm_eval_ext.commands.prune.sweep_table import DENSE, PERPLEXITY, panels, shown_metrics, tables
from lm_eval_ext.commands.prune.task_values import TaskRunner
from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard.line_plots import draw
from lm_eval_ext.methods.sinks.calibration_data import CalibrationSet
from lm_eval_ext.methods.sinks.criteria import criteria_for
from lm_eval_ext.methods.sinks.plan import PruningPlan, PruningSettings, make_plan
from lm_eval_ext.methods.sinks.statistics import collect_statistics

RANDOM = "random"


class Cell(NamedTuple):
    """One measurement of a sweep."""

    name: str
    plan: PruningPlan


def run(options: SweepOptions) -> int:
    """Measure the cells that are missing, then write and print the tables."""
    wanted = _settings(options)
    subject = load_subject(options)
    text = text_to_measure(options, subject)
    cells = _cells(options, subject, wanted)
    folder = options.output / "cells"
    missing = [cell for cell in cells if not (folder / cell.name).exists()]
    tasks = TaskRunner(",".join(options.tasks), options.limit) if missing else None
    _claim(options, subject, text)
    folder.mkdir(exist_ok=True)
    for cell in tqdm(missing, desc="Sweep", unit="cell"):
        assert tasks is not None
        measured = measure(subject, cell.plan, text, tasks)
        partial = folder / f".{cell.name}.partial"
        partial.write_text(json.dumps(measured) + "\n", encoding="utf-8")
        partial.rename(folder / cell.name)  # so that a file is either whole or not there
    read = [json.loads((folder / cell.name).read_text(encoding="utf-8")) for cell in cells]
    shown = shown_metrics(read[0]["metrics"], options.metrics)
    title = f"{Path(subject.pretrained).name}, unit {options.unit}"
    page, picture = tables(read, shown, title=title), options.output / "sweep.png"
    (options.output / "sweep.md").write_text(page, encoding="utf-8")
    print(page)
    print(f"cells: {folder}\ntables: {options.output / 'sweep.md'}")
    curves = panels(read, shown)
    if any(panel.curves for panel in curves):
        draw(curves, picture, title=f"Pruning: {title}; dashed: the dense model")
        print(f"curves: {picture}")
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


def _settings(options: SweepOptions) -> list[PruningSettings]:
    """Return the settings of every cell, the dense model first; checks the options."""
    names = options.criteria or criteria_for(options.unit)
    settings = [PruningSettings(ratio=0.0, unit=options.unit)]
    for ratio in options.ratios:
        for name in names:
            settings += [
                PruningSettings(
                    ratio=ratio,
                    unit=options.unit,
                    criterion=name,
                    skip_first=options.skip_first,
                    allocation=options.allocation,
                    seed=seed,
                    mean_compensation=options.mean_compensation,
                )
                for seed in (options.seeds if name == RANDOM else (0,))
                if ratio > 0
            ]
    return settings


def _cells(options: SweepOptions, subject: Subject, wanted: list[PruningSettings]) -> list[Cell]:
    """Plan every cell, so that an impossible ratio is refused before anything runs."""
    parts = {part for settings in wanted for part in settings.needs()}
    statistics = collect_statistics(
        subject.lm.model, subject.calibration.prompts, parts, convention=subject.convention
    )
    cells = []
    for settings in wanted:
        plan = make_plan(subject.layout, settings, statistics)
        name = f"{settings.criterion}_{settings.ratio:g}"
        if settings.criterion == RANDOM:
            name += f"_{settings.seed}"
        cells.append(Cell((name if settings.ratio else DENSE) + ".json", plan))
    return cells


def _claim(options: SweepOptions, subject: Subject, text: CalibrationSet) -> None:
    """Say in the output folder what is measured, or check that it was the same before."""
    unlike = {"ratios", "criteria", "seeds", "metrics", "output"}  # these only choose cells
    settings = {name: value for name, value in options.record().items() if name not in unlike}
    settings["calibration_sha256"] = subject.calibration.record["sha256"]
    settings["text_sha256"] = text.record["sha256"]
    file = options.output / "settings.json"
    options.output.mkdir(parents=True, exist_ok=True)
    if file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        differing = [
            name for name in {**before, **settings} if before.get(name) != settings.get(name)
        ]
        if differing:
            name = min(differing)
            raise UserError(
                f"--output={options.output} holds a sweep with {name}={before.get(name)}, this one "
                f"has {settings.get(name)}: name another folder"
            )
    file.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")

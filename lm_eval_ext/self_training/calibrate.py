"""Phase ``calibrate``: the temperatures of confidence and vote, on the held-out problems."""

from __future__ import annotations

import logging
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any, cast

from lm_eval_ext.attempt_details import AttemptDetails, Question
from lm_eval_ext.run_files import RunFiles
from lm_eval_ext.self_evaluation.confidence import FILE_NAME
from lm_eval_ext.self_evaluation.judging import SOURCE
from lm_eval_ext.self_evaluation.tau import choose_tau
from lm_eval_ext.self_evaluation.temperature import temperature_record
from lm_eval_ext.self_evaluation.tuning_run import TuningRun
from lm_eval_ext.self_training.folders import Stage, read_lines
from lm_eval_ext.self_training.labels import FILE_NAME as LABELLED
from lm_eval_ext.self_training.settings import SelfTraining
from lm_eval_ext.training import manifest

logger = logging.getLogger(__name__)

TAU_FILE = "tau.json"


def calibrate(run: SelfTraining, stage: Stage) -> None:
    """Write ``temperature.json`` and ``tau.json`` beside the model.

    Parameters
    ----------
    run
        The settings.
    stage
        The held-out problems, answered and graded.
    """
    by_problem: dict[int, list[AttemptDetails]] = defaultdict(list)
    for line in read_lines(stage.folder / LABELLED):
        by_problem[line["problem"]].append(cast(AttemptDetails, line))
    questions: list[Question] = list(by_problem.values())
    results = {
        "model_name": run.pretrained,
        "config": {"lm_eval_ext": stage.counts("generate")},
    }
    files = RunFiles(stage.folder / LABELLED, results, {})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = temperature_record(TuningRun(files, {run.problems: questions}), SOURCE)
    for warning in caught:
        logger.warning("temperature: %s", warning.message)
    manifest.write_json(stage.output / FILE_NAME, found)
    report: dict[str, Any] = {"temperature": found["temperature"], "ece": found["untuned"]["ece"]}
    if run.sampling.attempts > 1:
        choice = choose_tau(questions, SOURCE, run.sampling.attempts)
        record = {"k": run.sampling.attempts, "n_questions": len(questions), **choice._asdict()}
        manifest.write_json(stage.output / TAU_FILE, record)
        report["tau"] = choice.tau
    manifest.write_json(stage.report("calibrate"), report)


def written(output: Path) -> list[Path]:
    """Return what `calibrate` wrote into the folder of a run."""
    return [path for name in (FILE_NAME, TAU_FILE) if (path := output / name).exists()]

"""Phase ``calibrate``: the temperatures of confidence and vote, on the held-out problems."""

from __future__ import annotations

import logging
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any, cast

from lm_eval_ext.grading.attempt_details import AttemptDetails, Question
from lm_eval_ext.leaderboard.run_files import RunFiles
from lm_eval_ext.methods.self_evaluation.confidence import FILE_NAME, SOURCE
from lm_eval_ext.metrics import apply_temperature
from lm_eval_ext.training.run import write_json
from lm_eval_ext.training.self_training.folders import LABELLED, Stage, read_lines
from lm_eval_ext.training.self_training.settings import SelfTraining
from lm_eval_ext.training.tuning.tau import FEWEST_VOTERS, choose_tau
from lm_eval_ext.training.tuning.temperature import notes, temperature_record
from lm_eval_ext.training.tuning.tuning_run import TuningRun, probabilities

logger = logging.getLogger(__name__)

TAU_FILE = "tau.json"


def calibrate(run: SelfTraining, stage: Stage) -> None:
    """Write ``temperature.json`` and ``tau.json`` beside the model."""
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
        found = temperature_record(TuningRun(files, {run.problems: questions}, {}), SOURCE)
    for warning in caught:
        logger.warning("%s: %s: give more problems before using it", FILE_NAME, warning.message)
    for note in notes(found):
        logger.warning("%s: %s", FILE_NAME, note)
    write_json(stage.output / FILE_NAME, found)
    report: dict[str, Any] = {"temperature": found["temperature"], "ece": found["untuned"]["ece"]}
    k = run.sampling.attempts
    if k < FEWEST_VOTERS:
        logger.warning(
            "%s is not written: with %d attempts at a problem tau decides nothing; give at least "
            "--attempts %d",
            TAU_FILE,
            k,
            FEWEST_VOTERS,
        )
    else:
        choice = choose_tau(questions, SOURCE, k)
        tempered = choose_tau(_tempered(questions, found["temperature"]), SOURCE, k)
        for note in choice.notes:
            logger.warning("%s: %s", TAU_FILE, note)
        record = {"k": k, "n_questions": len(questions), **choice._asdict()}
        with_temperature = {"temperature": found["temperature"], **tempered._asdict()}
        write_json(stage.output / TAU_FILE, {**record, "with_temperature": with_temperature})
        report["tau"], report["tau_with_temperature"] = choice.tau, tempered.tau
    write_json(stage.report("calibrate"), report)


def _tempered(questions: list[Question], temperature: float) -> list[Question]:
    """Return the attempts with the confidence that the wrapper gives at a temperature."""
    return [
        [
            cast(AttemptDetails, {**attempt, "probabilities": {SOURCE: float(confidence)}})
            for attempt, confidence in zip(
                question,
                apply_temperature(probabilities(question, SOURCE, untuned=True), temperature),
                strict=True,
            )
        ]
        for question in questions
    ]


def written(output: Path) -> list[Path]:
    """Return what `calibrate` wrote into the folder of a run."""
    return [path for name in (FILE_NAME, TAU_FILE) if (path := output / name).exists()]

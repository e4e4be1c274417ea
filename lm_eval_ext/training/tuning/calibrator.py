"""``lm-eval-ext train calibrator``: fit the probability that an attempt is correct."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from lm_eval_ext import metrics
from lm_eval_ext.data.question_text import masked, text_hash
from lm_eval_ext.errors import UserError
from lm_eval_ext.grading.attempt_details import Question
from lm_eval_ext.methods.calibrator import FORMAT, QUESTION_SOURCES, known_values
from lm_eval_ext.scoring.calibrated_source import source_values
from lm_eval_ext.training.tuning.calibrator_fit import cross_fitted, fit
from lm_eval_ext.training.tuning.options import CalibratorOptions, Method
from lm_eval_ext.training.tuning.tuning_run import TuningRun, read_tuning_run

logger = logging.getLogger(__name__)

FloatArray = NDArray[np.float64]


class TrainingData(NamedTuple):
    """Attempts at training problems, those that have every source.

    Parameters
    ----------
    values
        Their sources, shape (n_attempts, n_sources).
    correct
        Their verdicts 0/1, shape (n_attempts,).
    questions
        Number of each one's question, shape (n_attempts,).
    groups
        Number of each one's group of questions that differ in numbers only.
    """

    values: FloatArray
    correct: FloatArray
    questions: NDArray[np.intp]
    groups: NDArray[np.intp]
    n_attempts: int


def run(options: CalibratorOptions) -> int:
    """Cross-fit, print how good it is, fit on everything and write the file."""
    if not options.output.absolute().parent.is_dir():
        raise UserError(
            f"--output={options.output}: no folder {options.output.parent}; make it first"
        )
    runs = [read_tuning_run(folder, options.tasks) for folder in options.runs]
    data = training_data(runs, options.sources, n_attempts=options.attempts)
    quality = cross_fitted_quality(data, options.sources, options.method, seed=options.seed)
    record = {
        "format": FORMAT,
        "method": options.method,
        "sources": list(options.sources),
        "n_attempts": data.n_attempts,
        "n_fitted_on": len(data.correct),
        "seed": options.seed,
        "model_names": sorted({str(one.files.results.get("model_name")) for one in runs}),
        "tasks": sorted({task for one in runs for task in one.questions}),
        "cross_fitted": quality,
        "model": fit(data.values, data.correct, options.method, seed=options.seed).as_json(),
        **_hashes(runs),
    }
    options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    console = Console()
    if not console.is_terminal:
        console.width = 240  # a pipe has no width of its own: do not wrap cells
    console.print(_table(quality))
    print(
        f"{options.method} on {len(data.correct)} attempts at {len(np.unique(data.questions))} "
        f"questions, cross-fitted by question in the table\n"
        f"use: lm-eval-ext score RUN --calibrator {options.output}"
    )
    return 0


def training_data(
    runs: Sequence[TuningRun], sources: Sequence[str], *, n_attempts: int | None = None
) -> TrainingData:
    """Read the sources of all attempts.

    Parameters
    ----------
    n_attempts
        Only the first so many attempts of each question.

    Raises
    ------
    UserError
        For a source that no attempt has, or sources that compare attempts where questions have
        different numbers of them.
    """
    if not sources or len(set(sources)) < len(sources):
        raise UserError(f"--sources={','.join(sources)}: name each source once")
    questions = [question[:n_attempts] for one in runs for question in one.all_questions]
    texts = [text for one in runs for task in one.asked.values() for text, _ in task]
    counts = {len(question) for question in questions}
    compares = set(sources) & set(QUESTION_SOURCES)
    if n_attempts is not None and (n_attempts < 1 or max(counts) < n_attempts):
        raise UserError(f"--attempts={n_attempts} must be from 1 to {max(counts)}")
    if compares and len(counts) > 1:
        raise UserError(
            f"--sources={','.join(sorted(compares))}: questions have {min(counts)} to "
            f"{max(counts)} attempts; add --attempts {min(counts)}"
        )
    rows = [
        source_values(question, tuple(sources), np.arange(len(question))[None])[0]
        for question in questions
    ]
    values = np.concatenate(rows)
    for name, column in zip(sources, values.T, strict=True):
        if not np.isfinite(column).any():
            raise UserError(f"--sources={name}: no attempt has it (there are: {_found(questions)})")
    known = np.isfinite(values).all(axis=1)
    if not known.all():
        logger.warning(
            "%d of %d attempts lack a source and are left out", (~known).sum(), len(known)
        )
    if not known.any():
        raise UserError(f"--sources={','.join(sources)}: no attempt has all of them; name fewer")
    sizes = [len(question) for question in questions]
    correct = np.array([a["correct"] for question in questions for a in question], float)
    _, groups = np.unique([text_hash(masked(text)) for text in texts], return_inverse=True)
    return TrainingData(
        values[known],
        correct[known],
        np.repeat(np.arange(len(questions)), sizes)[known],
        np.repeat(groups, sizes)[known],
        max(counts),
    )


def cross_fitted_quality(
    data: TrainingData, sources: Sequence[str], method: Method, *, seed: int = 0
) -> dict[str, dict[str, list[float]]]:
    """Return metrics of the calibrator, of each source fitted alone, and of the base rate.

    Every probability is by a fit that has not seen the question, nor one equal but for its numbers.

    Returns
    -------
    dict
        By predictor and metric the value and the ends of its 95% interval over questions; under
        ``brier_difference`` and ``nll_difference`` what the calibrator has less than a predictor
        (below 0: better) on the same questions.
    """
    everyone = cross_fitted(data.values, data.correct, data.groups, method, seed=seed)
    predictors = {"calibrated": everyone}
    if len(sources) > 1:
        for i, name in enumerate(sources):
            alone = data.values[:, i : i + 1]
            predictors[name] = cross_fitted(alone, data.correct, data.groups, method, seed=seed)
    constant = np.zeros((len(data.correct), 1))
    predictors["base rate"] = cross_fitted(constant, data.correct, data.groups, "logistic")
    quality = {name: _quality(p, data) for name, p in predictors.items()}
    for name, probability in predictors.items():
        if name != "calibrated":
            quality[name] |= _differences(everyone, probability, data)
    return quality


QUALITY: dict[str, Callable[..., Any]] = {
    "brier": metrics.brier,
    "nll": metrics.nll,
    "debiased_ece": metrics.debiased_ece,
    "auroc": metrics.auroc,
    "within_question_auroc": metrics.within_question_auroc,
}


def _quality(probability: FloatArray, data: TrainingData) -> dict[str, list[float]]:
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", metrics.UndefinedMetricWarning)
        for name, metric in QUALITY.items():
            arrays = {"confidence": probability, "correct": data.correct}
            interval = metrics.cluster_bootstrap(metric, arrays, clusters=data.questions)
            found[name] = [float(interval.estimate), float(interval.low), float(interval.high)]
    return found


COMPARED = ("brier", "nll")


def _differences(ours: FloatArray, other: FloatArray, data: TrainingData) -> dict[str, list[float]]:
    """Return the calibrator's scores minus another predictor's, paired over questions."""
    found = {}
    for name in COMPARED:
        both = ({"confidence": p, "correct": data.correct} for p in (ours, other))
        pair = (data.questions, data.questions)
        test = metrics.paired_bootstrap(QUALITY[name], *both, clusters=pair)
        found[f"{name}_difference"] = [test.difference, test.low, test.high]
    return found


def _hashes(runs: Sequence[TuningRun]) -> dict[str, list[str]]:
    """Return hashes of the questions and of the prompts, each once."""
    pairs = [pair for one in runs for task in one.asked.values() for pair in task]
    return {
        name: sorted({text_hash(pair[i]) for pair in pairs})
        for i, name in enumerate(("questions", "prompts"))
    }


def _table(quality: dict[str, dict[str, list[float]]]) -> Table:
    table = Table(box=MARKDOWN)
    table.add_column("probability from")
    for name in QUALITY:
        table.add_column(name, justify="right")
    for name in COMPARED:
        table.add_column(f"calibrated's {name} minus this", justify="right")
    for predictor, of_metric in quality.items():
        cells = [f"{v:.3f} ({low:.3f}, {high:.3f})" for v, low, high in of_metric.values()]
        table.add_row(predictor, *cells)
    return table


def _found(questions: Sequence[Question]) -> str:
    names = {
        name for question in questions for attempt in question for name in known_values(attempt)
    }
    return ", ".join([*sorted(names), *QUESTION_SOURCES])

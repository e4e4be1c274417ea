"""Read the run on training problems that something is tuned on."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import NamedTuple

from lm_eval_ext.errors import UserError
from lm_eval_ext.grading.attempt_details import Question
from lm_eval_ext.leaderboard.run_files import RunFiles, asked, newest_run, read_samples
from lm_eval_ext.methods.self_evaluation.confidence import SOURCE, UNTUNED

logger = logging.getLogger(__name__)


class TuningRun(NamedTuple):
    """The logged attempts of a run.

    Parameters
    ----------
    files
        The run.
    questions
        The attempts at each question, by task.
    asked
        Text and prompt of each question, by task; empty where only attempts are known.
    """

    files: RunFiles
    questions: dict[str, list[Question]]
    asked: dict[str, list[tuple[str, str]]]

    @property
    def all_questions(self) -> list[Question]:
        """The questions of all tasks."""
        return [question for questions in self.questions.values() for question in questions]


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare which run is read."""
    parser.add_argument(
        "folder",
        type=Path,
        help="--output_path of an lm_eval run with --log_samples on training problems",
    )
    parser.add_argument(
        "--tasks",
        type=lambda text: text.split(","),
        help="only these tasks of the run, separated by commas",
    )
    parser.add_argument(
        "--source", default=SOURCE, help="name of the probability (default: %(default)s)"
    )


def read_tuning_run(folder: Path, tasks: list[str] | None) -> TuningRun:
    """Read the newest run below a folder, and warn where it is scored on a test split.

    Parameters
    ----------
    folder
        The ``--output_path``.
    tasks
        Only these, or None for all.

    Raises
    ------
    UserError
        If there is no run, no such task, or no logged attempts.
    """
    files = newest_run(folder)
    unknown = set(tasks or ()) - files.samples.keys()
    if unknown:
        stated = ",".join(sorted(unknown))
        raise UserError(f"--tasks={stated}: the run has {', '.join(files.samples)}")
    questions, texts = {}, {}
    for task in tasks or files.samples:
        rows = [
            (row["attempts"], asked(row))
            for row in read_samples(files.samples[task])
            if "attempts" in row
        ]
        if not rows:
            continue
        questions[task] = [attempts for attempts, _ in rows]
        texts[task] = [text for _, text in rows]
        if files.results.get("configs", {}).get(task, {}).get("test_split") == "test":
            logger.warning(
                "%s was run on its test split: what is tuned on it must not be scored on it", task
            )
    if not questions:
        raise UserError(
            f"{files.path.parent}: no logged attempts; run tasks such as gsm8k_passn with "
            "--model epicar --log_samples"
        )
    return TuningRun(files, questions, texts)


def probabilities(question: Question, source: str, *, untuned: bool) -> list[float]:
    """Return the probability of each attempt.

    Parameters
    ----------
    question
        The attempts.
    source
        Its name.
    untuned
        Take the value before a temperature, where the run had one.

    Raises
    ------
    UserError
        If an attempt has none.
    """
    values = []
    for attempt in question:
        value = attempt.get("probabilities", {}).get(source)
        if untuned and source == SOURCE:
            value = attempt.get("extra", {}).get(UNTUNED, value)
        if value is None:
            found = ", ".join(attempt.get("probabilities", {})) or "none"
            raise UserError(
                f"--source={source}: an attempt has no such probability (there are: {found}); run "
                "lm_eval with --model epicar, or self_eval=true"
            )
        values.append(float(value))
    return values

"""Read the run on training problems that something is tuned on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
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


def read_tuning_run(folder: Path, tasks: Sequence[str] = ()) -> TuningRun:
    """Read the newest run below a folder, and warn where it is scored on a test split.

    Of tasks that ask the same questions, such as ``gsm8k_calib`` and ``gsm8k_passn``, only the one
    with the most attempts counts.

    Raises
    ------
    UserError
        If there is no run, no such task, or no logged attempts.
    """
    files = newest_run(folder)
    unknown = set(tasks) - files.samples.keys()
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
    for task in _repeated(questions, texts):
        logger.info("%s is left out: another task asks its questions more often", task)
        del questions[task], texts[task]
    for task in questions:
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


def _repeated(
    questions: dict[str, list[Question]], texts: dict[str, list[tuple[str, str]]]
) -> list[str]:
    """Return the tasks whose questions another one asks with as many or more attempts."""
    kept: set[str] = set()
    repeated = []
    for task in sorted(questions, key=lambda name: -sum(map(len, questions[name]))):
        asked_by_it = {text for text, _ in texts[task] if text}
        if asked_by_it & kept:
            repeated.append(task)
        else:
            kept |= asked_by_it
    return repeated


def probabilities(question: Question, source: str, *, untuned: bool) -> list[float]:
    """Return the probability of each attempt.

    Parameters
    ----------
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

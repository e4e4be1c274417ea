"""Compute the metrics of a run again from its logged attempts, without a model.

The path is that of the run itself: details of the attempts, a suite of metrics, aggregations. The
numbers are therefore the run's, until a grader, the number of attempts or an option is changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from lm_eval_ext.data.question_text import text_hash
from lm_eval_ext.errors import UserError
from lm_eval_ext.grading import grade_questions
from lm_eval_ext.grading.attempt_details import AttemptDetails, Question, verdict_details
from lm_eval_ext.grading.responses import ResponseThoughts, first_text, keeps_end
from lm_eval_ext.harness.attempt_settings import RESERVED, AttemptSettings, read_settings
from lm_eval_ext.leaderboard.run_files import asked, read_samples
from lm_eval_ext.leaderboard.stored_sources import StoredSources
from lm_eval_ext.methods.calibrator import Calibrator
from lm_eval_ext.models.generation import Thought
from lm_eval_ext.scoring.calibrated_source import with_calibrated
from lm_eval_ext.scoring.confidence_sources import confidence_sources
from lm_eval_ext.scoring.metric_suites import suite
from lm_eval_ext.scoring.question import MetricSuite
from lm_eval_ext.scoring.scores import Score, score

_END_OF_PROMPT = 1000  # characters


class TaskScores(NamedTuple):
    """The scores of a task.

    Parameters
    ----------
    scores
        By metric; of a task with several filters, by ``metric,filter``.
    """

    n_attempts: int
    metadata: dict[str, Any]
    scores: dict[str, Score]


def score_task(
    samples: Path,
    metadata: Mapping[str, Any],
    *,
    changes: Mapping[str, Any],
    grader: str | None = None,
    calibrator: Calibrator | None = None,
    stored: StoredSources | None = None,
) -> TaskScores | None:
    """Compute the metrics of a task from its sample file.

    Parameters
    ----------
    changes
        Settings of `read_settings` that replace the run's. With fewer ``attempts`` the first ones
        of each question count.
    grader
        Family of the grader to judge the attempts with once more; None keeps the logged verdicts.
    stored
        Adds sources from the tokens in the run's store.

    Returns
    -------
    TaskScores or None
        None for a task without logged attempts.

    Raises
    ------
    UserError
        For a damaged file, more attempts than were made, other impossible settings, or a question
        that the calibrator was fitted on.
    """
    settings = changed_settings(metadata, changes)
    metric_suite = suite(metadata.get("metrics", "passn"), settings)
    if calibrator is not None and metric_suite.sources is confidence_sources:
        metric_suite.sources = partial(with_calibrated, calibrator)
    by_filter: dict[str, list[dict[str, Any]]] = {}
    questions: set[str] = set()
    for sample in read_samples(samples):
        questions.add(text_hash(asked(sample)[0]))
        if "attempts" in sample:
            if stored is not None:
                stored.add(sample)
            by_filter.setdefault(sample["filter"], []).append(_needed(sample, grader))
    if not by_filter:
        return None
    if stored is not None:
        stored.report(samples)
    if calibrator is not None:
        calibrator.refuse(questions, samples.name)
    scores: dict[str, Score] = {}
    try:
        for filter_name, rows in by_filter.items():
            _add_thoughts(samples.stem, metadata, rows)
            found = _scores(_questions(rows, settings.attempts, grader), metric_suite)
            several = len(by_filter) > 1
            scores |= {f"{k},{filter_name}" if several else k: v for k, v in found.items()}
    except UserError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{samples}: its attempts cannot be scored ({reason})") from error
    return TaskScores(settings.attempts, settings.to_metadata(), scores)


def _scores(questions: Iterable[Question], metric_suite: MetricSuite) -> dict[str, Score]:
    items: dict[str, list[Any]] = {}
    for question in questions:
        for name, value in metric_suite.values(question).items():
            items.setdefault(name, []).append(value)
    return {
        name: score(values, metric_suite[name].aggregation, metric_suite[name].higher_is_better)
        for name, values in items.items()
    }


def changed_settings(metadata: Mapping[str, Any], changes: Mapping[str, Any]) -> AttemptSettings:
    """Return a run's settings with some replaced.

    Raises
    ------
    UserError
        For more attempts than were made, or other impossible settings.
    """
    logged = {**metadata, **changes}
    made = metadata.get("attempts", 1)
    if "attempts" in changes:
        if changes["attempts"] > made:
            raise UserError(
                f"attempts={changes['attempts']}: the run made {made} per question; ask for at "
                "most that"
            )
        # The run's own k may be more than is left.
        for name in ("ks", "vote_ks"):
            if name not in changes:
                logged.pop(name, None)
    return read_settings({name: logged[name] for name in RESERVED if name in logged})


def group_score(members: Iterable[tuple[Score, int]]) -> tuple[float, float]:
    """Return the mean of the tasks of a group, weighted by size, and its standard error.

    Both are lm-eval's: the variances of the tasks are pooled.

    Parameters
    ----------
    members
        The score of each task and its number of questions.
    """
    scores, counts = zip(*members, strict=True)
    sizes = np.array(counts, dtype=np.float64)
    values = np.array([score.value for score in scores])
    variances = sizes * np.array([score.standard_error for score in scores]) ** 2
    freedom = sizes.sum() - len(sizes)
    pooled = float((sizes - 1) @ variances / freedom) if freedom > 0 else math.nan
    return float(sizes @ values / sizes.sum()), math.sqrt(pooled / sizes.sum())


def _answer(text: str, details: AttemptDetails) -> str | None:
    """Return what follows the thought in a logged response, or None where nothing does."""
    finished = not details.get("unfinished_thought", False)
    return Thought(finished, n_characters=details.get("n_thinking_characters")).answer_in(text)


def _needed(sample: dict[str, Any], grader: str | None) -> dict[str, Any]:
    """Keep what is used of a sample: prompts and responses of a whole run would fill the memory."""
    kept = {"attempts": sample["attempts"]}
    if grader is not None:
        texts = [str(first_text(text)) for text in sample["filtered_resps"][0]]
        ends = [keeps_end(*pair) for pair in zip(texts, sample["resps"][0], strict=False)]
        kept.update(doc=sample["doc"], texts=texts, ends=ends)
        if not any("unfinished_thought" in attempt for attempt in sample["attempts"]):
            prompt = sample["arguments"]["gen_args_0"]["arg_0"]
            # Whether it opens a thought shows at its end; the list of a chat API has no end.
            kept["prompt"] = prompt[-_END_OF_PROMPT:] if isinstance(prompt, str) else []
            kept["responses"] = sample["resps"][0]
    return kept


def _add_thoughts(task: str, metadata: Mapping[str, Any], rows: list[dict[str, Any]]) -> None:
    """Read the thoughts of a run from before they were logged."""
    old = [row for row in rows if "prompt" in row]
    if not old:
        return
    from lm_eval.api.instance import Instance

    instances = [
        Instance("generate_until", row["doc"], (row["prompt"], {}), i, resps=row["responses"])
        for i, row in enumerate(old)
    ]
    thoughts = ResponseThoughts(task, metadata).read(instances, lambda doc: None)
    for row, of_responses in zip(old, thoughts, strict=True):
        for details, thought in zip(row["attempts"], of_responses, strict=False):
            if thought is not None:
                details["unfinished_thought"] = not thought.finished


def _questions(
    rows: list[dict[str, Any]], n_attempts: int, grader: str | None
) -> Iterable[Question]:
    for row in rows:
        row["attempts"] = row["attempts"][:n_attempts]
    if grader is None:
        return [row["attempts"] for row in rows]
    todo = [
        (
            [
                _answer(text, details)
                for text, details in zip(row["texts"], row["attempts"], strict=False)
            ],
            row["doc"],
            [
                details.get("finish_reason") if keeps else None
                for keeps, details in zip(row["ends"], row["attempts"], strict=False)
            ],
        )
        for row in rows
    ]
    graded = tqdm(
        grade_questions(grader, todo),
        total=len(todo),
        desc="Grading",
        unit="question",
        disable=None,
    )
    for row, verdicts in zip(rows, graded, strict=True):
        for details, verdict in zip(row["attempts"], verdicts, strict=True):
            details.pop("reason", None)
            details.update(verdict_details(verdict))
    return [row["attempts"] for row in rows]

"""The probability of a fitted calibrator as a source of a question's attempts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lm_eval_ext.errors import UserError
from lm_eval_ext.grading.attempt_details import Question
from lm_eval_ext.methods.calibrator import CALIBRATED, QUESTION_SOURCES, Calibrator, attempt_values
from lm_eval_ext.scoring.confidence_sources import Source, confidence_sources, source_of_attempts

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def with_calibrated(calibrator: Calibrator, question: Question) -> dict[str, Source]:
    """Return the sources of a question with that of a calibrator; one logged before is replaced.

    Parameters
    ----------
    calibrator
        The calibrator.
    question
        Its attempts; with sources that compare attempts as many as the calibrator was fitted at.

    Raises
    ------
    UserError
        For another number of attempts.
    """
    n = len(question)
    if calibrator.looks_at_questions and n != calibrator.n_attempts:
        raise UserError(
            f"--calibrator={calibrator.path}: compares attempts and was fitted at "
            f"{calibrator.n_attempts} of a question, and the run has {n}; score with --attempts "
            f"{calibrator.n_attempts}, or fit it with --attempts {n}"
        )

    def of_subsets(members: IntArray) -> FloatArray:
        found = calibrator.probability(source_values(question, calibrator.sources, members))
        return np.nan_to_num(found, nan=0.0)

    everyone = np.arange(n)[None]
    values = source_values(question, calibrator.sources, everyone)[0]
    found = [None if np.isnan(p) else float(p) for p in calibrator.probability(values)]
    sources = {k: v for k, v in confidence_sources(question).items() if k != CALIBRATED}
    if any(p is not None for p in found):
        source = source_of_attempts(question, found, is_probability=True, vote_weight=found)
        if calibrator.looks_at_questions:
            source = source._replace(of_subsets=of_subsets)
        sources[CALIBRATED] = source
    return sources


def source_values(question: Question, names: tuple[str, ...], members: IntArray) -> FloatArray:
    """Return sources of attempts by name, those that compare attempts within subsets.

    Parameters
    ----------
    question
        The attempts.
    names
        Of the sources.
    members
        Numbers of the attempts in each subset, shape (n_subsets, k).

    Returns
    -------
    numpy.ndarray
        Shape (n_subsets, k, n_sources); NaN where an attempt does not have a source.

    Examples
    --------
    >>> attempts = [{"answer": a, "n_tokens": 5} for a in ("4", "4", None, "5")]
    >>> source_values(attempts, ("answer_share", "answer_groups"), np.array([[0, 1, 2, 3]]))[0]
    array([[0.5 , 0.5 ],
           [0.5 , 0.5 ],
           [0.  , 0.5 ],
           [0.25, 0.5 ]])
    """
    own = np.array([attempt_values(attempt, names) for attempt in question])
    values = own[members]
    if not any(name in QUESTION_SOURCES for name in names):
        return values
    places = {answer: i for i, answer in enumerate(dict.fromkeys(a["answer"] for a in question))}
    answers = np.array([places[attempt["answer"]] for attempt in question])[members]
    is_valid = np.array([attempt["answer"] is not None for attempt in question])[members]
    votes = (answers[:, :, None] == answers[:, None, :]).sum(axis=2)
    k = members.shape[1]
    # An invalid attempt agrees with no other.
    surprise = -np.log(np.where(is_valid, votes, 1) / k)
    compared = {
        "answer_share": np.where(is_valid, votes / k, 0.0),
        "answer_groups": np.repeat((is_valid / votes).sum(axis=1, keepdims=True) / k, k, axis=1),
        "answer_entropy": np.repeat(surprise.mean(axis=1, keepdims=True), k, axis=1),
    }
    for name, column in compared.items():
        if name in names:
            values[:, :, names.index(name)] = column
    return values

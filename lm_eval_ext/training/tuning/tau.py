"""``lm-eval-ext train tau``: choose the temperature of the softmax vote on training problems."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from lm_eval_ext.errors import UserError
from lm_eval_ext.grading.attempt_details import Question
from lm_eval_ext.metrics import maj_at_k, weighted_vote
from lm_eval_ext.training.tuning.options import TauOptions
from lm_eval_ext.training.tuning.tuning_run import probabilities, read_tuning_run

TAUS = tuple(float(tau) for tau in np.geomspace(0.01, 10, 31).round(4))
"""What is tried: below, the most confident attempt decides; above, the majority does."""

FEWEST_VOTERS = 3
"""Of two answers that differ the more confident one wins at any tau."""


class TauChoice(NamedTuple):
    """The best temperature of a vote.

    Parameters
    ----------
    tau
        The temperature; of several that are equally good, the largest, closest to a majority vote.
    score
        Mean score of the vote at it.
    majority
        Mean score of the majority vote.
    """

    tau: float
    score: float
    majority: float

    @property
    def notes(self) -> list[str]:
        """What to know before using it."""
        notes = []
        if self.tau == max(TAUS):
            notes.append(
                f"tau={self.tau:g} is the largest tried: the vote is nearly the majority's"
            )
        elif self.tau == min(TAUS):
            notes.append(f"tau={self.tau:g} is the smallest tried: the most confident one decides")
        if self.score < self.majority - 1e-9:
            notes.append("the vote is below the majority at every tau: this confidence misleads it")
        return notes


def run(options: TauOptions) -> int:
    """Try all temperatures and print the best."""
    tuning = read_tuning_run(options.run, options.tasks)
    questions = [one for one in tuning.all_questions if len(one) >= FEWEST_VOTERS]
    if not questions:
        raise UserError(
            f"{options.run}: no question has {FEWEST_VOTERS} attempts or more, and tau decides "
            "nothing among fewer: give a run of a task such as gsm8k_train_passn"
        )
    fewest = min(map(len, questions))
    k = fewest if options.k is None else options.k
    if not FEWEST_VOTERS <= k <= fewest:
        raise UserError(
            f"--k={k} must be from {FEWEST_VOTERS} to {fewest}, the attempts at each question"
        )
    best = choose_tau(questions, options.source, k)
    print(
        f"tau {best.tau:g}: cisc@{k} {best.score:.4f}, maj@{k} {best.majority:.4f} on "
        f"{len(questions)} questions"
    )
    for note in best.notes:
        print(f"note: {note}")
    print(f"use: --metadata '{{\"tau\": {best.tau:g}}}'")
    return 0


def choose_tau(
    questions: Sequence[Question], source: str, k: int, taus: Sequence[float] = TAUS
) -> TauChoice:
    """Return the temperature at which the softmax vote of k attempts scores best.

    Parameters
    ----------
    questions
        The attempts at each training problem.
    source
        Name of the probability they are weighted by.
    taus
        Temperatures to try, each above 0.
    """
    totals, majority = np.zeros(len(taus)), 0.0
    for question in tqdm(questions, desc="Voting", unit="question", disable=None):
        votes = [a["answer"] for a in question], [a["correct"] for a in question]
        weights = probabilities(question, source, untuned=False)
        majority += float(maj_at_k(*votes, k).score)
        totals += [
            float(weighted_vote(*votes, weights, k, rule="softmax", tau=tau).score) for tau in taus
        ]
    # Sums of equal scores may differ in their last bits.
    highest = float(totals.max())
    best = max(tau for tau, total in zip(taus, totals, strict=True) if total >= highest - 1e-9)
    return TauChoice(best, highest / len(questions), majority / len(questions))

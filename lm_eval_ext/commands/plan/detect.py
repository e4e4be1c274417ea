"""How many attempts and questions it takes to see a difference, from the noise of finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard.noise import parts_of
from lm_eval_ext.leaderboard.run_comparison import check_same_questions
from lm_eval_ext.leaderboard.run_output import read_run
from lm_eval_ext.metrics import VarianceParts

METRIC = "pass@1"
ATTEMPTS = (1, 2, 4, 8, 16, 32, 64, 128)

Sizes = dict[str, dict[int, float]]
"""By task and number of attempts the questions."""


def sizes_to_detect(effect: float, pilot: Sequence[Path]) -> Sizes:
    """Return how many questions see a difference in pass@1, by task and number of attempts.

    Found with 80% probability by a two-sided test at the 5% level, paired by question.

    Parameters
    ----------
    effect
        The difference, in (0, 1).
    pilot
        Folders of one or two runs with several attempts. Of one, the other run is taken to be as
        good at every question, so that only attempts make noise.

    Raises
    ------
    UserError
        If the runs share no task whose attempts are known.
    """
    runs = [read_run(folder) for folder in pilot]
    found: Sizes = {}
    for task in runs[0].tasks:
        if not all(task in run.tasks for run in runs):
            continue
        check_same_questions(runs, task)
        of_runs = [run.tasks[task] for run in runs]
        parts = [parts_of(of_runs[0], METRIC, *of_runs[1:], at=n) for n in ATTEMPTS]
        if all(one is not None for one in parts):
            found[task] = {
                n: _alone(one, len(runs)).questions_to_see(effect)
                for n, one in zip(ATTEMPTS, parts, strict=True)
                if one is not None
            }
    if not found:
        raise UserError(
            "--pilot: the runs share no task with several logged attempts at two questions; run "
            "one such as gsm8k_passn with --log_samples"
        )
    return found


def _alone(parts: VarianceParts, n_runs: int) -> VarianceParts:
    if n_runs == 2:
        return parts
    return parts._replace(attempts=2 * parts.attempts, questions=0.0)


def as_text(effect: float, sizes: Sizes) -> str:
    """Return the sizes as lines."""
    lines = [
        f"questions to see a difference of {effect:g} in {METRIC}, with 80% probability at the 5% "
        "level, paired by question:",
        "attempts".ljust(28) + "".join(f"{n:>9,}" for n in ATTEMPTS),
    ]
    for task, by_attempts in sizes.items():
        lines.append(task.ljust(28) + "".join(f"{n:>9,.0f}" for n in by_attempts.values()))
    return "\n".join(lines)

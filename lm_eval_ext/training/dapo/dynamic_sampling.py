"""Dynamic sampling: only groups with right and wrong rollouts enter the update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from lm_eval_ext.errors import UserError
from lm_eval_ext.training.dapo.rewards import Group

Question = TypeVar("Question")

# Prompts asked in a refill per missing group. About half of the groups are dropped in a typical
# run, and a round of few rollouts takes nearly as long as one of many.
_ASKED_PER_MISSING = 2


@dataclass
class SamplingCounts:
    """What dynamic sampling did, over a step or over a run.

    Parameters
    ----------
    surplus
        Groups that could have been used, but were not needed any more.
    accuracy_sum
        Sum over all groups, dropped ones too, of the share of right rollouts.
    """

    groups: int = 0
    all_right: int = 0
    all_wrong: int = 0
    cancelled: int = 0
    surplus: int = 0
    refills: int = 0
    accuracy_sum: float = 0.0

    @property
    def dropped(self) -> int:
        """Groups without variance."""
        return self.all_right + self.all_wrong + self.cancelled

    def note(self, group: Group) -> None:
        """Count one group."""
        right = sum(group.verdicts)
        self.groups += 1
        self.accuracy_sum += right / len(group.verdicts)
        if not group.varies:
            if right == len(group.verdicts):
                self.all_right += 1
            elif right == 0:
                self.all_wrong += 1
            else:
                self.cancelled += 1


@dataclass
class Filled:
    """The groups of a step."""

    groups: list[Group]
    missing: int
    counts: SamplingCounts = field(default_factory=SamplingCounts)


def fill_groups(
    questions: Sequence[Question],
    roll_out: Callable[[Sequence[Question]], Sequence[Group]],
    further: Callable[[int], Sequence[Question]],
    *,
    max_refills: int,
) -> Filled:
    """Roll out questions, drop groups without variance, and refill from further questions.

    Returns
    -------
    Filled
        Groups in the order they were rolled out; a surplus of the last round is dropped.
    """
    wanted = len(questions)
    counts, kept = SamplingCounts(), []
    asked = questions
    while True:
        for group in roll_out(asked):
            counts.note(group)
            if group.varies:
                kept.append(group)
        missing = max(0, wanted - len(kept))
        if not missing or counts.refills == max_refills:
            counts.surplus = max(0, len(kept) - wanted)
            return Filled(kept[:wanted], missing, counts)
        counts.refills += 1
        asked = further(_ASKED_PER_MISSING * missing)


def check_filled(missing: int, wanted: int, counts: SamplingCounts, max_refills: int) -> None:
    """Raise `UserError` if a step did not get its groups."""
    if not missing:
        return
    cancelled = ""
    if counts.cancelled:
        cancelled = (
            f", and in {counts.cancelled} the overlong penalty made right and wrong rollouts "
            "equal: change --overlong-buffer"
        )
    raise UserError(
        f"max_refills={max_refills} reached: {wanted - missing} of {wanted} groups of this step "
        f"were found; of {counts.groups} groups rolled out {counts.all_right} were all right and "
        f"{counts.all_wrong} all wrong{cancelled}. Choose prompts nearer to what the model can "
        "just do, a larger group or a higher temperature; or raise --max-refills and repeat the "
        "command, which resumes from the last checkpoint"
    )

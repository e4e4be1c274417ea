"""Command ``lm-eval-ext train drafts``: small drafts of a target, by distillation.

The target responds to the prompts, the prompts are split among the drafts, and each draft is
distilled on its own responses.
"""

from __future__ import annotations

from lm_eval_ext.training.drafts.draft_job import train_drafts
from lm_eval_ext.training.drafts.settings import DraftOptions


def run(options: DraftOptions) -> int:
    """Train the drafts and return the exit status."""
    train_drafts(options, options.output, options.runtime)
    return 0

"""Commands ``lm-eval-ext train epicar`` and ``train star``."""

from __future__ import annotations

from lm_eval_ext.training.self_training.job import PhaseFailedError, self_train
from lm_eval_ext.training.self_training.settings import EpicarOptions


def run(options: EpicarOptions) -> int:
    """Train and return the exit status."""
    try:
        self_train(
            options,
            options.output,
            runtime=options.runtime,
            may_run_code=options.confirm_run_unsafe_code,
        )
    except PhaseFailedError:
        return 2  # it has said why
    return 0

"""Command ``lm-eval-ext train dapo``: reinforcement learning on graded questions.

DAPO through TRL, with dynamic sampling, and with random soft prompts in the rollouts where asked.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from packaging.version import Version

from lm_eval_ext.errors import UserError
from lm_eval_ext.training.dapo.settings import DapoOptions

OLDEST_TRL = "1.16"


def run(options: DapoOptions) -> int:
    """Train and return the exit status."""
    try:
        found = version("trl")
    except PackageNotFoundError as error:
        raise UserError(
            "train dapo needs trl, which is not installed: pip install 'lm-eval-ext[train]'"
        ) from error
    # The trainer overrides what GRPOTrainer has had since then.
    if Version(found) < Version(OLDEST_TRL):
        raise UserError(
            f"trl {found} is installed, and train dapo needs {OLDEST_TRL} or later: on Python 3.11 "
            f"or later, pip install 'trl>={OLDEST_TRL}'"
        )
    from lm_eval_ext.training.dapo.job import train_dapo

    train_dapo(options, options.output, options.runtime)
    return 0

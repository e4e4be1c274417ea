"""Old path of `lm_eval_ext.scoring.group_metrics`, kept for one release."""

from lm_eval_ext.scoring.group_metrics import *  # noqa: F403

"""Old path of `lm_eval_ext.scoring.aggregations`, kept for one release."""

from lm_eval_ext.scoring.aggregations import *  # noqa: F403

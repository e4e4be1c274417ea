"""Old path of `lm_eval_ext.data.exemplars`, kept for one release."""

from lm_eval_ext.data.exemplars import *  # noqa: F403

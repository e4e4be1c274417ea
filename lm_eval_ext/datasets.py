"""Old path of `lm_eval_ext.data.datasets`, kept for one release."""

from lm_eval_ext.data.datasets import *  # noqa: F403

"""Old path of `lm_eval_ext.harness.bridge`, kept for one release."""

from lm_eval_ext.harness.bridge import *  # noqa: F403

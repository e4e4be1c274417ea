"""Names of `lm_eval_ext.engine.follow_up` that `lm_eval_ext.methods.self_evaluation` still uses."""

from lm_eval_ext.engine.follow_up import FinishedAttempt as FinishedAttempt
from lm_eval_ext.engine.follow_up import FollowUp as Epilogue  # noqa: F401

"""Metrics on NumPy arrays: sampling, voting, calibration, discrimination, intervals and tests.

Every metric is one pure function. It can be imported without lm-eval, torch or transformers, and
SciPy is loaded only by the functions that need it.
"""

from lm_eval_ext.metrics.attempt_sources import (
    answer_entropy,
    answer_logprob,
    lowest_window_logprob,
    tail_logprob,
)
from lm_eval_ext.metrics.bootstrap import (
    BootstrapInterval,
    cluster_bootstrap,
    mean_over_questions,
)
from lm_eval_ext.metrics.calibration import debiased_ece, ece
from lm_eval_ext.metrics.checks import UndefinedMetricWarning
from lm_eval_ext.metrics.comparison import (
    PairedDifference,
    minimum_detectable_effect,
    paired_bootstrap,
)
from lm_eval_ext.metrics.discrimination import auprc, auroc, within_question_auroc
from lm_eval_ext.metrics.estimation import (
    AffineFit,
    affine_rmse,
    fit_affine,
    mae,
    partial_correlation,
    pearson,
    rmse,
    spearman,
)
from lm_eval_ext.metrics.intervals import (
    Interval,
    MeanInterval,
    clustered_standard_error,
    proportion_interval,
    t_interval,
    wilson_interval,
)
from lm_eval_ext.metrics.multiple_tests import holm
from lm_eval_ext.metrics.pass_at_k import avg_at_k, eligible_count, pass_at_k, pass_hat_k
from lm_eval_ext.metrics.reliability import ReliabilityCurve, reliability_curve
from lm_eval_ext.metrics.roc import RocCurve, roc_curve
from lm_eval_ext.metrics.scoring import Murphy, brier, murphy_decomposition, nll
from lm_eval_ext.metrics.selective import (
    RiskCoverage,
    accuracy_at_coverage,
    aurc,
    e_aurc,
    prr,
    risk_coverage_curve,
)
from lm_eval_ext.metrics.smooth_ece import smooth_ece
from lm_eval_ext.metrics.temperature import apply_temperature, fit_temperature
from lm_eval_ext.metrics.variance import VarianceParts, attempt_variance, variance_parts
from lm_eval_ext.metrics.voting import VoteScore, group_answers, maj_at_k, weighted_vote

__all__ = [
    "AffineFit",
    "BootstrapInterval",
    "Interval",
    "MeanInterval",
    "Murphy",
    "PairedDifference",
    "ReliabilityCurve",
    "RiskCoverage",
    "RocCurve",
    "UndefinedMetricWarning",
    "VarianceParts",
    "VoteScore",
    "accuracy_at_coverage",
    "affine_rmse",
    "answer_entropy",
    "answer_logprob",
    "apply_temperature",
    "attempt_variance",
    "auprc",
    "aurc",
    "auroc",
    "avg_at_k",
    "brier",
    "cluster_bootstrap",
    "clustered_standard_error",
    "debiased_ece",
    "e_aurc",
    "ece",
    "eligible_count",
    "fit_affine",
    "fit_temperature",
    "group_answers",
    "holm",
    "lowest_window_logprob",
    "mae",
    "maj_at_k",
    "mean_over_questions",
    "minimum_detectable_effect",
    "murphy_decomposition",
    "nll",
    "paired_bootstrap",
    "partial_correlation",
    "pass_at_k",
    "pass_hat_k",
    "pearson",
    "proportion_interval",
    "prr",
    "reliability_curve",
    "risk_coverage_curve",
    "rmse",
    "roc_curve",
    "smooth_ece",
    "spearman",
    "t_interval",
    "tail_logprob",
    "variance_parts",
    "weighted_vote",
    "wilson_interval",
    "within_question_auroc",
]

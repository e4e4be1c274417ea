"""Paired tests between two runs on the same questions, and what they could have found."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lm_eval_ext.metrics.bootstrap import mean_over_questions
from lm_eval_ext.metrics.checks import (
    FloatArray,
    at_least,
    open_unit,
    scalar_or_array,
)
from lm_eval_ext.metrics.resampling import (
    Data,
    Metric,
    Questions,
    as_arrays,
    formula_of,
    questions_of,
    resampled_values,
    too_undefined,
)


class PairedDifference(NamedTuple):
    """Difference a - b of a metric between two runs, by paired bootstrap over questions.

    `n_questions` were compared; `n_left_out` more had no value in one of the runs.
    """

    difference: float
    low: float
    high: float
    standard_error: float
    p_value: float
    estimate_a: float
    estimate_b: float
    n_questions: int
    n_resamples: int
    n_undefined: int
    confidence_level: float
    n_left_out: int = 0


def _paired_questions(
    data_a: Data, data_b: Data, clusters: tuple[ArrayLike, ArrayLike] | None
) -> tuple[Questions, Questions]:
    """Index the questions of both runs alike, and refuse runs on different questions."""
    ids_a, ids_b = clusters if clusters is not None else (None, None)
    a, b = questions_of(data_a, ids_a), questions_of(data_b, ids_b)
    if a.n_questions != b.n_questions or (a.ids != b.ids).any():
        only_a, only_b = np.setdiff1d(a.ids, b.ids), np.setdiff1d(b.ids, a.ids)
        raise ValueError(
            f"the runs must share their questions: {len(only_a)} only in a {list(only_a[:3])}, "
            f"{len(only_b)} only in b {list(only_b[:3])}"
        )
    return a, b


def _defined_in_both(
    run_a: tuple[Data, Questions], run_b: tuple[Data, Questions]
) -> tuple[tuple[Data, Questions], tuple[Data, Questions], int]:
    """Keep the questions with a value in both runs, and count the others.

    Otherwise the two means would be over different questions, and their difference not paired.
    """
    n = run_a[1].n_questions
    shared = np.ones(n, dtype=bool)
    for data, questions in (run_a, run_b):
        values = np.asarray(data["values"], dtype=np.float64)
        if values.ndim != 1:
            return run_a, run_b, 0  # several numbers per question, which is refused later
        shared &= np.bincount(questions.of_row, weights=~np.isnan(values), minlength=n) > 0

    def kept(data: Data, questions: Questions) -> tuple[Data, Questions]:
        values = np.asarray(data["values"], dtype=np.float64)
        if not shared.any():
            return {"values": np.full_like(values, np.nan)}, questions
        rows = shared[questions.of_row]
        of_row = (np.cumsum(shared) - 1)[questions.of_row[rows]]
        return {"values": values[rows]}, Questions(of_row, int(shared.sum()), questions.ids[shared])

    return kept(*run_a), kept(*run_b), int((~shared).sum())


def paired_bootstrap(
    metric: Metric,
    data_a: Data,
    data_b: Data,
    *,
    clusters: tuple[ArrayLike, ArrayLike] | None = None,
    n_resamples: int = 1_000,
    confidence_level: float = 0.95,
    seed: int | np.random.Generator = 0,
) -> PairedDifference:
    """Compare a metric between two runs, resampling the shared questions jointly.

    The interval is the percentile interval of the difference, and the two-sided p-value is the one
    that agrees with it: twice the smaller share of resamples on either side of zero.

    Parameters
    ----------
    metric
        Called as ``metric(**data)``; must give one number. Options are fixed with
        `functools.partial`, by name.
    data_a, data_b
        Arrays of each run, by argument name. The numbers of attempts may differ.
    clusters
        Question ids of the rows of a and of b. None: entry i of the first axis is question i in
        both runs.
    n_resamples
        Number of resamples, at least 2; the smallest possible p-value is 2 / (n_resamples + 1).
    confidence_level
        Strictly between 0 and 1.
    seed
        Seed or numpy Generator.

    Returns
    -------
    PairedDifference
        NaN where the metric is undefined in either run, and for a single question. NaN interval,
        standard error and p-value where it is undefined on more than a quarter of the resamples;
        an `UndefinedMetricWarning` tells when it is on more than 5%.

    Raises
    ------
    ValueError
        If the runs do not have the same questions.

    Notes
    -----
    With `mean_over_questions`, a question whose value is NaN in one run is left out of both, its
    estimates included, and counted in `n_left_out`. Any other metric meets NaN as it stands.

    References
    ----------
    Koehn 2004, Statistical Significance Tests for Machine Translation Evaluation, EMNLP.

    Examples
    --------
    >>> from lm_eval_ext.metrics import mean_over_questions
    >>> a, b = np.array([1, 1, 1, 0] * 10), np.array([0, 1, 0, 0] * 10)
    >>> result = paired_bootstrap(mean_over_questions, {"values": a}, {"values": b})
    >>> result.difference, result.low > 0, result.p_value < 0.01
    (0.5, True, True)
    """
    at_least("n_resamples", n_resamples, 2)
    level = open_unit("confidence_level", confidence_level)
    data_a, data_b = as_arrays(data_a), as_arrays(data_b)
    questions_a, questions_b = _paired_questions(data_a, data_b, clusters)
    n_left_out = 0
    function = metric.func if isinstance(metric, partial) else metric
    if function is mean_over_questions:
        (data_a, questions_a), (data_b, questions_b), n_left_out = _defined_in_both(
            (data_a, questions_a), (data_b, questions_b)
        )
    n = questions_a.n_questions
    # Both runs start from one state, so they see the same resamples.
    state = int(np.random.default_rng(seed).integers(2**63))
    a, values_a = _resampled(metric, data_a, questions_a, state, n_resamples)
    b, values_b = _resampled(metric, data_b, questions_b, state, n_resamples)
    differences = values_a - values_b
    known = differences[~np.isnan(differences)]
    low = high = error = p_value = np.nan
    difference = np.asarray(a - b)
    no_interval = n > 1 and bool(too_undefined(differences, difference))
    if len(known) > 1 and not np.isnan(difference) and not no_interval:
        low, high = (float(q) for q in np.quantile(known, [0.5 - level / 2, 0.5 + level / 2]))
        error = float(known.std(ddof=1))
        tail = 1 + min(int((known <= 0).sum()), int((known >= 0).sum()))
        p_value = min(1.0, 2 * tail / (len(known) + 1))
    undefined = n_resamples - len(known)
    return PairedDifference(
        a - b, low, high, error, p_value, a, b, n, n_resamples, undefined, level, n_left_out
    )


def _resampled(
    metric: Metric, data: Data, questions: Questions, state: int, n_resamples: int
) -> tuple[float, FloatArray]:
    """Return a metric that gives one number, and its values on resampled questions."""
    formula = formula_of(metric, data, questions)
    estimate = formula.at_weight_one(questions.n_questions)
    if estimate.ndim:
        raise ValueError(f"metric must give one number, got shape {estimate.shape}")
    rng = np.random.default_rng(state)
    values = resampled_values(formula, estimate, questions.n_questions, n_resamples, rng)
    return float(estimate), values


def minimum_detectable_effect(
    standard_error: ArrayLike, *, alpha: float = 0.05, power: float = 0.8
) -> Any:
    r"""Return the smallest true difference that a two-sided test finds with the given power.

    .. math:: \delta = (z_{1-\alpha/2} + z_{\mathrm{power}})\, \mathrm{SE}

    Parameters
    ----------
    standard_error
        Of the difference, such as that of `paired_bootstrap`; scales with 1 / sqrt(n_questions).
    alpha
        Level of the test, strictly between 0 and 1.
    power
        Probability of finding the effect, strictly between 0 and 1.

    Returns
    -------
    float or numpy.ndarray
        In the unit of `standard_error`, same shape.

    References
    ----------
    Miller 2024, Adding Error Bars to Evals, arXiv:2411.00640.

    Examples
    --------
    >>> round(minimum_detectable_effect(0.01), 4)
    0.028
    """
    from scipy.special import ndtri

    error = np.asarray(standard_error, dtype=np.float64)
    if (error < 0).any():
        raise ValueError(f"standard_error must not be negative, got {standard_error!r}")
    z = ndtri(1 - open_unit("alpha", alpha) / 2) + ndtri(open_unit("power", power))
    effect = z * error
    return scalar_or_array(effect)

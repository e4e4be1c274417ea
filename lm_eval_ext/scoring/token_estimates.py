"""Per-token estimates of epistemic uncertainty beside the reference they are measured against.

A model wrapper leaves both among the ``token_scores`` of an attempt: the reference is
``reference_eu``, and the estimates are those of `ESTIMATES`. Two of these are yardsticks, which an
estimate must beat to be worth anything, and so is ``zero``, the estimate that there is no
uncertainty.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

from lm_eval_ext.grading.attempt_details import Question
from lm_eval_ext.metrics import UndefinedMetricWarning

REFERENCE = "reference_eu"
ESTIMATES = {
    "draft_jsd": "jsd",
    "draft_eu_fitted": "eu_fitted",
    "draft_eu": "eu",
    "draft_kl": "kl",
    "single_draft": "single_draft",
    "target_entropy": "target_entropy",
}
"""Name in the tables -> name of the token score."""


class TokenEstimate(NamedTuple):
    """What one estimate says of the tokens of a question's attempts.

    Parameters
    ----------
    estimate
        Estimated uncertainty of each token, nats, the attempts one after another.
    reference
        Reference uncertainty of each token, nats.
    """

    estimate: list[float]
    reference: list[float]


def token_estimates(question: Question) -> dict[str, TokenEstimate]:
    """Return the estimates of a question by name; without a reference there are none.

    Examples
    --------
    >>> attempt = {"token_scores": {"eu": [0.5, 1.0], "reference_eu": [0.25, 1.5]}}
    >>> token_estimates([attempt])["draft_eu"]
    TokenEstimate(estimate=[0.5, 1.0], reference=[0.25, 1.5])
    """
    scores = [attempt.get("token_scores", {}) for attempt in question]
    if not all(REFERENCE in by_name for by_name in scores):
        warnings.warn(
            "attempts carry no reference uncertainty: run --model draft-eu with "
            "--model_args reference=tokur",
            UndefinedMetricWarning,
            stacklevel=2,
        )
        return {}
    reference = [value for by_name in scores for value in by_name[REFERENCE]]
    estimates = {
        name: [value for by_name in scores for value in by_name[score]]
        for name, score in ESTIMATES.items()
        if all(score in by_name for by_name in scores)
    }
    estimates["zero"] = [0.0] * len(reference)
    return {name: TokenEstimate(values, reference) for name, values in estimates.items()}

"""The drafts' divergences on the scale of the reference, by an affine map fitted on training runs.

Ours, not the paper's: its sum JSD + KL adds the bias of weak drafts to what the target does not
know, and a fit weighs the two parts by what they are worth.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lm_eval_ext.errors import UserError

FITTED = "eu_fitted"
"""Name among the scores of a token."""

PARTS = ("jsd", "kl")
FORMAT = "lm_eval_ext.eu_fit/1"


class EUFit(NamedTuple):
    """An affine map from the parts of the estimate to the reference, nats.

    Parameters
    ----------
    jsd, kl
        Weights of the parts.
    intercept
        What is added.
    prompts
        Hashes of the prompts that it was fitted on.
    """

    jsd: float
    kl: float
    intercept: float
    prompts: frozenset[str] = frozenset()

    def estimate(self, scores: Mapping[str, ArrayLike]) -> NDArray[np.float32]:
        """Return the estimate at each token, at least 0, shape (n_tokens,).

        Parameters
        ----------
        scores
            ``jsd`` and ``kl`` of each token.
        """
        jsd, kl = (np.asarray(scores[name], dtype=np.float64) for name in PARTS)
        value = self.jsd * jsd + self.kl * kl + self.intercept
        return np.maximum(value, 0.0).astype(np.float32)

    def refuse(self, hashes: Iterable[str]) -> None:
        """Refuse prompts that it was fitted on.

        Raises
        ------
        UserError
            If there is one.
        """
        n_shared = len(self.prompts.intersection(hashes))
        if n_shared:
            raise UserError(
                f"eu_fit: was fitted on {n_shared} of the prompts of this run; fit it on training "
                "problems and score others"
            )


def fit_eu(scores: Iterable[Mapping[str, Any]], reference: str) -> EUFit:
    """Fit by least squares over tokens.

    Parameters
    ----------
    scores
        Token scores of each attempt, with `PARTS` and the reference.
    reference
        Its name.
    """
    rows = [np.array([one[name] for name in (*PARTS, reference)], float).T for one in scores]
    values = np.concatenate(rows)
    design = np.column_stack([values[:, :2], np.ones(len(values))])
    (jsd, kl, intercept), *_ = np.linalg.lstsq(design, values[:, 2], rcond=None)
    return EUFit(float(jsd), float(kl), float(intercept))


def read_eu_fit(path: str | Path | None) -> EUFit | None:
    """Read a file of ``lm-eval-ext train eu-fit``; without one there is none.

    Raises
    ------
    UserError
        If there is no such file, or it holds something else.
    """
    if path is None:
        return None
    remedy = "write one with lm-eval-ext train eu-fit"
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise ValueError(f"format {found['format']!r}")
        jsd, kl, intercept = (float(found[name]) for name in (*PARTS, "intercept"))
        fit = EUFit(jsd, kl, intercept, frozenset(found["prompts"]))
    except OSError as error:
        raise UserError(f"eu_fit={path}: no such file; {remedy}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"eu_fit={path}: not a fit ({error}); {remedy}") from error
    if not np.isfinite([jsd, kl, intercept]).all():
        raise UserError(f"eu_fit={path}: a number is not finite; {remedy}")
    return fit

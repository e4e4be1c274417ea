r"""Total, aleatoric and epistemic uncertainty of an ensemble of next-token distributions.

.. math:: TU = H(\bar p), \quad AU = \frac1M \sum_m H(p_m), \quad EU = TU - AU,

the mutual information between the token and the member (Depeweg et al. 2018, arXiv:1710.07283).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch

# Entries worked on at once, as in `lm_eval_ext.methods.epistemic.divergence`.
_ENTRIES_ON_CPU = 2**16
_ENTRIES_ON_GPU = 2**25


class EnsembleUncertainty(NamedTuple):
    """Uncertainties per token, each a tensor of shape (n_tokens,), float32, nats.

    Parameters
    ----------
    tu
        Total uncertainty, the entropy of the mean distribution, in [0, ln V].
    au
        Aleatoric uncertainty, the mean entropy of the members, in [0, ln V].
    eu
        Epistemic uncertainty, their difference, in [0, ln M] before the correction.
    """

    tu: torch.Tensor
    au: torch.Tensor
    eu: torch.Tensor


def entropy(probs: torch.Tensor) -> torch.Tensor:
    """Return the entropy along the last axis, in nats.

    Parameters
    ----------
    probs
        Shape (..., vocabulary).

    Examples
    --------
    >>> float(entropy(torch.tensor([0.5, 0.5, 0.0])))
    0.693147...
    """
    return torch.special.entr(probs).sum(dim=-1)


def finite_sample_factor(n_members: int) -> float:
    """Return M/(M-1), by which the EU of M sampled members is too small to first order.

    The plug-in mutual information of M samples from a posterior is, for small disagreement, like
    a variance without Bessel's correction: (1 - 1/M) of its limit. Ours; not in TokUR's code.

    Parameters
    ----------
    n_members
        M, at least 2.

    Examples
    --------
    >>> finite_sample_factor(10).__round__(3)
    1.111
    """
    if n_members < 2:
        raise ValueError(f"n_members={n_members} must be at least 2")
    return n_members / (n_members - 1)


class EnsembleSum:
    """Sums over members that come one after the other, so that they are never held together.

    Parameters
    ----------
    n_tokens
        Tokens per member.
    width
        Size of the vocabulary.
    device
        Where the sums are held, in float32.
    """

    def __init__(self, n_tokens: int, width: int, device: torch.device) -> None:
        self._probs = torch.zeros(n_tokens, width, device=device)
        self._entropy = torch.zeros(n_tokens, device=device)
        self.n_members = 0

    def add(self, logits: torch.Tensor) -> None:
        """Add a member by its logits, shape (n_tokens, vocabulary)."""
        width = self._probs.shape[-1]
        on_cpu = logits.device.type == "cpu"
        n_rows = max(1, (_ENTRIES_ON_CPU if on_cpu else _ENTRIES_ON_GPU) // width)
        for first in range(0, len(logits), n_rows):
            rows = slice(first, first + n_rows)
            log_probs = torch.log_softmax(logits[rows, :width].float(), dim=-1)
            probs = log_probs.exp()
            self._entropy[rows] += _entropy(probs, log_probs).to(self._entropy.device)
            self._probs[rows] += probs.to(self._probs.device)
        self.n_members += 1

    def uncertainty(self, *, corrected: bool = False) -> EnsembleUncertainty:
        """Return the uncertainties of the members so far.

        Parameters
        ----------
        corrected
            Multiply EU by `finite_sample_factor`; TU and AU stay as they are.
        """
        tu = entropy(self._probs / self.n_members)
        au = self._entropy / self.n_members
        eu = (tu - au).clamp_min(0)
        return EnsembleUncertainty(
            tu, au, eu * finite_sample_factor(self.n_members) if corrected else eu
        )


def ensemble_uncertainty(
    logits: Iterable[torch.Tensor], *, corrected: bool = False
) -> EnsembleUncertainty:
    """Return the uncertainties of an ensemble.

    Parameters
    ----------
    logits
        Logits of each member, shape (n_tokens, vocabulary).
    corrected
        Multiply EU by M/(M-1).

    Examples
    --------
    >>> certain = torch.tensor([[[0.0, -1e9]], [[-1e9, 0.0]]])
    >>> [round(float(value), 4) for value in ensemble_uncertainty(certain)]
    [0.6931, 0.0, 0.6931]
    """
    total: EnsembleSum | None = None
    for member in logits:
        if total is None:
            total = EnsembleSum(len(member), member.shape[-1], member.device)
        total.add(member)
    if total is None:
        raise ValueError("logits is empty: an ensemble has at least one member")
    return total.uncertainty(corrected=corrected)


def _entropy(probs: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
    total = (probs * log_probs).sum(dim=-1).neg()
    # A token of probability 0 has log-prob -inf where the model masks it.
    return total if bool(torch.isfinite(total).all()) else entropy(probs)

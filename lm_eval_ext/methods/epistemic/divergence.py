r"""How far drafts disagree with each other and with the target, token by token.

With drafts :math:`q_1, ..., q_K`, their uniform mixture :math:`\bar q` and the target :math:`p`,

.. math::
    \frac1K \sum_k KL(q_k \| p)
    = \underbrace{\frac1K \sum_k KL(q_k \| \bar q)}_{JSD} + KL(\bar q \| p)

holds exactly (write the logarithm of :math:`q_k / p` as that of
:math:`q_k / \bar q \cdot \bar q / p`). The left side estimates the target's epistemic uncertainty,
the first term on the right is a proxy of its variance and the second of its bias ("Efficient
Epistemic Uncertainty Estimation for LLMs via Knowledge Distillation", arXiv:2602.01956).

Ours, where the paper's abstract leaves it open: temperature 1, the full vocabulary, nats, and the
plain target as :math:`p`. All functions work along the last axis, in the dtype of what they get.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch

# Entries per draft that are worked on at once: on a CPU they should stay in its cache.
_ENTRIES_ON_CPU = 2**16
_ENTRIES_ON_GPU = 2**25
_TINY = torch.finfo(torch.float32).tiny
# A logit whose probability is 0 and whose product with 0 is not NaN.
_IMPOSSIBLE = -1e30


class DraftDivergences(NamedTuple):
    """Divergences per token, each a tensor of shape (n_tokens,), float32, nats.

    Parameters
    ----------
    jsd
        Jensen-Shannon divergence among the drafts, in [0, ln K].
    kl
        KL divergence from the mixture of the drafts to the target, at least 0.
    first
        KL divergence from the first draft to the target: the estimate a single draft would give.
    """

    jsd: torch.Tensor
    kl: torch.Tensor
    first: torch.Tensor

    @property
    def eu(self) -> torch.Tensor:
        """Estimated epistemic uncertainty: the mean KL divergence of a draft to the target."""
        return self.jsd + self.kl


def mixture_log_probs(log_probs: torch.Tensor) -> torch.Tensor:
    """Return the log-probs of the uniform mixture over the first axis.

    Equal members give exactly their own log-probs.

    Parameters
    ----------
    log_probs
        Shape (K, ..., vocabulary).

    Examples
    --------
    >>> p = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    >>> mixture_log_probs(p.log()).exp()
    tensor([0.7500, 0.2500])
    """
    if len(log_probs) == 1:
        return log_probs[0]
    largest = log_probs.amax(dim=0)
    # A token impossible in every member: -inf - -inf would be NaN.
    finite = largest.clamp_min(torch.finfo(log_probs.dtype).min)
    return (log_probs - finite).exp_().mean(dim=0).log_().add_(finite)


def kl_divergence(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """Return KL(p || q) along the last axis, in nats, at least 0; infinite where q lacks support.

    Parameters
    ----------
    log_p, log_q
        Log-probs, shape (..., vocabulary).

    Examples
    --------
    >>> p, q = torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75])
    >>> float(kl_divergence(p.log(), q.log()))
    0.1438...
    >>> float(kl_divergence(p.log(), p.log()))
    0.0
    """
    return _kl(log_p.exp(), log_p, log_q)


def _kl(p: torch.Tensor, log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    total = (p * (log_p - log_q)).sum(dim=-1)
    if not bool(torch.isfinite(total).all()):  # 0 * inf where p is 0
        total = torch.where(p > 0, p * (log_p - log_q), 0.0).sum(dim=-1)
    return total.clamp_min(0)  # rounding leaves a few 1e-8 below zero


def jensen_shannon_divergence(log_probs: torch.Tensor) -> torch.Tensor:
    """Return the mean KL divergence of the members to their mixture, in [0, ln K], nats.

    Parameters
    ----------
    log_probs
        Log-probs of K members, shape (K, ..., vocabulary).

    Returns
    -------
    torch.Tensor
        Shape (...); exactly 0 where all members are equal.

    Examples
    --------
    >>> certain = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> float(jensen_shannon_divergence(certain.log())), math.log(2)
    (0.693147..., 0.693147...)
    """
    divergence = _kl(log_probs.exp(), log_probs, mixture_log_probs(log_probs)).mean(dim=0)
    return divergence.clamp_max(math.log(len(log_probs)))


def draft_divergences(
    draft_logits: Sequence[torch.Tensor], target_logits: torch.Tensor
) -> DraftDivergences:
    """Compare drafts with each other and with the target at every token.

    Parameters
    ----------
    draft_logits
        Logits of each draft, shape (n_tokens, vocabulary); wider ones are cut to the narrowest of
        all, the target included, and renormalized, which drops the padding of a vocabulary.
        Drafts given as one and the same tensor, or as the target's, diverge by exactly 0.
    target_logits
        Logits of the target, likewise.

    Returns
    -------
    DraftDivergences
        On the device of the target's logits.
    """
    width = min(logits.shape[-1] for logits in (*draft_logits, target_logits))
    on_cpu = target_logits.device.type == "cpu"
    n_rows = max(1, (_ENTRIES_ON_CPU if on_cpu else _ENTRIES_ON_GPU) // width)
    distinct: dict[int, torch.Tensor] = {id(target_logits): target_logits}
    distinct.update((id(logits), logits) for logits in draft_logits)
    counts = Counter(id(logits) for logits in draft_logits)
    # The target stands first; a weight of 0 means that no draft is it.
    weights = [counts[key] / len(draft_logits) for key in distinct]
    result = torch.empty(3, len(target_logits), device=target_logits.device)
    for first in range(0, len(target_logits), n_rows):
        rows = slice(first, first + n_rows)
        chunk = [
            logits[rows, :width].to(target_logits.device, torch.float32)
            for logits in distinct.values()
        ]
        log_probs = [torch.log_softmax(one, dim=-1) for one in _without_masked(chunk)]
        # Which of the distinct models the first draft is.
        single = list(distinct).index(id(draft_logits[0]))
        result[:, rows] = _weighted_divergences(log_probs, weights, single)
    return DraftDivergences(*result)


def _weighted_divergences(
    log_probs: Sequence[torch.Tensor], weights: Sequence[float], single: int
) -> torch.Tensor:
    """Return (jsd, kl, first) of one chunk from distinct models, the target first.

    The sums are those of `jensen_shannon_divergence` and `kl_divergence` with the fewest passes
    over the vocabulary, which is what this costs.
    """
    target = log_probs[0]
    members = [(w, one) for w, one in zip(weights, log_probs, strict=True) if w > 0]
    zero = torch.zeros_like(target[..., 0])
    if len(members) == 1:
        kl = zero if members[0][1] is target else kl_divergence(members[0][1], target)
        return torch.stack([zero, kl, kl])
    probs = [one.exp() for _, one in members]
    mixture = torch.zeros_like(target)
    for (weight, _), one in zip(members, probs, strict=True):
        mixture.add_(one, alpha=weight)
    # Where every draft underflows to 0 the terms below are 0, if only the logarithm is finite.
    log_mixture = mixture.clamp_min(_TINY).log_()
    jsd = zero.clone()
    first = zero
    for (weight, log_p), p in zip(members, probs, strict=True):
        if log_p is log_probs[single] and single != 0:
            first = ((log_p - target).mul_(p)).sum(dim=-1)
        jsd.add_((log_p - log_mixture).mul_(p).sum(dim=-1), alpha=weight)
    kl = log_mixture.sub_(target).mul_(mixture).sum(dim=-1)
    n_members = round(1 / min(weight for weight, _ in members))
    return torch.stack([jsd.clamp_(0, math.log(n_members)), kl.clamp_min_(0), first.clamp_min(0)])


def _without_masked(logits: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    """Take slots that some model masks (logit -inf) out of the vocabulary of all."""
    if all(bool(torch.isfinite(one.sum())) for one in logits):
        return logits
    masked = torch.stack([torch.isneginf(one) for one in logits]).any(dim=0)
    return [one.masked_fill(masked, _IMPOSSIBLE) for one in logits]

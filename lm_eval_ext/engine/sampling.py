"""From logits to the next token: inverse-CDF sampling and token statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from lm_eval_ext.engine.sampling_settings import SamplingSettings
from lm_eval_ext.engine.token_choice import (
    NEGLIGIBLE,
    UNDECIDED,
    Nucleus,
    from_candidates,
    inverse_cdf,
    largest,
    most_likely,
    n_candidates,
)
from lm_eval_ext.errors import UserError

# Logits are read in slices of at most this many elements. On a CPU a slice fits into the cache,
# where several passes cost little more than one; elsewhere it bounds the memory (about 1 GiB).
_ELEMENTS_PER_SLICE = 2**18
_ELEMENTS_PER_SLICE_ELSEWHERE = 2**25


class Sampled(NamedTuple):
    """The next token of each row, int64 of shape (n_rows,), and its statistics, on the CPU.

    Statistics, float32 of shape (n_rows, 4), are log-prob, entropy, self-certainty and margin of
    the model's own distribution; see `lm_eval_ext.models.generation.TokenStatistics`.
    """

    token_ids: torch.Tensor
    statistics: torch.Tensor


class Sampler:
    """Chooses next tokens under fixed settings.

    Examples
    --------
    >>> sampler = Sampler(SamplingSettings(max_new_tokens=1, do_sample=True))
    >>> logits = torch.tensor([[0.5, 0.25, 0.25]]).log()
    >>> [sampler(logits, torch.tensor([u])).token_ids.item() for u in (0.0, 0.49, 0.51, 0.99)]
    [0, 0, 1, 2]
    """

    def __init__(self, settings: SamplingSettings) -> None:
        self.settings = settings
        # The first two change scores, the others leave some out.
        processors = settings.logits_processors()
        kinds = (RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper)
        self._scaling = [p for p in processors if isinstance(p, kinds)]
        self._cutting = [
            Nucleus(p.top_p) if isinstance(p, TopPLogitsWarper) else p
            for p in processors[len(self._scaling) :]
        ]

    @property
    def needs_context(self) -> bool:
        """Whether the processors look at the tokens so far."""
        return self.settings.repetition_penalty != 1.0

    def __call__(
        self,
        logits: torch.Tensor,
        uniforms: torch.Tensor,
        context_ids: torch.Tensor | None = None,
    ) -> Sampled:
        """Choose one token per row.

        Parameters
        ----------
        logits
            Shape (n_rows, vocabulary).
        uniforms
            Shape (n_rows,), float64 in [0, 1); not used by greedy decoding.
        context_ids
            Shape (n_rows, length), the tokens so far, for a repetition penalty. A row may be
            padded by repeating any of its own tokens.
        """
        if logits.device.type == "mps":  # no float64 there
            logits = logits.cpu()
        uniforms = uniforms.to(logits.device, torch.float64)
        context_ids = None if context_ids is None else context_ids.to(logits.device)
        given = _Given(logits, uniforms, context_ids)
        on_cpu = logits.device.type == "cpu"
        n_elements = _ELEMENTS_PER_SLICE if on_cpu else _ELEMENTS_PER_SLICE_ELSEWHERE
        size = max(1, n_elements // logits.shape[-1])
        # One table, so that one transfer brings everything to the host.
        slices = (given.rows(slice(i, i + size)) for i in range(0, logits.shape[0], size))
        table = torch.cat([self._choices(part) for part in slices]).cpu().numpy()
        undecided = np.flatnonzero(table[:, 0] == UNDECIDED)
        for i in range(0, len(undecided), size):
            rows = undecided[i : i + size]
            part = given.rows(torch.from_numpy(rows).to(logits.device))
            token_ids = self._from_all(self._scaled(part), part.uniforms)
            columns = torch.stack(_with_logits(token_ids, part.logits), dim=-1)
            table[rows, :2] = columns.cpu().numpy()
        if (table[undecided, 0] == UNDECIDED).any():
            raise UserError("the model's logits are not finite: load it in another dtype")
        statistics = statistics_from_sums(table[:, 1], table[:, 2:])
        token_ids = torch.from_numpy(table[:, 0].astype(np.int64))
        return Sampled(token_ids, torch.from_numpy(statistics))

    def _choices(self, given: _Given) -> torch.Tensor:
        """Return tokens, their logits and `distribution_sums`, as columns."""
        scores = self._scaled(given)
        if not self.settings.do_sample:
            token_ids = most_likely(scores)
        elif not n_candidates(self.settings, scores.shape[-1]):
            token_ids = self._from_all(scores, given.uniforms)
        else:
            token_ids = from_candidates(scores, given.uniforms, self.settings)
            # On other devices the host does not know yet whether there are any.
            if scores.device.type == "cpu":
                rows = (token_ids == UNDECIDED).nonzero().flatten()
                if len(rows) == len(scores):
                    token_ids = self._from_all(scores, given.uniforms)
                elif len(rows):
                    token_ids[rows] = self._from_all(scores[rows], given.uniforms[rows])
        columns = [*_with_logits(token_ids, given.logits), *distribution_sums(given.logits)]
        return torch.stack(columns, dim=-1)

    def _from_all(self, scores: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
        """Choose a token where any can be chosen; `scores` are the logits after `_scaled`."""
        for processor in self._cutting:
            scores = processor(None, scores)  # these need no context
        return inverse_cdf(scores, uniforms)

    def _scaled(self, given: _Given) -> torch.Tensor:
        """Return the logits after repetition penalty and temperature."""
        scores = given.logits
        for processor in self._scaling:
            scores = processor(given.context_ids, scores)
        return scores


class _Given(NamedTuple):
    """The arguments of a sampler's call."""

    logits: torch.Tensor
    uniforms: torch.Tensor
    context_ids: torch.Tensor | None

    def rows(self, which: slice | torch.Tensor) -> _Given:
        """Return some of the rows, their logits in float32."""
        context_ids = None if self.context_ids is None else self.context_ids[which]
        return _Given(self.logits[which].float(), self.uniforms[which], context_ids)


def _with_logits(token_ids: torch.Tensor, logits: torch.Tensor) -> list[torch.Tensor]:
    """Return tokens and their logits as columns; in float32 ids are exact up to 16,777,216."""
    chosen = logits.gather(-1, token_ids[:, None].clamp_min(0)).squeeze(-1)
    return [token_ids.to(chosen.dtype), chosen]


def padded_contexts(contexts: Sequence[Sequence[int]]) -> torch.Tensor:
    """Stack the token ids of each row, padded by repeating its own first token.

    A repetition penalty looks at which tokens are there, not where, so repeating one changes
    nothing.
    """
    longest = max(len(context) for context in contexts)
    rows = [[*context, *([context[0]] * (longest - len(context)))] for context in contexts]
    return torch.tensor(rows, dtype=torch.int64)


def distribution_sums(logits: torch.Tensor) -> list[torch.Tensor]:
    """Return six columns of shape (n_rows,), from which the statistics of each row follow.

    They are the largest logit and the second, and, of all logits less the largest: the sum of their
    exponentials, that sum weighted by them, their own sum and their number.

    Parameters
    ----------
    logits
        The model's logits before any processor, shape (n_rows, vocabulary), float32. Entries of
        -inf are not part of the vocabulary.
    """
    highest, second = largest(logits, 2)[0].unbind(dim=-1)
    # Less the maximum: a sum of exponentials neither overflows nor vanishes.
    less = logits - highest[:, None]
    total = less.sum(dim=-1)
    n_possible = torch.full_like(total, logits.shape[-1])
    # Where the values are at hand it costs less to ask whether any is so low than to clamp them.
    if logits.device.type != "cpu" or not bool(less.amin() > NEGLIGIBLE):
        possible = logits > -torch.inf
        n_possible = possible.sum(dim=-1).to(total.dtype)
        total = less.where(possible, 0.0).sum(dim=-1)
        less.clamp_min_(NEGLIGIBLE)
    weights = less.exp()
    sums = weights.sum(dim=-1)
    return [highest, second, sums, weights.mul_(less).sum(dim=-1), total, n_possible]


def statistics_from_sums(
    chosen: NDArray[np.floating], sums: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Return log-prob, entropy, self-certainty and margin of each row, shape (n_rows, 4).

    Parameters
    ----------
    chosen
        Logits of the chosen tokens, shape (n_rows,).
    sums
        What `distribution_sums` returns, as columns.

    Examples
    --------
    >>> logits = torch.tensor([[3.0, 1.0, 0.0]]).log()
    >>> sums = torch.stack(distribution_sums(logits), dim=1).numpy()
    >>> statistics_from_sums(logits[:, 1].numpy(), sums).round(3).tolist()
    [[-1.3860000371932983, 0.5619999766349792, 0.14399999380111694, 0.5]]
    """
    highest, second, summed, weighted, total, n_possible = sums.astype(np.float64).T
    with np.errstate(all="ignore"):  # of logits that are not finite
        log_sum, log_n = np.log(summed), np.log(n_possible)
        # Rounding would put the entropy of a sure token a little outside its range.
        entropy = np.clip(log_sum - weighted / summed, 0.0, log_n)
        self_certainty = log_sum - total / n_possible - log_n
        # The most likely token weighs 1.
        margin = (1.0 - np.exp(second - highest)) / summed
        log_prob = chosen - highest - log_sum
    return np.stack([log_prob, entropy, self_certainty, margin], axis=1).astype(np.float32)

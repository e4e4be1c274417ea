r"""The sink score of every head, streamed over prompts.

.. math:: S(l, h) = \frac{1}{T} \sum_{t=0}^{T-1} \alpha^{(l,h)}_{t,0}

is the mean attention of a head from every position to the first token, averaged over prompts. A
head that looks nowhere in particular has :math:`S = H_T / T` (harmonic number), and 1/T is the
least: the first token can attend to nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel

from lm_eval_ext.engine.inputs import PaddingSide
from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.sinks.choices import Queries, Window
from lm_eval_ext.methods.sinks.padded_batches import Batch, batches
from lm_eval_ext.methods.sinks.probe import probed_forward, sink_probe
from lm_eval_ext.metrics.checks import FloatArray


class SinkConvention(NamedTuple):
    """Which queries are averaged over.

    Parameters
    ----------
    queries
        ``"all"``, as in the paper, or ``"after_first"``: without the first token itself, whose
        weight is always 1.
    window
        What a query of a sliding-window layer counts that is too far away to see the first token:
        ``"zero"``, its weight; or ``"visible"``, nothing, so that the mean is over the queries that
        can see it.
    """

    queries: Queries = "all"
    window: Window = "zero"


class SinkScores(NamedTuple):
    """Sink scores of a model.

    Parameters
    ----------
    score
        Mean over `n_prompts` prompts, shape (n_layers, n_heads), in [0, 1]; NaN where no query
        qualifies.
    standard_error
        Of the mean over prompts, same shape; NaN for a single prompt.
    by_length
        Score over the first T tokens, shape (n_lengths, n_layers, n_heads), over the
        `n_prompts_by_length` prompts that have at least the longest T.
    """

    score: FloatArray
    standard_error: FloatArray
    lengths: tuple[int, ...]
    by_length: FloatArray
    n_prompts: int
    n_prompts_by_length: int

    @property
    def by_layer(self) -> FloatArray:
        """Mean over the heads of each layer, shape (n_layers,)."""
        return self.score.mean(axis=1)

    @property
    def variation_over_length(self) -> FloatArray:
        """Coefficient of variation over lengths, standard deviation by mean, shape (layers, heads).

        NaN for fewer than two lengths.
        """
        if len(self.lengths) < 2:
            return np.full(self.score.shape, np.nan)
        return np.asarray(self.by_length.std(axis=0, ddof=1) / self.by_length.mean(axis=0))


class SinkAccumulator:
    """Collects sink scores, batch by batch; a receiver of `sink_probe`.

    Attention is causal: the same pass has the scores over the first T tokens, for increasing
    `lengths` T.
    """

    def __init__(
        self,
        n_layers: int,
        n_heads: int,
        *,
        convention: SinkConvention | None = None,
        lengths: Sequence[int] = (),
    ) -> None:
        self.convention = convention or SinkConvention()
        self.lengths = tuple(lengths)
        shape = (n_layers, n_heads)
        self._sum, self._squares = np.zeros(shape), np.zeros(shape)
        self._count = np.zeros(n_layers, dtype=np.int64)
        self._by_length = np.zeros((len(self.lengths), *shape))
        self._count_by_length = np.zeros(n_layers, dtype=np.int64)
        self._mask: torch.Tensor | None = None

    def begin(self, batch: Batch) -> None:
        """Say which batch comes next."""
        self._mask = batch.attention_mask

    def __call__(self, layer: int, weights: torch.Tensor, window: int | None) -> None:
        """Take the weights of the first token in one layer, shape (rows, queries, heads)."""
        assert self._mask is not None
        real = self._mask.to(weights.device).bool()
        position = real.cumsum(dim=1) - 1
        counted = real.clone()
        if self.convention.queries == "after_first":
            counted &= position > 0
        if self.convention.window == "visible" and window is not None:
            counted &= position < window
        # Padding may hold anything, NaN included, so it is replaced and not multiplied away.
        weights = weights.double().masked_fill(~counted[..., None], 0.0)
        n_counted = counted.sum(dim=1)
        means = (weights.sum(dim=1) / n_counted[:, None]).cpu().numpy()
        known = (n_counted > 0).cpu().numpy()
        self._sum[layer] += means[known].sum(axis=0)
        self._squares[layer] += (means[known] ** 2).sum(axis=0)
        self._count[layer] += int(known.sum())
        if self.lengths:
            self._add_lengths(layer, weights, counted, position)

    def _add_lengths(
        self, layer: int, weights: torch.Tensor, counted: torch.Tensor, position: torch.Tensor
    ) -> None:
        long_enough = position[:, -1] + 1 >= self.lengths[-1]
        weights, counted, position = (t[long_enough] for t in (weights, counted, position))
        self._count_by_length[layer] += len(weights)
        for i, length in enumerate(self.lengths):
            inside = counted & (position < length)
            sums = (weights * inside[..., None]).sum(dim=1)
            means = sums / inside.sum(dim=1).clamp_min(1)[:, None]
            self._by_length[i, layer] += means.sum(dim=0).cpu().numpy()

    def scores(self) -> SinkScores:
        """Return the scores of all batches so far."""
        if not self._count.all():
            layer = int(np.flatnonzero(self._count == 0)[0])
            raise UserError(
                f"layer {layer} reported no attention to the first token: it has no attention, or "
                "no prompt has a query that qualifies (prompts of one token with "
                "queries=after_first)"
            )
        n = self._count[:, None]
        mean = self._sum / n
        variance = (self._squares / n - mean**2).clip(min=0) * n / np.maximum(n - 1, 1)
        error = np.where(n > 1, np.sqrt(variance / n), np.nan)
        n_long = self._count_by_length
        with np.errstate(invalid="ignore"):
            by_length = self._by_length / n_long[None, :, None]
        return SinkScores(
            mean, error, self.lengths, by_length, int(self._count.max()), int(n_long.max())
        )


@torch.inference_mode()
def score_sinks(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    convention: SinkConvention | None = None,
    lengths: Sequence[int] = (),
    max_tokens: int = 8192,
    padding_side: PaddingSide = "right",
) -> SinkScores:
    """Score every head of a model.

    Parameters
    ----------
    prompts
        Token ids of each prompt, BOS included where the model has one.
    convention
        Which queries are averaged over; the paper's by default.
    lengths
        Increasing lengths T to score as well.
    max_tokens
        Most tokens in a batch, padding included.

    Raises
    ------
    UserError
        If there is no prompt, no prompt is as long as the longest T, or the architecture does not
        take attention functions.

    References
    ----------
    "Garbage Attention in Large Language Models: BOS Sink Heads and Sink-aware Pruning",
    arXiv:2601.06787.
    """
    check_lengths(prompts, lengths)
    config = model.config.get_text_config()
    accumulator = SinkAccumulator(
        config.num_hidden_layers,
        config.num_attention_heads,
        convention=convention,
        lengths=lengths,
    )
    with sink_probe(model, accumulator):
        for batch in batches(prompts, max_tokens=max_tokens, padding_side=padding_side):
            accumulator.begin(batch)
            probed_forward(model, batch.input_ids, batch.attention_mask)
    return accumulator.scores()


def check_lengths(prompts: Sequence[Sequence[int]], lengths: Sequence[int]) -> None:
    """Check that there are prompts, and that some are long enough for the longest length."""
    if not prompts:
        raise UserError("calibration holds no prompt: give a source with text in it")
    if list(lengths) != sorted(set(lengths)) or any(length < 1 for length in lengths):
        raise UserError(f"lengths={','.join(map(str, lengths))} must be increasing and at least 1")
    longest = max(map(len, prompts))
    if lengths and lengths[-1] > longest:
        raise UserError(
            f"lengths={','.join(map(str, lengths))}: the longest prompt has {longest} tokens; "
            "choose shorter lengths or longer prompts"
        )

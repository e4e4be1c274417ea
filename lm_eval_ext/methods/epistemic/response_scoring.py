"""Score finished responses: drafts against the target, and the reference beside it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lm_eval_ext.engine.packed import ForcedAttempt, PackedAttempts
from lm_eval_ext.methods.epistemic.divergence import draft_divergences
from lm_eval_ext.methods.epistemic.forced_model import ForcedModel, blocks, tokens_per_pass
from lm_eval_ext.methods.epistemic.reference import AttemptKey, TokurReference

if TYPE_CHECKING:
    from lm_eval_ext.methods.epistemic.drafts import Drafts

Scores = dict[str, NDArray[np.float32]]
"""Values per response token by name, each of shape (n_tokens,), nats."""


class FinishedAttempt(NamedTuple):
    """A response to score.

    Parameters
    ----------
    forced
        Its tokens and its prompt's.
    key
        What the noise of the reference is derived from.
    kept_logits
        Returns the target's logits after its tokens, shape (n_tokens, vocabulary); None where
        they were not kept.
    """

    forced: ForcedAttempt
    key: AttemptKey
    kept_logits: Callable[[], torch.Tensor] | None = None


class ResponseScorer:
    """Scores responses token by token."""

    def __init__(
        self, target: ForcedModel, drafts: Drafts, reference: TokurReference | None = None
    ) -> None:
        self.target = target
        self._models = [ForcedModel(model) for model in drafts.models]
        self._model_of_draft = drafts.model_of_draft
        self._reference = reference
        self.width = target.model.config.get_text_config().vocab_size

    @property
    def max_tokens(self) -> int:
        """Tokens per pass, by the memory that is free now."""
        return tokens_per_pass(self.target.model.device, width=self.width, n_logits=self._n_logits)

    @property
    def _n_logits(self) -> int:
        # The reference holds a sum of probabilities, and several noisy readings at once.
        return len(self._models) + 1 + (0 if self._reference is None else 5)

    def memory(self, longest: int) -> tuple[float, float]:
        """Return the memory of the drafts' parameters and of the logits of a pass, in GB.

        Parameters
        ----------
        longest
            Tokens of the longest response there may be, which is never divided.
        """
        parameters = sum(model.n_bytes for model in self._models)
        buffers = 4 * self.width * self._n_logits * max(longest, self.max_tokens)
        return parameters / 1e9, buffers / 1e9

    @torch.inference_mode()
    def score(self, attempts: Sequence[FinishedAttempt]) -> Iterator[tuple[int, Scores]]:
        """Yield (place, scores) of attempts, in the order they are read.

        Equal responses to one prompt are read once, unless each has noise of its own.

        Parameters
        ----------
        attempts
            The attempts, in any order.

        Yields
        ------
        tuple
            Scores by name: ``jsd``, ``kl``, ``eu`` and ``single_draft``; with a reference also
            ``reference_eu``, ``reference_tu`` and ``reference_au``. Equal responses share their
            arrays.
        """
        places_of: dict[Hashable, list[int]] = {}
        for i, attempt in enumerate(attempts):
            places_of.setdefault(self._reading(attempt), []).append(i)
        copies = list(places_of.values())
        distinct = [attempts[places[0]] for places in copies]
        with ExitStack() as stack:
            for model in (self.target, *self._models):
                stack.enter_context(model.ready())
            for rows in blocks([one.forced for one in distinct], self.max_tokens):
                block = [distinct[i] for i in rows]
                values = self._score_block(block)
                ends = np.cumsum([len(one.forced.response_ids) for one in block])
                parts = {name: np.split(v, ends[:-1]) for name, v in values.items()}
                for j, i in enumerate(rows):
                    scores = {name: part[j] for name, part in parts.items()}
                    for place in copies[i]:
                        yield place, scores

    def _reading(self, attempt: FinishedAttempt) -> Hashable:
        """Return what the scores of an attempt depend on."""
        if self._reference is not None and self._reference.noise_scope == "token":
            return attempt.forced, attempt.key
        return attempt.forced

    def _score_block(self, block: Sequence[FinishedAttempt]) -> Scores:
        forced = [attempt.forced for attempt in block]
        packed = PackedAttempts(forced)
        target = self._target_logits(block, packed)
        by_model = [model.logits(forced, packed) for model in self._models]
        logits = [target if i is None else by_model[i] for i in self._model_of_draft]
        found = draft_divergences(logits, target)
        values = {"jsd": found.jsd, "kl": found.kl, "eu": found.eu, "single_draft": found.first}
        if self._reference is not None:
            del by_model, logits
            keys = [attempt.key for attempt in block]
            tu, au, eu = self._reference.uncertainty(forced, packed, target, keys)
            values.update(reference_eu=eu, reference_tu=tu, reference_au=au)
        return {name: value.float().cpu().numpy() for name, value in values.items()}

    def _target_logits(
        self, block: Sequence[FinishedAttempt], packed: PackedAttempts
    ) -> torch.Tensor:
        kept = [attempt.kept_logits for attempt in block]
        if any(take is None for take in kept):
            return self.target.logits([attempt.forced for attempt in block], packed)
        return torch.cat([take() for take in kept if take is not None])

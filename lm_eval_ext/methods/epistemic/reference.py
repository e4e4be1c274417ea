"""The reference epistemic uncertainty: mutual information over perturbed copies of the target.

TokUR (arXiv:2505.11737) samples weights around the target's and reads the response with each; the
members are the clean target and M - 1 samples, as in its public code. What a sample is shared by
is a choice:

``sequence``
    one set of weights for every token of a response, the literal definition. We use the same M - 1
    sets for all responses of a run: each response sees draws from the same posterior as with sets
    of its own, and prompts can be shared. Errors of the estimate are then correlated between
    responses. (Ours.)
``token``
    fresh noise for every token, whose context is the clean one, as in TokUR's code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch

from lm_eval_ext.checks import check_choice
from lm_eval_ext.engine.packed import ForcedAttempt, PackedAttempts, packed_logits
from lm_eval_ext.engine.random_stream import attempt_stream
from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.epistemic.ensemble import EnsembleSum, EnsembleUncertainty
from lm_eval_ext.methods.epistemic.forced_model import ForcedModel
from lm_eval_ext.methods.epistemic.weight_perturbation import Draw, WeightPerturbation

NoiseScope = Literal["sequence", "token"]

# Noisy readings per pass in the token scope. Each pass reads the clean context again, and more
# readings make the pass larger than the cache.
_STREAMS = 3


class AttemptKey(NamedTuple):
    """What the noise of an attempt is derived from: the prompt's text and the attempt's number."""

    prompt: str
    attempt: int


class TokurReference:
    """Uncertainties of the target under TokUR's posterior.

    Parameters
    ----------
    model
        The target.
    perturbation
        The posterior.
    samples
        M, the clean target included; at least 2.
    noise_scope
        ``"sequence"`` or ``"token"``; see the module.
    corrected
        Multiply EU by M/(M-1); see `lm_eval_ext.methods.epistemic.ensemble.finite_sample_factor`.
    seed
        Seed of the run.

    Raises
    ------
    UserError
        For settings outside the above, or ``"token"`` with a model packed passes do not fit.
    """

    def __init__(
        self,
        model: ForcedModel,
        perturbation: WeightPerturbation,
        *,
        samples: int = 10,
        noise_scope: NoiseScope = "sequence",
        corrected: bool = False,
        seed: int = 0,
    ) -> None:
        if samples < 2 or samples % 1:
            raise UserError(
                f"reference_samples={samples} must be a whole number of at least 2: the clean "
                "model is one of them"
            )
        check_choice("noise_scope", noise_scope, get_args(NoiseScope))
        if noise_scope == "token" and model.misfit is not None:
            raise UserError(
                f"noise_scope=token does not work here: {type(model.model).__name__} "
                f"{model.misfit}; use noise_scope=sequence"
            )
        self.samples, self.noise_scope, self.corrected = int(samples), noise_scope, corrected
        self._model, self._perturbation, self._seed = model, perturbation, seed
        self._draws: list[Draw] = []
        if noise_scope == "sequence":
            self._draws = [self._draw(member) for member in range(1, self.samples)]

    def uncertainty(
        self,
        attempts: Sequence[ForcedAttempt],
        packed: PackedAttempts,
        clean_logits: torch.Tensor,
        keys: Sequence[AttemptKey],
    ) -> EnsembleUncertainty:
        """Return the uncertainties at every response token of some attempts.

        Parameters
        ----------
        attempts
            The attempts.
        packed
            The same, laid out.
        clean_logits
            The target's logits, shape (n_tokens, vocabulary).
        keys
            What the noise of each attempt is derived from.
        """
        total = EnsembleSum(len(clean_logits), clean_logits.shape[-1], clean_logits.device)
        total.add(clean_logits)
        if self.noise_scope == "token":
            for logits in self._token_scope(attempts, keys):
                total.add(logits)
        else:
            for draw in self._draws:
                with self._perturbation.applied(draw):
                    total.add(self._model.logits(attempts, packed))
        return total.uncertainty(corrected=self.corrected)

    def _draw(self, member: int) -> Draw:
        stream = attempt_stream(self._seed, "", member, purpose="perturbed weights")
        generator = torch.Generator().manual_seed(int(stream.integers(2**63)))
        return self._perturbation.draw(generator)

    def _token_scope(
        self, attempts: Sequence[ForcedAttempt], keys: Sequence[AttemptKey]
    ) -> Iterator[torch.Tensor]:
        for first in range(1, self.samples, _STREAMS):
            members = range(first, min(first + _STREAMS, self.samples))
            packed = PackedAttempts(attempts, n_streams=1 + len(members))
            with self._perturbation.with_noise(self._noise(packed, keys, members)):
                logits = packed_logits(self._model.model, packed)
            yield from logits.unflatten(0, (packed.n_streams, -1))[1:]

    def _noise(
        self, packed: PackedAttempts, keys: Sequence[AttemptKey], members: range
    ) -> dict[str, torch.Tensor]:
        """Return standard normal noise for the noisy streams and zeros for the clean one."""
        names, rank = self._perturbation.module_names, self._perturbation.rank
        n_tokens = packed.token_ids.shape[1]
        noise = torch.zeros(len(names), 1, n_tokens, rank)
        at = n_tokens - len(members) * packed.n_response_tokens
        for member in members:
            for key, length in zip(keys, packed.lengths, strict=True):
                purpose = f"perturbed tokens {member}"
                stream = attempt_stream(self._seed, *key, purpose=purpose)
                drawn = stream.standard_normal((len(names), length, rank), dtype=np.float32)
                noise[:, 0, at : at + length] = torch.from_numpy(drawn)
                at += length
        return dict(zip(names, noise, strict=True))

r"""Distillation of a student on a teacher's next-token distributions, clean or perturbed.

With forward KL the gradient is linear in the teacher's probabilities, so one freshly perturbed
teacher per step is an unbiased step towards the average of all of them:

.. math:: E_\theta KL(p_\theta \| q) = KL(E_\theta p_\theta \| q) + const.

Online stochastic distillation is due to arXiv:2602.01956.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from lm_eval_ext.methods.epistemic.weight_perturbation import WeightPerturbation
from lm_eval_ext.training.drafts.settings import Direction, TeacherSettings
from lm_eval_ext.training.drafts.target_responses import Example


class Batch(NamedTuple):
    """Responses after their prompts, padded on the right.

    Parameters
    ----------
    ids
        Shape (n_rows, n_columns), int64. No real token attends to padding, which comes later.
    predicts
        Shape (n_rows, n_columns), bool: positions whose logits predict a response token.
    """

    ids: torch.Tensor
    predicts: torch.Tensor


def collate(examples: Sequence[Example]) -> Batch:
    """Put examples into one batch.

    Parameters
    ----------
    examples
        At least one, each with a prompt and a response.
    """
    shape = (len(examples), max(map(len, examples)))
    ids, predicts = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.bool)
    for row, example in enumerate(examples):
        ids[row, : len(example)] = torch.tensor(example.prompt_ids + example.response_ids)
        predicts[row, len(example.prompt_ids) - 1 : len(example) - 1] = True
    return Batch(ids, predicts)


def response_logits(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Return the logits that predict the response tokens, shape (n_response_tokens, vocabulary).

    Parameters
    ----------
    model
        A causal model; it does not see which columns are padding, and need not.
    """
    ids, predicts = batch.ids.to(model.device), batch.predicts.to(model.device)
    first = int(batch.predicts.any(dim=0).nonzero()[0])
    kept = ids.shape[1] - first
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        # The vocabulary is wide: prompt positions never reach it.
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=kept).logits
    else:
        logits = model(input_ids=ids, use_cache=False).logits[:, -kept:]
    return logits[predicts[:, first:]]


def distillation_loss(
    teacher_probs: torch.Tensor, student_logits: torch.Tensor, direction: Direction = "forward"
) -> torch.Tensor:
    """Return the mean KL divergence per token, nats, in float32.

    Parameters
    ----------
    direction
        ``"forward"`` is KL(teacher || student), which an average of teachers minimizes at the
        average; ``"reverse"`` is KL(student || teacher), minimized at their normalized geometric
        mean.

    Examples
    --------
    >>> p = torch.tensor([[0.5, 0.5]])
    >>> round(float(distillation_loss(p, torch.tensor([[0.75, 0.25]]).log())), 4)
    0.1438
    """
    log_q = student_logits.float().log_softmax(dim=-1)
    p = teacher_probs.float()
    if direction == "forward":
        return (torch.special.xlogy(p, p) - p * log_q).sum(dim=-1).mean()
    log_p = p.clamp_min(torch.finfo(p.dtype).tiny).log()
    return (log_q.exp() * (log_q - log_p)).sum(dim=-1).mean()


def step_seed(seed: int, draft: int, step: int) -> int:
    """Return the seed of one draft's step, the same however the run got there.

    Examples
    --------
    >>> step_seed(0, 1, 2) == step_seed(0, 1, 2) != step_seed(0, 2, 1)
    True
    """
    digest = hashlib.blake2b(f"{seed}:{draft}:{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1  # torch takes 63 bits


class Teacher:
    """The target, perturbed again for every step.

    Raises
    ------
    UserError
        If the perturbation does not fit the model.
    """

    def __init__(self, model: PreTrainedModel, settings: TeacherSettings) -> None:
        self.model, self.settings = model, settings
        self._perturbation = None
        if settings.teacher != "clean":
            self._perturbation = WeightPerturbation(
                model, rank=settings.rank, sigma=settings.sigma, modules=settings.modules
            )

    @torch.no_grad()
    def probabilities(self, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        """Return what the student should predict, shape (n_response_tokens, vocabulary)."""
        if self._perturbation is None:
            return response_logits(self.model, batch).float().softmax(dim=-1)
        n = self.settings.teacher_samples if self.settings.teacher == "exact" else 1
        total: torch.Tensor | None = None
        for _ in range(n):
            with self._perturbation.applied(self._perturbation.draw(generator)):
                probs = response_logits(self.model, batch).float().softmax(dim=-1)
            total = probs if total is None else total + probs
        assert total is not None
        return total / n

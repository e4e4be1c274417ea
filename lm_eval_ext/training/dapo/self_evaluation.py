"""``train dapo --calibrate``: after each update, one on judging its rollouts.

The row of a rollout is EpiCaR's (see `lm_eval_ext.training.self_training.rows`): the prompt as the
model read it, its response, the question, and the label of its verdict. The loss is
the cross-entropy of the label, a mean over all rollouts, those of dropped groups too: among the
groups that enter an update half of the rollouts may be right whatever the model can do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from transformers import TrainerCallback

from lm_eval_ext.engine.teacher_forcing import following_logits
from lm_eval_ext.methods.self_evaluation.layout import SelfEvalLayout

if TYPE_CHECKING:
    from lm_eval_ext.training.dapo.rewards import Group


class Row(NamedTuple):
    """What the model reads of a rollout, and the token that is to follow."""

    context: tuple[int, ...]
    label: int


class SelfEvaluationStep(TrainerCallback):
    """Takes a step on self-evaluation after each update, with its optimizer and at its rate.

    Raises
    ------
    UserError
        If the question's labels are not one token each.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.layout = SelfEvalLayout(
            trainer.processing_class, max_length=int(trainer.policy.max_length)
        )
        self._parts: list[list[Row]] = []

    def take(self, groups: Sequence[Group]) -> None:
        """Lay out the rollouts of a generation batch, and divide them among its updates."""
        args, vocabulary = self.trainer.args, self.trainer.vocabulary
        # The question is read after what the update reads.
        hides_vectors = vocabulary is not None and self.trainer.dapo.rsp_update == "clean"
        yes, no = self.layout.label_ids
        rows = []
        for group in groups:
            for rollout, right in zip(group.rollouts, group.verdicts, strict=True):
                prompt_ids = rollout.prompt_ids
                if hides_vectors:
                    assert vocabulary is not None
                    prompt_ids = tuple(i for i in prompt_ids if i < vocabulary.first)
                context = self.layout.context_ids(prompt_ids, rollout.text)
                rows.append(Row(context, yes if right else no))
        n_updates = args.steps_per_generation // args.gradient_accumulation_steps
        self._parts = [rows[i::n_updates] for i in range(n_updates)]

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Take the step: the update has been taken, and its rate still holds."""
        # Rows of similar lengths together, to pad little.
        rows = sorted(self._parts.pop(0), key=lambda row: len(row.context))
        accelerator, optimizer = self.trainer.accelerator, others["optimizer"]
        # Without the wrapper for several processes, whose passes must be equally many in all.
        model = accelerator.unwrap_model(self.trainer.model)
        optimizer.zero_grad()
        sums = torch.zeros(3, device=accelerator.device)
        for start in range(0, len(rows), args.per_device_train_batch_size):
            part = rows[start : start + args.per_device_train_batch_size]
            with accelerator.autocast():
                logits = following_logits(model, [row.context for row in part]).float()
            labels = torch.tensor([row.label for row in part], device=logits.device)
            losses = F.cross_entropy(logits, labels, reduction="sum")
            losses.backward()
            confidence = logits.detach()[:, list(self.layout.label_ids)].softmax(dim=-1)[:, 0]
            squares = (confidence - (labels == self.layout.label_ids[0]).float()).square()
            sums += torch.stack([losses.detach(), squares.sum(), squares.new_tensor(len(part))])
        loss, brier, count = accelerator.reduce(sums, reduction="sum").tolist()
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad = accelerator.reduce(parameter.grad, reduction="sum") / count
        accelerator.clip_grad_norm_(model.parameters(), args.max_grad_norm)
        optimizer.step()
        metrics = self.trainer._metrics["train"]
        metrics["self_eval/loss"].append(loss / count)
        metrics["self_eval/brier"].append(brier / count)

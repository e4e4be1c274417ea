r"""TRL's trainer on rows of two kinds.

The plain loss is TRL's: one mean over all tokens that have a loss, in which the single label of a
D_eval row hardly counts beside the tokens of a solution. With alpha it is

.. math:: L = \alpha \, \text{mean over reasoning tokens} + (1 - \alpha) \, \text{mean over labels},

each mean over all rows of an optimizer step, whatever the accumulation and the processes.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from datasets import Dataset
from trl import SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from lm_eval_ext.training.self_training.rows import IGNORED, Row

IS_LABEL = "is_label"
"""Column: whether a row is one of D_eval."""


class RowCollator:
    """Pads rows on the right and says which are of D_eval."""

    def __init__(self, pad_token_id: int) -> None:
        self._pad = DataCollatorForLanguageModeling(pad_token_id=pad_token_id)

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return a batch."""
        batch: dict[str, torch.Tensor] = self._pad(examples)
        batch[IS_LABEL] = torch.tensor([bool(example[IS_LABEL]) for example in examples])
        return batch


def row_dataset(rows: Sequence[Row], order: Sequence[int]) -> Dataset:
    """Return rows as a data set in the order of training."""
    return Dataset.from_dict(
        {
            "input_ids": [list(row.input_ids) for row in rows],
            "labels": [row.labels for row in rows],
            IS_LABEL: [row.kind == "eval" for row in rows],
        }
    ).select(order)


class RowTrainer(SFTTrainer):
    """The trainer with TRL's own loss, or with alpha.

    Parameters
    ----------
    alpha
        Weight of the reasoning rows, or None.
    """

    def __init__(self, *, alpha: float | None = None, **trainer_arguments: Any) -> None:
        self.alpha = alpha
        self._n_by_kind: torch.Tensor | None = None
        super().__init__(**trainer_arguments)
        plain = self.accelerator.unwrap_model(self.model)
        plain = plain.get_base_model() if hasattr(plain, "get_base_model") else plain
        # Not every model that brings its own code takes it.
        self._selects_logits = "logits_to_keep" in inspect.signature(plain.forward).parameters

    def create_model_card(self, *arguments: Any, **named: Any) -> None:
        """Write none: checkpoints are for continuing only."""

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor | int | None]:
        """Count the tokens of an optimizer step, of each kind if alpha tells them apart."""
        samples, n_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.alpha is not None and samples:
            counts = torch.stack([_n_by_kind(sample) for sample in samples]).sum(dim=0)
            counts = self.accelerator.gather(counts.to(device)[None]).sum(dim=0)
            self._n_by_kind = counts
        return samples, n_items

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the loss of a batch: its share of that of the optimizer step."""
        is_label = inputs.pop(IS_LABEL)
        if self.alpha is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        assert self._n_by_kind is not None, "alpha is a loss for training"
        targets = inputs.pop("labels")[:, 1:]
        predicts = targets.ne(IGNORED)
        # The vocabulary is wide: positions that no row has a loss at never reach it.
        columns = predicts.any(dim=0).nonzero()[:, 0]
        if self._selects_logits:
            outputs = model(**inputs, use_cache=False, logits_to_keep=columns)
            logits = outputs.logits
        else:
            outputs = model(**inputs, use_cache=False)
            logits = outputs.logits[:, columns]
        per_row = _loss_per_row(logits, targets[:, columns])
        n_reason, n_label = self._n_by_kind.clamp(min=1)
        reason = per_row[~is_label].sum() / n_reason
        label = per_row[is_label].sum() / n_label
        loss = self.alpha * reason + (1 - self.alpha) * label
        # Gradients are averaged over processes, and the counts are of all.
        loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss


def _loss_per_row(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the summed negative log-likelihood of each row, in float32; 0 where there is none."""
    losses = []
    for row_logits, row_targets in zip(logits, targets, strict=True):
        # Row by row, and only where there is a target: single precision takes the most memory.
        has_target = row_targets.ne(IGNORED)
        losses.append(
            F.cross_entropy(
                row_logits[has_target].float(), row_targets[has_target], reduction="sum"
            )
        )
    return torch.stack(losses)


def _n_by_kind(sample: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the numbers of reasoning tokens and of labels that are predicted."""
    n = sample["labels"][:, 1:].ne(IGNORED).sum(dim=-1)
    is_label = sample[IS_LABEL]
    return torch.stack([n[~is_label].sum(), n[is_label].sum()])

"""Train one draft: seeded batches, checkpoints, and an export that other programs load."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from lm_eval_ext.errors import UserError
from lm_eval_ext.training.drafts.distillation import (
    Teacher,
    collate,
    distillation_loss,
    response_logits,
    step_seed,
)
from lm_eval_ext.training.drafts.settings import OptimizationSettings
from lm_eval_ext.training.drafts.target_responses import Example

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)

# Batches of similar lengths are cut from so many batches' worth of examples, to pad little.
_BATCHES_PER_BUCKET = 8


class BatchOrder:
    """The examples of every step, computed from the step alone, so that a run can begin anywhere.

    Parameters
    ----------
    batch_size
        Examples per step; the last batches of an epoch may be smaller.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: str) -> None:
        self._lengths, self._size, self._seed = list(lengths), batch_size, seed
        self._epoch, self._batches = -1, [[0]]
        self._per_epoch = len(self._shuffled(0))

    def __call__(self, step: int) -> list[int]:
        """Return the numbers of the examples of a step."""
        epoch, place = divmod(step, self._per_epoch)
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self._shuffled(epoch)
        return self._batches[place]

    def _shuffled(self, epoch: int) -> list[list[int]]:
        rng = random.Random(f"{self._seed}:epoch:{epoch}")
        numbers = list(range(len(self._lengths)))
        rng.shuffle(numbers)
        bucket, batches = self._size * _BATCHES_PER_BUCKET, []
        for start in range(0, len(numbers), bucket):
            alike = sorted(numbers[start : start + bucket], key=lambda i: self._lengths[i])
            batches += [alike[i : i + self._size] for i in range(0, len(alike), self._size)]
        rng.shuffle(batches)
        return batches


class DraftRun:
    """The training of one draft, continued from its checkpoint where there is one."""

    def __init__(
        self,
        model: PreTrainedModel,
        teacher: Teacher,
        examples: Sequence[Example],
        settings: OptimizationSettings,
        *,
        seed: int,
        number: int,
        checkpoint: Path,
        accelerator: Accelerator,
    ) -> None:
        if not examples:
            raise UserError(f"draft {number} has no response to learn from: give more prompts")
        self.model = model.to(accelerator.device).train()
        self.teacher, self.examples, self.settings = teacher, examples, settings
        self.seed, self.number, self.checkpoint = seed, number, checkpoint
        self.accelerator = accelerator
        self.order = BatchOrder(
            [len(example) for example in examples], settings.batch_size, f"{seed}:{number}"
        )
        self.optimizer = _optimizer(self.model, settings)
        self.losses: list[float] = []
        if checkpoint.exists():
            self._restore()

    def _restore(self) -> None:
        saved = read_checkpoint(self.checkpoint)
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.losses = list(saved["losses"])
        logger.info("draft %d continues after step %d", self.number, len(self.losses))

    def save(self) -> None:
        """Write the checkpoint; a kill while writing leaves the previous one intact."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "losses": self.losses,
        }
        scratch = self.checkpoint.with_suffix(".writing")
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, scratch)
        os.replace(scratch, self.checkpoint)

    def train_step(self) -> float:
        """Take one optimizer step and return its loss in nats per response token."""
        step = len(self.losses)
        seed = step_seed(self.seed, self.number, step)
        # Nothing random survives a step, so there is no random state to save: the step's seed
        # gives the perturbation, and dropout where a draft has it.
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        batch = collate([self.examples[i] for i in self.order(step)])
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate(step)
        with self.accelerator.autocast():
            probs = self.teacher.probabilities(batch, generator)
            logits = response_logits(self.model, batch)
        width = min(probs.shape[-1], logits.shape[-1])  # one may be padded beyond the vocabulary
        probs = probs[:, :width] / probs[:, :width].sum(dim=-1, keepdim=True)
        loss = distillation_loss(probs, logits[:, :width], self.settings.kl)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.losses.append(float(loss.detach()))
        return self.losses[-1]

    def train(self, checkpoint_every: int) -> None:
        """Train to the last step, saving on the way."""
        with tqdm(
            total=self.settings.steps,
            initial=len(self.losses),
            desc=f"Draft {self.number}",
            unit="step",
            position=self.accelerator.process_index,
        ) as progress:
            while len(self.losses) < self.settings.steps:
                loss = self.train_step()
                progress.set_postfix(loss=f"{loss:.4f}", refresh=False)
                progress.update()
                if len(self.losses) % checkpoint_every == 0:
                    self.save()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return what `DraftRun.save` wrote: ``model``, ``optimizer`` and ``losses``, on the CPU."""
    saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return saved


def _optimizer(model: PreTrainedModel, settings: OptimizationSettings) -> torch.optim.Optimizer:
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        [
            {
                "params": [p for p in trained if p.dim() >= 2],
                "weight_decay": settings.weight_decay,
            },
            {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        betas=(0.9, 0.95),
    )

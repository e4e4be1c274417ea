"""How ``tiny-sink`` is made: ``tiny`` deepened and trained on, until heads rest on BOS.

The run starts from the shipped ``tiny`` with new blocks between its own (`deepen`), which learn
faster than the old ones. The text is packed, a share of it is natural, and all of it carries loss.
For a first part of the run attention pays for what it reads (`reading_cost`); the
rest is plain cross-entropy. The sink score of every head is logged on the way.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from deepening import deepen
from lm_eval_ext.models.shipped import model_path
from packing import PackedStream, natural_texts
from sink_trajectory import TRAJECTORY, measure_sinks
from training import Run, Settings, mean_loss

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    from batches import Batch


@dataclass(frozen=True)
class SinkSettings(Settings):
    """Settings of the recipe; ``vocab_size`` and ``size`` are those of ``tiny``, whatever is given.

    Parameters
    ----------
    new_blocks_after : tuple of int
        Blocks of ``tiny`` to put a new one behind.
    old_rate_factor : float
        Learning rate of everything but the new blocks, as a factor.
    natural_share : float
        Share of natural documents.
    row_tokens : int
        Length of a packed row; ``batch_tokens`` is a multiple of it.
    reading_cost : float
        Weight of the reading cost beside the cross-entropy, in nats per token.
    cost_until, cost_end : float
        Shares of the run: the weight is whole up to the first and then falls evenly to zero.
    measure_every : int
        Steps between two lines of the trajectory.
    """

    batch_tokens: int = 1024
    warmup_steps: int = 50
    decay: float = 0.55
    new_blocks_after: tuple[int, ...] = (1, 2, 3, 4, 5)
    old_rate_factor: float = 0.3
    natural_share: float = 0.3
    row_tokens: int = 256
    reading_cost: float = 0.5
    cost_until: float = 0.1
    cost_end: float = 0.8
    measure_every: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_tokens % self.row_tokens:
            raise ValueError(
                f"batch_tokens={self.batch_tokens}: must be a multiple of {self.row_tokens}, the "
                "length of a row"
            )
        if self.reading_cost < 0:
            raise ValueError(f"reading_cost={self.reading_cost}: must not be negative")


def reading_cost_weight(settings: SinkSettings, progress: float) -> float:
    """Return the weight of the reading cost at a point of the run.

    Examples
    --------
    >>> s = SinkSettings(tokens=1, reading_cost=0.5, cost_until=0.1, cost_end=0.5)
    >>> [round(reading_cost_weight(s, at), 3) for at in (0, 0.1, 0.3, 0.5, 1)]
    [0.5, 0.5, 0.25, 0.0, 0.0]
    """
    if progress <= settings.cost_until:
        return settings.reading_cost
    left = (settings.cost_end - progress) / (settings.cost_end - settings.cost_until)
    return settings.reading_cost * max(0.0, left)


class SinkRun(Run):
    """A run of the recipe in a folder; see `Run`."""

    settings_type: ClassVar[type[Settings]] = SinkSettings
    settings: SinkSettings

    def first_tokenizer(self, new: bool) -> PreTrainedTokenizerFast:
        """Return the tokenizer of ``tiny``."""
        from transformers import AutoTokenizer

        self.folder.mkdir(parents=True, exist_ok=True)
        tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(model_path("tiny"))
        return tokenizer

    def first_model(self) -> LlamaForCausalLM:
        """Return ``tiny`` with new blocks, which leave its logits as they are."""
        import torch
        from transformers import LlamaForCausalLM

        tiny = LlamaForCausalLM.from_pretrained(model_path("tiny"), dtype=torch.float32)
        model, self.new_blocks = deepen(tiny, self.settings.new_blocks_after)
        return model

    def first_optimizer(self) -> torch.optim.Optimizer:
        """Return AdamW with a slower rate for what comes from ``tiny``."""
        import torch

        new = {id(p) for i in self.new_blocks for p in self.model.model.layers[i].parameters()}
        groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
        for parameter in self.model.parameters():
            kind = id(parameter) in new, parameter.dim() >= 2
            groups.setdefault(kind, []).append(parameter)
        return torch.optim.AdamW(
            [
                {
                    "params": parameters,
                    "weight_decay": self.settings.weight_decay if is_matrix else 0.0,
                    "rate_factor": 1.0 if is_new else self.settings.old_rate_factor,
                }
                for (is_new, is_matrix), parameters in groups.items()
            ],
            lr=self.settings.learning_rate,
            betas=(0.9, 0.95),
            fused=True,
        )

    def first_stream(self) -> PackedStream:
        """Return packed rows of generated and natural documents."""
        return PackedStream(
            self.tokenizer,
            self.settings.seed,
            natural_texts(),
            natural_share=self.settings.natural_share,
            rows=self.settings.batch_tokens // self.settings.row_tokens,
            row_tokens=self.settings.row_tokens,
        )

    def objective(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cross-entropy with the reading cost, and the cross-entropy alone."""
        weight = reading_cost_weight(self.settings, self.progress)
        if not weight:
            return super().objective(batch)
        from reading_cost import costed_logits

        ids = batch.ids.to(self.model.device)
        logits, cost = costed_logits(self.model, ids)
        loss = mean_loss(logits, ids, batch.weights)
        return loss + weight * cost, loss

    def train_step(self) -> float:
        """Measure the sinks now and then, and take one optimizer step."""
        if self.step % self.settings.measure_every == 0:
            self.measure()
        return super().train_step()

    def measure(self) -> None:
        """Add a line to the trajectory: step, tokens, weight of the cost, losses, sink scores."""
        record = {
            "step": self.step,
            "tokens": self.tokens,
            "cost_weight": reading_cost_weight(self.settings, self.progress),
            "new_blocks": self.new_blocks,
            "validation_loss": self.validation_loss(),
            "sink_scores": measure_sinks(self.model, self.tokenizer),
        }
        with (self.folder / TRAJECTORY).open("a") as lines:
            lines.write(json.dumps(record) + "\n")

    def _restore(self, saved: dict[str, Any]) -> None:
        super()._restore(saved)
        file = self.folder / TRAJECTORY
        if file.exists():  # what was measured after the checkpoint will be measured again
            lines = file.read_text().splitlines()
            kept = [line for line in lines if json.loads(line)["step"] < self.step]
            file.write_text("".join(f"{line}\n" for line in kept))

    def train(self, checkpoint_minutes: float = 3.0, log_seconds: float = 20.0) -> None:
        """Train to the end of the run, and draw the trajectory."""
        from sink_trajectory import plot_trajectory

        super().train(checkpoint_minutes, log_seconds)
        self.measure()
        plot_trajectory(self.folder / TRAJECTORY, self.folder / "sinks_emerging.png")

"""The training loop of the tiny model: one process, resumable, sized by tokens or by minutes."""

from __future__ import annotations

import logging
import math
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from batches import Batch, BatchStream, collate
from documents import Document, tokenizer_corpus
from lm_eval_ext.data.tiny import formats
from lm_eval_ext.data.tiny.problems import load_split
from model import SIZE, build_model
from tokenizer import VOCAB_SIZE, train_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"
_VALIDATION_PROBLEMS = 64
# A step that took longer was not all training: the process was stopped, or the machine slept.
_LONGEST_STEP_SECONDS = 30.0


@dataclass(frozen=True)
class Settings:
    """Everything that decides the weights of a run; saved with its checkpoint.

    Parameters
    ----------
    tokens : int, optional
        Length of the run in tokens. Two runs of equal length and seed give equal weights.
    minutes : float, optional
        Length of the run in minutes of training time, pauses not counted; the learning rate
        follows the clock. Exactly one of ``tokens`` and ``minutes`` is given.
    seed : int
        Seed of the weights and of the documents.
    batch_tokens : int
        Positions per step.
    learning_rate : float
        Peak rate, reached after ``warmup_steps`` and held until the last ``decay`` share.
    warmup_steps : int
        Steps of linear warm-up.
    decay : float
        Share of the run, at its end, over which the rate falls to a fiftieth.
    weight_decay : float
        Of AdamW, on matrices only.
    vocab_size : int
        Entries of the tokenizer.
    size : dict
        Widths and depths of the model, as in `model.SIZE`.
    """

    tokens: int | None = None
    minutes: float | None = None
    seed: int = 0
    batch_tokens: int = 4096
    learning_rate: float = 3e-3
    warmup_steps: int = 100
    decay: float = 0.35
    weight_decay: float = 0.1
    vocab_size: int = VOCAB_SIZE
    size: dict[str, int] = field(default_factory=lambda: dict(SIZE))

    def __post_init__(self) -> None:
        if (self.tokens is None) == (self.minutes is None):
            raise ValueError(
                f"tokens={self.tokens}, minutes={self.minutes}: give exactly one of the two"
            )
        if (self.tokens or self.minutes or 0) <= 0:
            raise ValueError(f"tokens={self.tokens}, minutes={self.minutes}: must be positive")


def learning_rate(settings: Settings, step: int, progress: float) -> float:
    """Return the rate of a step: linear warm-up, plateau, cosine decay at the end.

    Examples
    --------
    >>> s = Settings(tokens=1000, learning_rate=0.01, warmup_steps=10, decay=0.5)
    >>> [round(learning_rate(s, *at), 5) for at in [(0, 0.0), (9, 0.1), (50, 0.5), (99, 1.0)]]
    [0.001, 0.01, 0.01, 0.0002]
    """
    warmup = min(1.0, (step + 1) / settings.warmup_steps)
    into_decay = min(1.0, max(0.0, (progress - (1 - settings.decay)) / settings.decay))
    fall = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * into_decay))
    return settings.learning_rate * warmup * fall


def weighted_loss(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Return the mean cross-entropy in nats per token, weighted by ``batch.weights``."""
    ids = batch.ids.to(model.device)
    return mean_loss(model(input_ids=ids, use_cache=False).logits, ids, batch.weights)


def mean_loss(logits: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy in nats per token, each token by its weight.

    Logits have the shape (documents, length, vocabulary), ids and weights (documents, length).
    """
    import torch

    losses = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none"
    )
    flat = weights[:, 1:].flatten().to(losses.device)
    return (losses * flat).sum() / flat.sum()


class Stream(Protocol):
    """Batches without end; ``state`` names the next one and can be saved and set."""

    state: tuple[int, ...]

    def __next__(self) -> Batch: ...


class Run:
    """A training run in a folder: its model, optimizer, stream and counters.

    Parameters
    ----------
    folder : str or Path
        Where tokenizer and checkpoint live.
    settings : Settings, optional
        Start a new run with these; without them the run in ``folder`` is continued.

    Raises
    ------
    ValueError
        If there is nothing to continue, or something that a new run would overwrite.
    """

    settings_type: ClassVar[type[Settings]] = Settings

    def __init__(self, folder: str | Path, settings: Settings | None = None) -> None:
        import torch

        self.folder = Path(folder)
        file = self.folder / CHECKPOINT
        saved: dict[str, Any] | None = None
        if settings is None:
            if not file.exists():
                raise ValueError(f"output={str(folder)!r} has no {CHECKPOINT}: omit --resume")
            saved = torch.load(file, map_location="cpu", weights_only=True)
            settings = self.settings_type(**saved["settings"])
        elif file.exists():
            raise ValueError(f"output={str(folder)!r} already has a run: add --resume")
        self.settings = settings
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer = self.first_tokenizer(new=saved is None)
        torch.manual_seed(settings.seed)
        self.model = self.first_model().to(self.device).train()
        self.optimizer = self.first_optimizer()
        self.stream = self.first_stream()
        self.step = self.tokens = 0
        self.seconds = 0.0
        if saved is not None:
            self._restore(saved)

    def first_tokenizer(self, new: bool) -> PreTrainedTokenizerFast:
        """Return the run's tokenizer, trained now if the run is new."""
        from transformers import AutoTokenizer

        folder = self.folder / "tokenizer"
        if new:
            corpus = tokenizer_corpus(8000, self.settings.seed)
            train_tokenizer(corpus, self.settings.vocab_size).save_pretrained(folder)
        tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(folder)
        return tokenizer

    def first_model(self) -> LlamaForCausalLM:
        """Return the model that the run starts with."""
        return build_model(self.tokenizer, self.settings.size)

    def first_optimizer(self) -> torch.optim.Optimizer:
        """Return the optimizer; a group's ``rate_factor`` multiplies its learning rate."""
        return _optimizer(self.model, self.settings)

    def first_stream(self) -> Stream:
        """Return the batches, from the first one."""
        return BatchStream(self.tokenizer, self.settings.seed, self.settings.batch_tokens)

    def objective(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what is minimized, and of it the cross-entropy in nats per token."""
        loss = weighted_loss(self.model, batch)
        return loss, loss

    def _restore(self, saved: dict[str, Any]) -> None:
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.stream.state = tuple(saved["stream"])
        self.step, self.tokens, self.seconds = saved["step"], saved["tokens"], saved["seconds"]

    @property
    def progress(self) -> float:
        """Share of the run that is done, 1 or more when it is over."""
        if self.settings.tokens is not None:
            return self.tokens / self.settings.tokens
        assert self.settings.minutes is not None
        return self.seconds / 60 / self.settings.minutes

    def save(self) -> None:
        """Write the checkpoint; a kill while writing leaves the previous one intact."""
        import torch

        state = {
            "settings": asdict(self.settings),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "stream": self.stream.state,
            "step": self.step,
            "tokens": self.tokens,
            "seconds": self.seconds,
        }
        scratch = self.folder / f"{CHECKPOINT}.writing"
        torch.save(state, scratch)
        os.replace(scratch, self.folder / CHECKPOINT)

    def train_step(self) -> float:
        """Take one optimizer step and return its cross-entropy in nats per token."""
        import torch

        rate = learning_rate(self.settings, self.step, self.progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("rate_factor", 1.0)
        batch = next(self.stream)
        objective, loss = self.objective(batch)
        objective.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.tokens += batch.tokens
        return float(loss.detach())

    def train(self, checkpoint_minutes: float = 3.0, log_seconds: float = 20.0) -> None:
        """Train to the end of the run, logging and saving on the way."""
        before = logged = saved = time.monotonic()
        tokens, losses = self.tokens, []
        while self.progress < 1:
            losses.append(self.train_step())
            now = time.monotonic()
            self.seconds += min(now - before, _LONGEST_STEP_SECONDS)
            before = now
            if now - logged >= log_seconds:
                speed = (self.tokens - tokens) / (now - logged)
                logger.info(
                    "%5.1f%% step %d tokens %.2fM loss %.4f, %.0f tokens/s",
                    *(100 * self.progress, self.step, self.tokens / 1e6),
                    *(sum(losses) / len(losses), speed),
                )
                logged, tokens, losses = now, self.tokens, []
            if now - saved >= 60 * checkpoint_minutes:
                self.save()
                saved = now
        self.save()

    def validation_loss(self) -> dict[str, float]:
        """Return the loss on clean validation problems, answers only, in nats per token."""
        import torch

        result = {}
        self.model.eval()
        for family in formats.FAMILIES:
            docs = [
                _clean_document(self.tokenizer, family, problem)
                for problem in load_split(family, "validation", _VALIDATION_PROBLEMS)
            ]
            with torch.no_grad():
                batch = collate(docs, self.tokenizer.pad_token_id)
                result[family] = float(weighted_loss(self.model, batch))
        self.model.train()
        return result


def _clean_document(
    tokenizer: PreTrainedTokenizerFast, family: str, problem: dict[str, Any]
) -> Document:
    prompt = tokenizer.encode(formats.prompt(family, problem))
    answer = formats.TARGET_DELIMITER[family] + formats.target(family, problem)
    ids = tokenizer.encode(answer + tokenizer.eos_token, add_special_tokens=False)
    return Document(prompt + ids, [0.0] * len(prompt) + [1.0] * len(ids))


def _optimizer(model: LlamaForCausalLM, settings: Settings) -> torch.optim.Optimizer:
    import torch

    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        betas=(0.9, 0.95),
        fused=True,
    )

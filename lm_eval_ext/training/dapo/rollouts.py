"""Rollouts of the model in training, by the engine that decodes attempts everywhere else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lm_eval_ext.engine.attempt_texts import open_thought, visible_text, with_thought
from lm_eval_ext.engine.memory import fitting_rows
from lm_eval_ext.engine.packed_weights import release_packed_weights
from lm_eval_ext.engine.random_stream import attempt_stream
from lm_eval_ext.engine.request import AttemptRequest
from lm_eval_ext.engine.sampling_settings import SamplingSettings
from lm_eval_ext.engine.stop_strings import StopStrings
from lm_eval_ext.harness.requests import GenerationRequest
from lm_eval_ext.model_wrappers.rsp import RSP, Position
from lm_eval_ext.models.embedding_statistics import EmbeddingStatistics
from lm_eval_ext.models.generation import FinishReason, Generation, GenerationRecord, Thought
from lm_eval_ext.training.dapo.virtual_vocabulary import VirtualVocabulary


@dataclass(frozen=True, eq=False)
class Rollout:
    """One sampled attempt, as it enters the update.

    Parameters
    ----------
    prompt_ids
        What the model read: the prompt's tokens, virtual ids among them.
    completion_ids
        What it wrote, end-of-sequence token or the tokens of a stop string included.
    finish_reason
        ``"stop"``, ``"eos"`` or ``"length"``; the last one is a truncated rollout.
    log_probs
        Of the completion's tokens when they were sampled, nats, or None where not recorded.
    thought
        Its thought, or None; a rollout that ends inside its thought has no answer.
    """

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    finish_reason: FinishReason
    text: str
    log_probs: tuple[float, ...] | None = None
    thought: Thought | None = None

    @property
    def graded_text(self) -> str | None:
        """What a grader is given; None where the rollout ended inside its thought."""
        return self.text if self.thought is None else self.thought.answer_in(self.text)


@dataclass(frozen=True)
class RolloutSettings:
    """How rollouts are sampled: from the whole distribution, with no filter but the temperature.

    Parameters
    ----------
    position
        Where the random vectors go; see `lm_eval_ext.model_wrappers.rsp.RSP`.
    """

    temperature: float = 1.0
    max_new_tokens: int = 256
    stop: tuple[str, ...] = ()
    position: Position = "auto"
    max_rows: int | str = "auto"


class RolloutLM(RSP):
    """The model in training as a model of the harness, which rolls out with virtual ids.

    Parameters
    ----------
    vocabulary
        The random vectors, or None to inject nothing.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: RolloutSettings,
        *,
        vocabulary: VirtualVocabulary | None,
        seed: int,
        **hf_arguments: Any,
    ) -> None:
        super().__init__(
            model,
            tokenizer=tokenizer,
            length=0 if vocabulary is None else vocabulary.length,
            position=settings.position,
            batch_size=settings.max_rows,
            seed=seed,
            **hf_arguments,
        )
        self.settings = settings
        self.vocabulary = vocabulary
        self._stop_strings = StopStrings(self.tokenizer, settings.stop)
        self._read: dict[int, tuple[int, ...]] = {}

    def roll_out(self, prompts: Sequence[str], numbers: Sequence[int]) -> list[Rollout]:
        """Sample one rollout per entry.

        Parameters
        ----------
        numbers
            Number of each rollout in the run. Tokens and vectors are functions of the seed and of
            this number.
        """
        requests = self._requests(prompts, numbers)
        rollouts: dict[int, Rollout] = {}
        # The engine's log-probs are those of the untempered distribution.
        keeps_log_probs = self.settings.temperature == 1
        with _evaluating(self.model):
            for done in self._sample(self._group(requests)):
                record = done.generation.record
                log_probs = None
                if keeps_log_probs and record.statistics is not None:
                    log_probs = tuple(record.statistics.log_prob.tolist())
                rollouts[done.index] = Rollout(
                    self._read[numbers[done.index]],
                    record.token_ids,
                    record.finish_reason,
                    str(done.generation),
                    log_probs,
                    record.thought,
                )
        release_packed_weights(self.model)  # the update changes the weights and needs the memory
        self._read.clear()
        return [rollouts[i] for i in range(len(requests))]

    def prompts_read(self, prompts: Sequence[str], numbers: Sequence[int]) -> list[tuple[int, ...]]:
        """Return the ids that rollouts read, virtual ones among them, without sampling."""
        self._group(self._requests(prompts, numbers))
        read = [self._read[number] for number in numbers]
        self._read.clear()
        return read

    def rollout_of(self, prompt_ids: Sequence[int], completion_ids: Sequence[int]) -> Rollout:
        """Return tokens that something else sampled as a rollout, cut after a stop string."""
        ids = tuple(completion_ids)
        opened = open_thought(self, self.tok_decode(list(prompt_ids), skip_special_tokens=False))
        may_stop = set(self._stop_strings.candidates(np.asarray(ids, dtype=np.int64)).tolist())
        ends = (n + 1 for n in range(len(ids)) if n in may_stop)
        end = next((n for n in ends if self._stop_strings.completed(ids[:n], opened)), None)
        reason: FinishReason
        if end is not None:
            ids, reason = ids[:end], "stop"
        else:
            # A sampled padding token ends a completion too, as TRL reads it.
            ends_with = {*self.eos_token_ids, self.tokenizer.pad_token_id}
            reason = "eos" if ids[-1] in ends_with else "length"
        text = visible_text(self, ids, self.settings.stop, opened)
        record = GenerationRecord(token_ids=ids)
        thought = with_thought(self, Generation(text, record), opened).record.thought
        return Rollout(tuple(prompt_ids), ids, reason, text, thought=thought)

    def _embedding_statistics(self) -> EmbeddingStatistics:
        """Return no moments: the vocabulary has its own, frozen, and the table is in training."""
        nothing = torch.zeros(0, dtype=torch.float64)
        return EmbeddingStatistics(0.0, 0.0, nothing, nothing, 0)

    def _requests(self, prompts: Sequence[str], numbers: Sequence[int]) -> list[GenerationRequest]:
        settings = self.settings
        sampling = {
            "do_sample": True,
            "temperature": settings.temperature,
            # The ratio of the update is one of whole distributions.
            "top_k": 0,
            "top_p": 1.0,
            "min_p": None,
            "typical_p": 1.0,
            "repetition_penalty": 1.0,
        }
        return [
            GenerationRequest(prompt, number, sampling, settings.stop, settings.max_new_tokens)
            for prompt, number in zip(prompts, numbers, strict=True)
        ]

    def max_rows(self, requests: Sequence[AttemptRequest], settings: SamplingSettings) -> int:
        """Return how many rollouts are decoded at once."""
        if self.batch_size != "auto":
            return int(self.batch_size)
        # Without a line of log for every round.
        return fitting_rows(self.model, requests, max_new_tokens=settings.max_new_tokens)

    def attempt_request(
        self, prompt: str, token_ids: Sequence[int], attempt: int
    ) -> AttemptRequest:
        """Put the vectors into a prompt, and remember the ids that stand for it in the update."""
        request = super().attempt_request(prompt, token_ids, attempt)
        virtual = self.vocabulary.ids(attempt) if self.vocabulary is not None else []
        self._read[attempt] = (*request.shared_ids, *virtual, *request.private_ids)
        return request

    def draw(self, prompt: str, attempt: int) -> torch.Tensor:
        """Return the vectors of a rollout."""
        assert self.vocabulary is not None
        return self.vocabulary.rows(self.vocabulary.ids(attempt))

    def token_stream(self, prompt: str, attempt: int) -> np.random.Generator:
        """Return the random stream that chooses a rollout's tokens."""
        return attempt_stream(self.seed, prompt, attempt, purpose="rollout")


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Decode without dropout and without gradient checkpointing, which forbids a cache."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)

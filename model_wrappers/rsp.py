"""``--model rsp``: random soft prompts, a fresh draw of random embeddings per attempt."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any, ClassVar, Literal, TypeVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from lm_eval_ext.checks import check_choice, check_flag, is_number
from lm_eval_ext.engine.random_stream import attempt_stream
from lm_eval_ext.engine.request import AttemptRequest, Vectors, common_prefix_split
from lm_eval_ext.errors import UserError
from lm_eval_ext.harness import requests as harness
from lm_eval_ext.model_wrappers.attempt_sampling import AttemptSampling
from lm_eval_ext.model_wrappers.sampled import SampledLM
from lm_eval_ext.models.embedding_statistics import EmbeddingStatistics, embedding_statistics
from lm_eval_ext.store.argument_effects import NO_EFFECT, Effect

Position = Literal["auto", "end_of_user", "after_prompt", "prefix"]
Resample = Literal["attempt", "question", "run"]
Distribution = Literal["scalar", "per_dim"]
Control = Literal["none", "mean", "zero", "real_tokens", "placeholder", "shared"]

_SETTINGS = ("length", "scale", "position", "resample", "distribution", "control")
_LM = TypeVar("_LM", bound="RandomSoftPrompts")


class RandomSoftPrompts(AttemptSampling):
    """Random soft prompts: inject random embedding vectors drawn again for every attempt.

    Based on "From Noise to Diversity: Random Embedding Injection in LLM Reasoning",
    arXiv:2605.11936. No training: each vector comes from an isotropic Gaussian with the entrywise
    mean and variance of the embedding table, and stays fixed during its attempt. The vectors come
    after the shared prompt, so all attempts still share one prefill.

    Differs from the paper, whose text leaves these open: the default ``length`` and ``position``
    are our choice.

    Parameters
    ----------
    length
        Number of injected vectors; 0 is ``--model sampled``, token for token.
    scale
        Factor on the standard deviation of the vectors around their mean.
    position
        Where the vectors go: ``"end_of_user"``, right after the last user message of a chat;
        ``"after_prompt"``, after the last prompt token; ``"prefix"``, before the prompt and after
        BOS (attempts then share no prefill); ``"auto"``, ``"end_of_user"`` where the prompt is a
        rendered chat and ``"after_prompt"`` elsewhere.
    resample
        How often to draw: once per ``"attempt"``, per ``"question"``, or per ``"run"``.
    distribution
        ``"scalar"``, one mean and variance over all entries of the table, as in the paper; or
        ``"per_dim"``, one per dimension.
    control
        What to inject instead, to tell what the randomness is worth: ``"none"`` injects the
        random vectors; ``"mean"`` their mean, ``"zero"`` zeros, ``"real_tokens"`` embeddings of
        random tokens, ``"placeholder"`` one and the same reserved token; ``"shared"`` draws once
        for all attempts of a question.
    loglikelihood
        Answer loglikelihood requests, without any injection, instead of refusing them.
    **sampled_arguments
        As for `AttemptSampling`; ``seed`` also seeds the vectors.

    Raises
    ------
    UserError
        For a value outside the above.
    """

    argument_effects: ClassVar = {
        **dict.fromkeys(_SETTINGS, Effect("text", "soft_prompt")),
        "loglikelihood": NO_EFFECT,
    }

    def __init__(
        self,
        pretrained: Any = "tiny",
        *,
        length: int = 8,
        scale: float = 1.0,
        position: Position = "auto",
        resample: Resample = "attempt",
        distribution: Distribution = "scalar",
        control: Control = "none",
        loglikelihood: bool = False,
        **sampled_arguments: Any,
    ) -> None:
        _check_number("length", length, whole=True)
        _check_number("scale", scale)
        check_choice("position", position, get_args(Position))
        check_choice("resample", resample, get_args(Resample))
        check_choice("distribution", distribution, get_args(Distribution))
        check_choice("control", control, get_args(Control))
        check_flag("loglikelihood", loglikelihood)
        super().__init__(pretrained, **sampled_arguments)
        self.length = int(length)
        self.scale = float(scale)
        self.position = position
        self.resample = "question" if control == "shared" else resample
        self.distribution = distribution
        self.control = control
        self._answers_loglikelihood = loglikelihood
        self._statistics = self._embedding_statistics()
        self._positions_used: set[str] = set()
        self._last_turn: tuple[str | None, int | None] = (None, None)

    @abstractmethod
    def _embedding_statistics(self) -> EmbeddingStatistics:
        """Return the moments of the embedding table."""

    @abstractmethod
    def _embed(self, token_ids: list[int]) -> torch.Tensor:
        """Return the embeddings of tokens, shape (n, hidden), float32 on the CPU."""

    def attempt_request(
        self, prompt: str, token_ids: Sequence[int], attempt: int
    ) -> AttemptRequest:
        """Put the vectors of an attempt into its prompt."""
        if self.length == 0:
            return super().attempt_request(prompt, token_ids, attempt)
        shared, private = common_prefix_split(token_ids, self._insertion(prompt, token_ids))
        return AttemptRequest(
            shared,
            private,
            self.token_stream(prompt, attempt),
            Vectors(self.length, partial(self.draw, prompt, attempt)),
        )

    def without_injection(self: _LM) -> _LM:
        """Return the same model, loaded once, with nothing injected."""
        other = copy.copy(self)
        other.length = 0
        return other

    def draw(self, prompt: str, attempt: int) -> torch.Tensor:
        """Return the vectors of an attempt, shape (length, hidden), float32 on the CPU."""
        stream = self._vector_stream(prompt, attempt)
        if self.control == "zero":
            return torch.zeros(self.length, self._hidden_size)
        if self.control == "real_tokens":
            return self._embed(stream.choice(self._ordinary_ids, size=self.length).tolist())
        if self.control == "placeholder":
            return self._embed([self._placeholder_id] * self.length)
        mean, std = self._moments()
        if self.control == "mean":
            return mean.expand(self.length, -1).clone()
        noise = stream.standard_normal((self.length, self._hidden_size), dtype=np.float32)
        return mean + self.scale * std * torch.from_numpy(noise)

    def _vector_stream(self, prompt: str, attempt: int) -> np.random.Generator:
        # A constant in place of what the draw must not depend on.
        key_prompt = "" if self.resample == "run" else prompt
        key_attempt = attempt if self.resample == "attempt" else 0
        return attempt_stream(self.seed, key_prompt, key_attempt, purpose="soft prompt")

    def _moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        statistics = self._statistics
        if self.distribution == "per_dim":
            return statistics.mean_per_dim.float(), statistics.std_per_dim.float()
        ones = torch.ones(self._hidden_size)
        return statistics.mean * ones, statistics.std * ones

    @property
    def _hidden_size(self) -> int:
        return len(self._statistics.mean_per_dim)

    @cached_property
    def _ordinary_ids(self) -> NDArray[np.int64]:
        return np.setdiff1d(np.arange(len(self.tokenizer)), self.tokenizer.all_special_ids)

    @property
    def _placeholder_id(self) -> int:
        tokenizer = self.tokenizer
        reserved = (tokenizer.unk_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id)
        return next(int(i) for i in reserved if i is not None)

    def _insertion(self, prompt: str, token_ids: Sequence[int]) -> int:
        """Return the number of prompt tokens that come before the vectors."""
        if self.position == "prefix":
            self._positions_used.add("prefix")
            return int(token_ids[0] == self.tokenizer.bos_token_id)
        n_after = None
        if self.position != "after_prompt":
            n_after = self._tokens_after_user(prompt)
            if n_after is None and self.position == "end_of_user":
                raise UserError(
                    "position=end_of_user: the prompt holds no user turn of the chat template; "
                    "add --apply_chat_template or use position=after_prompt"
                )
        self._positions_used.add("after_prompt" if n_after is None else "end_of_user")
        # Counted from the right, because truncation cuts on the left.
        return max(0, len(token_ids) - (n_after or 0))

    def _tokens_after_user(self, prompt: str) -> int | None:
        """Return how many tokens follow the last user message, or None if there is none."""
        if self._last_turn[0] != prompt:  # attempts of one prompt come one after the other
            end = harness.end_of_user_turn(self, prompt)
            count = None if end is None else harness.tokens_from(self, prompt, end)
            self._last_turn = (prompt, count)
        return self._last_turn[1]

    def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
        """Refuse, or answer with the plain model when ``loglikelihood=true``."""
        self._check_loglikelihood()
        return super().loglikelihood(requests, disable_tqdm)

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:
        """Refuse, or answer with the plain model when ``loglikelihood=true``."""
        self._check_loglikelihood()
        return super().loglikelihood_rolling(requests, disable_tqdm)

    def _check_loglikelihood(self) -> None:
        if not self._answers_loglikelihood:
            raise UserError(
                "--model rsp: random soft prompts are not defined for loglikelihood tasks; choose "
                "a generation task, or loglikelihood=true to score with the plain model"
            )

    def key_settings(self) -> dict[str, Any]:
        """Return what the vectors are drawn by; the table itself is part of the model."""
        return {"soft_prompt": self._soft_prompt()} if self.length else {}

    def _soft_prompt(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _SETTINGS}

    def run_record(self) -> dict[str, Any]:
        """Add the injection to the record of the run."""
        statistics = self._statistics
        return {
            **super().run_record(),
            "soft_prompt": {
                **self._soft_prompt(),
                "positions_used": sorted(self._positions_used),
                "seed": self.seed,
                "mu": statistics.mean,
                "sigma": statistics.std,
                "rows": statistics.n_rows,
                "placeholder_token_id": (
                    self._placeholder_id if self.control == "placeholder" else None
                ),
                "loglikelihood": self._answers_loglikelihood,
            },
        }


class RSP(RandomSoftPrompts, SampledLM):
    """Random soft prompts with this package's engine; see `RandomSoftPrompts`.

    Examples
    --------
    .. code-block:: console

        lm_eval --model rsp --model_args pretrained=tiny,length=8 --tasks tiny_gsm8k_passn
    """

    argument_effects: ClassVar = {}  # those of its bases

    def _embedding_statistics(self) -> EmbeddingStatistics:
        return embedding_statistics(self.model)

    @torch.inference_mode()
    def _embed(self, token_ids: list[int]) -> torch.Tensor:
        ids = torch.tensor(token_ids, device=self.model.device)
        return self.model.get_input_embeddings()(ids).float().cpu()


def _check_number(name: str, value: object, *, whole: bool = False) -> None:
    # lm-eval reads some whole numbers of --model_args as floats.
    if not is_number(value) or not 0 <= value < math.inf or (whole and value % 1):
        what = "an integer" if whole else "a number"
        raise UserError(f"{name}={value!r} must be {what} of at least 0")

"""From logits to the next token: settings, inverse-CDF sampling and token statistics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import GenerationConfig
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from lm_eval_ext.engine.token_choice import (
    UNDECIDED,
    Nucleus,
    from_candidates,
    inverse_cdf,
    most_likely,
    n_candidates,
)
from lm_eval_ext.engine.token_statistics import distribution_sums, statistics_from_sums
from lm_eval_ext.errors import UserError

# Logits are read in slices of at most this many elements. On a CPU a slice fits into the cache,
# where several passes cost little more than one; elsewhere it bounds the memory (about 1 GiB).
_ELEMENTS_PER_SLICE = 2**18
_ELEMENTS_PER_SLICE_ELSEWHERE = 2**25

_PROCESSOR_SETTINGS = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "repetition_penalty",
)

# Settings of `GenerationConfig` that would change the text and that the engine does not have.
_UNSUPPORTED_SETTINGS = (
    "num_beams",
    "num_beam_groups",
    "penalty_alpha",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty",
    "bad_words_ids",
    "sequence_bias",
    "suppress_tokens",
    "begin_suppress_tokens",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "exponential_decay_length_penalty",
    "epsilon_cutoff",
    "eta_cutoff",
    "min_length",
    "min_new_tokens",
    "guidance_scale",
    "watermarking_config",
)
_SWITCHED_OFF: tuple[Any, ...] = (None, 0, 1, [], {})


@dataclass(frozen=True)
class SamplingSettings:
    """How tokens are chosen and when an attempt ends.

    Parameters
    ----------
    max_new_tokens
        Most tokens an attempt may have.
    stop
        Strings that end an attempt.
    do_sample
        Sample, or take the most likely token.
    temperature, top_k, top_p, min_p, typical_p, repetition_penalty
        As in transformers' ``GenerationConfig``; None, 0 or 1 switch them off as there.
    thinking_budget
        Most tokens of a thought, after which its closing tag is forced; None for no such limit.
    """

    max_new_tokens: int
    stop: tuple[str, ...] = ()
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float | None = None
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    thinking_budget: int | None = None

    def logits_processors(self) -> LogitsProcessorList:
        """Return transformers' processors in the order ``generate`` applies them."""
        processors = LogitsProcessorList()
        if self.repetition_penalty != 1.0:
            processors.append(RepetitionPenaltyLogitsProcessor(self.repetition_penalty))
        if not self.do_sample:
            return processors
        if self.temperature != 1.0:
            processors.append(TemperatureLogitsWarper(self.temperature))
        if self.top_k:
            processors.append(TopKLogitsWarper(self.top_k))
        if self.top_p < 1.0:
            processors.append(TopPLogitsWarper(self.top_p))
        if self.min_p:
            processors.append(MinPLogitsWarper(self.min_p))
        if self.typical_p < 1.0:
            processors.append(TypicalLogitsWarper(self.typical_p))
        return processors


def resolve_settings(
    generation_kwargs: Mapping[str, Any],
    *,
    max_new_tokens: int,
    stop: tuple[str, ...],
    model_defaults: GenerationConfig | None,
) -> SamplingSettings:
    """Merge a request's generation settings with the model's own, as ``generate`` does.

    The request wins over the model's ``generation_config``, which wins over transformers'
    defaults (among them ``top_k=50``), so that the same command samples from the same
    distribution under ``--model hf``.

    Parameters
    ----------
    generation_kwargs
        Settings of the request, without stop strings and token limits.
    max_new_tokens, stop
        See `SamplingSettings`.
    model_defaults
        The model's ``generation_config``.

    Raises
    ------
    ValueError
        If a setting is unknown, not supported by the engine, or out of range.
    """
    config = GenerationConfig()
    config.update(
        **(model_defaults.to_dict() if model_defaults is not None else {}), defaults_only=True
    )
    config.update(**GenerationConfig._get_default_generation_params(), defaults_only=True)
    given = dict(generation_kwargs)
    do_sample = bool(given.pop("do_sample", False))
    given.pop("use_cache", None)
    if given.get("temperature") == 0:
        # The common way to ask for greedy decoding; transformers would call it an error.
        do_sample = False
    if not do_sample:
        given.pop("temperature", None)
    unknown = sorted(set(given) - set(_PROCESSOR_SETTINGS))
    if unknown:
        raise ValueError(
            f"generation setting {unknown[0]}={given[unknown[0]]!r} is not supported; supported: "
            f"do_sample, {', '.join(_PROCESSOR_SETTINGS)}, until, max_gen_toks "
            "(use --model hf for others)"
        )
    for name in _UNSUPPORTED_SETTINGS:
        if getattr(config, name, None) not in _SWITCHED_OFF:
            raise ValueError(
                f"the model's generation_config sets {name}={getattr(config, name)!r}, which is "
                f"not supported: remove {name} from it or use --model hf"
            )
    off = {"top_k": 0, "min_p": None}
    values: dict[str, Any] = {}
    for name in _PROCESSOR_SETTINGS:
        value = given.get(name, getattr(config, name))
        try:
            number = None if value is None else int(value) if name == "top_k" else float(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"generation setting {name}={value!r} must be a number") from error
        values[name] = off.get(name, 1.0) if number is None else number
    settings = SamplingSettings(max_new_tokens, stop, do_sample, **values)
    _check_ranges(settings)
    return settings


def _check_ranges(settings: SamplingSettings) -> None:
    requirements = {
        "max_gen_toks": (settings.max_new_tokens, settings.max_new_tokens >= 1, "at least 1"),
        "temperature": (settings.temperature, settings.temperature > 0, "positive"),
        "top_k": (settings.top_k, settings.top_k >= 0, "0 (off) or positive"),
        "top_p": (settings.top_p, 0 < settings.top_p <= 1, "in (0, 1]"),
        "min_p": (settings.min_p, 0 <= (settings.min_p or 0) <= 1, "in [0, 1]"),
        "typical_p": (settings.typical_p, 0 < settings.typical_p <= 1, "in (0, 1]"),
        "repetition_penalty": (
            settings.repetition_penalty,
            settings.repetition_penalty > 0,
            "positive",
        ),
    }
    for name, (value, holds, requirement) in requirements.items():
        if not holds or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError(f"generation setting {name}={value!r} must be {requirement}")


class Sampled(NamedTuple):
    """The next token of each row.

    Parameters
    ----------
    token_ids
        Shape (n_rows,), int64, on the CPU.
    statistics
        Shape (n_rows, 4), float32, on the CPU: log-prob, entropy, self-certainty and margin of
        the model's own distribution; see `lm_eval_ext.models.generation.TokenStatistics`.
    """

    token_ids: torch.Tensor
    statistics: torch.Tensor


class Sampler:
    """Chooses next tokens under fixed settings.

    Examples
    --------
    >>> sampler = Sampler(SamplingSettings(max_new_tokens=1, do_sample=True))
    >>> logits = torch.tensor([[0.5, 0.25, 0.25]]).log()
    >>> [sampler(logits, torch.tensor([u])).token_ids.item() for u in (0.0, 0.49, 0.51, 0.99)]
    [0, 0, 1, 2]
    """

    def __init__(self, settings: SamplingSettings) -> None:
        self.settings = settings
        # The first two change scores, the others leave some out.
        processors = settings.logits_processors()
        kinds = (RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper)
        self._scaling = [p for p in processors if isinstance(p, kinds)]
        self._cutting = [
            Nucleus(p.top_p) if isinstance(p, TopPLogitsWarper) else p
            for p in processors[len(self._scaling) :]
        ]

    @property
    def needs_context(self) -> bool:
        """Whether the processors look at the tokens so far."""
        return self.settings.repetition_penalty != 1.0

    def __call__(
        self,
        logits: torch.Tensor,
        uniforms: torch.Tensor,
        context_ids: torch.Tensor | None = None,
    ) -> Sampled:
        """Choose one token per row.

        Parameters
        ----------
        logits
            Shape (n_rows, vocabulary).
        uniforms
            Shape (n_rows,), float64 in [0, 1); not used by greedy decoding.
        context_ids
            Shape (n_rows, length), the tokens so far, for a repetition penalty. A row may be
            padded by repeating any of its own tokens.
        """
        if logits.device.type == "mps":  # no float64 there
            logits = logits.cpu()
        uniforms = uniforms.to(logits.device, torch.float64)
        context_ids = None if context_ids is None else context_ids.to(logits.device)
        given = _Given(logits, uniforms, context_ids)
        on_cpu = logits.device.type == "cpu"
        n_elements = _ELEMENTS_PER_SLICE if on_cpu else _ELEMENTS_PER_SLICE_ELSEWHERE
        size = max(1, n_elements // logits.shape[-1])
        # One table, so that one transfer brings everything to the host.
        slices = (given.rows(slice(i, i + size)) for i in range(0, logits.shape[0], size))
        table = torch.cat([self._choices(part) for part in slices]).cpu().numpy()
        undecided = np.flatnonzero(table[:, 0] == UNDECIDED)
        for i in range(0, len(undecided), size):
            rows = undecided[i : i + size]
            part = given.rows(torch.from_numpy(rows).to(logits.device))
            token_ids = self._from_all(self._scaled(part), part.uniforms)
            columns = torch.stack(_with_logits(token_ids, part.logits), dim=-1)
            table[rows, :2] = columns.cpu().numpy()
        if (table[undecided, 0] == UNDECIDED).any():
            raise UserError("the model's logits are not finite: load it in another dtype")
        statistics = statistics_from_sums(table[:, 1], table[:, 2:])
        token_ids = torch.from_numpy(table[:, 0].astype(np.int64))
        return Sampled(token_ids, torch.from_numpy(statistics))

    def _choices(self, given: _Given) -> torch.Tensor:
        """Return tokens, their logits and what describes their distributions, as columns."""
        scores = self._scaled(given)
        if not self.settings.do_sample:
            token_ids = most_likely(scores)
        elif not n_candidates(self.settings, scores.shape[-1]):
            token_ids = self._from_all(scores, given.uniforms)
        else:
            token_ids = from_candidates(scores, given.uniforms, self.settings)
            # Elsewhere the host does not know yet whether there are any.
            if scores.device.type == "cpu":
                rows = (token_ids == UNDECIDED).nonzero().flatten()
                if len(rows) == len(scores):
                    token_ids = self._from_all(scores, given.uniforms)
                elif len(rows):
                    token_ids[rows] = self._from_all(scores[rows], given.uniforms[rows])
        columns = [*_with_logits(token_ids, given.logits), *distribution_sums(given.logits)]
        return torch.stack(columns, dim=-1)

    def _from_all(self, scores: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
        """Choose a token where any can be chosen; `scores` are the logits after `_scaled`."""
        for processor in self._cutting:
            scores = processor(None, scores)  # what leaves tokens out looks at no context
        return inverse_cdf(scores, uniforms)

    def _scaled(self, given: _Given) -> torch.Tensor:
        """Return the logits after repetition penalty and temperature."""
        scores = given.logits
        for processor in self._scaling:
            scores = processor(given.context_ids, scores)
        return scores


class _Given(NamedTuple):
    """What a sampler is called with."""

    logits: torch.Tensor
    uniforms: torch.Tensor
    context_ids: torch.Tensor | None

    def rows(self, which: slice | torch.Tensor) -> _Given:
        """Return some of the rows, their logits in float32."""
        context_ids = None if self.context_ids is None else self.context_ids[which]
        return _Given(self.logits[which].float(), self.uniforms[which], context_ids)


def _with_logits(token_ids: torch.Tensor, logits: torch.Tensor) -> list[torch.Tensor]:
    """Return tokens and their logits as columns; in float32 ids are exact up to 16,777,216."""
    chosen = logits.gather(-1, token_ids[:, None].clamp_min(0)).squeeze(-1)
    return [token_ids.to(chosen.dtype), chosen]


def padded_contexts(contexts: Sequence[Sequence[int]]) -> torch.Tensor:
    """Stack token sequences, each padded by repeating its own first token.

    A repetition penalty looks at which tokens are there, not where, so repeating one that is
    there anyway changes nothing.

    Parameters
    ----------
    contexts
        Token ids of each row.
    """
    longest = max(len(context) for context in contexts)
    rows = [[*context, *([context[0]] * (longest - len(context)))] for context in contexts]
    return torch.tensor(rows, dtype=torch.int64)

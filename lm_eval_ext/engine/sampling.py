"""From logits to the next token: settings, inverse-CDF sampling and token statistics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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

from lm_eval_ext.errors import UserError

# Logits are processed in slices of at most this many elements, which bounds the float64 working
# memory (about 2 GiB) for large vocabularies.
_ELEMENTS_PER_SLICE = 2**25

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
        the model's own distribution; see `lm_eval_ext.generation.TokenStatistics`.
    """

    token_ids: torch.Tensor
    statistics: torch.Tensor


class Sampler:
    """Chooses next tokens under fixed settings.

    Parameters
    ----------
    settings
        The sampling settings.

    Examples
    --------
    >>> sampler = Sampler(SamplingSettings(max_new_tokens=1, do_sample=True))
    >>> logits = torch.tensor([[0.5, 0.25, 0.25]]).log()
    >>> [sampler(logits, torch.tensor([u])).token_ids.item() for u in (0.0, 0.49, 0.51, 0.99)]
    [0, 0, 1, 2]
    """

    def __init__(self, settings: SamplingSettings) -> None:
        self.settings = settings
        self._processors = settings.logits_processors()

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
        rows_per_slice = max(1, _ELEMENTS_PER_SLICE // logits.shape[-1])
        parts = []
        for start in range(0, logits.shape[0], rows_per_slice):
            rows = slice(start, start + rows_per_slice)
            context = None if context_ids is None else context_ids[rows].to(logits.device)
            parts.append(self._sample(logits[rows].float(), uniforms[rows], context))
        token_ids = torch.cat([part.token_ids for part in parts])
        statistics = torch.cat([part.statistics for part in parts])
        return Sampled(token_ids.cpu(), statistics.cpu())

    def _sample(
        self, logits: torch.Tensor, uniforms: torch.Tensor, context_ids: torch.Tensor | None
    ) -> Sampled:
        # Processors may work in place, and the statistics need the untouched logits.
        scores = self._processors(context_ids, logits.clone()) if self._processors else logits
        if self.settings.do_sample:
            token_ids = inverse_cdf(scores, uniforms.to(scores.device))
        else:
            token_ids = scores.argmax(dim=-1)
        return Sampled(token_ids, token_statistics(logits, token_ids))


def inverse_cdf(scores: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Return the token whose interval of the cumulative distribution holds the uniform.

    Parameters
    ----------
    scores
        Processed logits, shape (n_rows, vocabulary); excluded tokens are -inf.
    uniforms
        Shape (n_rows,), float64 in [0, 1).

    Returns
    -------
    torch.Tensor
        Shape (n_rows,), int64. Never a token of probability zero.
    """
    cumulative = torch.softmax(scores, dim=-1, dtype=torch.float64).cumsum(dim=-1)
    total = cumulative[:, -1]
    # Strictly below the total, whatever the rounding: the search must end inside the support.
    target = torch.minimum(uniforms * total, torch.nextafter(total, torch.zeros_like(total)))
    found = torch.searchsorted(cumulative, target.unsqueeze(-1), right=True).squeeze(-1)
    if not bool(torch.isfinite(total).all()):
        raise UserError("the model's logits are not finite: load it in another dtype")
    return found.clamp_max(scores.shape[-1] - 1)


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


def token_statistics(logits: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
    """Return log-prob, entropy, self-certainty and margin of each row, shape (n_rows, 4).

    Parameters
    ----------
    logits
        The model's logits before any processor, shape (n_rows, vocabulary), float32.
    token_ids
        The chosen tokens, shape (n_rows,).
    """
    log_probs = torch.log_softmax(logits, dim=-1)
    probs = log_probs.exp()
    chosen = log_probs.gather(-1, token_ids.unsqueeze(-1)).squeeze(-1)
    # Slots that the model itself masks have log-prob -inf: they are not part of its vocabulary.
    possible = log_probs > -torch.inf
    log_probs = log_probs.where(possible, 0.0)
    entropy = -(probs * log_probs).sum(dim=-1)
    n_possible = possible.sum(dim=-1)
    self_certainty = -log_probs.sum(dim=-1) / n_possible - n_possible.log()
    top = probs.topk(2, dim=-1).values
    return torch.stack([chosen, entropy, self_certainty, top[:, 0] - top[:, 1]], dim=-1)

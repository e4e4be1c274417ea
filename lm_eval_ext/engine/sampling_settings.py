"""How tokens are chosen and when an attempt ends: the settings of a request."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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

_PROCESSOR_SETTINGS = ("temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty")
# fmt: off
# Settings of `GenerationConfig` that would change the text and that the engine does not have.
_UNSUPPORTED_SETTINGS = (
    "num_beams", "num_beam_groups", "penalty_alpha", "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size", "encoder_repetition_penalty", "bad_words_ids", "sequence_bias",
    "suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id",
    "exponential_decay_length_penalty", "epsilon_cutoff", "eta_cutoff", "min_length",
    "min_new_tokens", "guidance_scale", "watermarking_config",
)
# fmt: on
_SWITCHED_OFF: tuple[Any, ...] = (None, 0, 1, [], {})


@dataclass(frozen=True)
class SamplingSettings:
    """How tokens are chosen and when an attempt ends.

    Names and values that switch a setting off are those of transformers' ``GenerationConfig``.
    After `thinking_budget` tokens of a thought its closing tag is forced.
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
        sampled = self.do_sample
        given: list[tuple[Any, Any, Any]] = [
            (
                self.repetition_penalty != 1.0,
                RepetitionPenaltyLogitsProcessor,
                "repetition_penalty",
            ),
            (sampled and self.temperature != 1.0, TemperatureLogitsWarper, "temperature"),
            (sampled and self.top_k, TopKLogitsWarper, "top_k"),
            (sampled and self.top_p < 1.0, TopPLogitsWarper, "top_p"),
            (sampled and self.min_p, MinPLogitsWarper, "min_p"),
            (sampled and self.typical_p < 1.0, TypicalLogitsWarper, "typical_p"),
        ]
        return LogitsProcessorList(kind(getattr(self, name)) for on, kind, name in given if on)


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
    distribution under ``--model hf``. `generation_kwargs` hold no stop strings and token limits.

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
        "repetition_penalty": (penalty := settings.repetition_penalty, penalty > 0, "positive"),
    }
    for name, (value, holds, requirement) in requirements.items():
        if not holds or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError(f"generation setting {name}={value!r} must be {requirement}")

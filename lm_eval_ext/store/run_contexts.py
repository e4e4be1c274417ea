"""The contexts of a run: what is in the keys of its attempts."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, NamedTuple

from lm_eval_ext.engine.sampling_settings import SamplingSettings
from lm_eval_ext.store.argument_effects import KeyedArguments
from lm_eval_ext.store.key import TEXT_FORMAT, Context, make_context


class Contexts(NamedTuple):
    """The contexts of sampled attempts, and of annotated ones; equal where none are annotated."""

    text: Context
    final: Context


def run_contexts(lm: KeyedArguments, settings: SamplingSettings) -> Contexts:
    """Return the contexts of attempts under some sampling settings.

    The settings are the format of texts, the sampling settings, those that all wrappers have (the
    fingerprints of model and tokenizer among them), and what the wrapper adds. The name of a
    wrapper is among them only where its class declares no arguments: attempts that two wrappers
    would sample alike are the same attempts.
    """
    about = {"pretrained": str(lm.pretrained), "wrapper": type(lm).__name__}
    sampling = asdict(settings)
    if settings.thinking_budget is None:  # as before there was one
        del sampling["thinking_budget"]
    own = {
        "version": TEXT_FORMAT,
        "sampling": sampling,
        **lm.common_settings(),
        **lm.key_settings(),
        **_if_any("arguments", lm.arguments_by_value("text")),
        **_if_any("undeclared", lm.undeclared_classes()),
    }
    text = make_context(own, about)
    annotations = {
        **lm.annotation_settings(),
        **_if_any("arguments", lm.arguments_by_value("annotation")),
    }
    if lm.annotates and not annotations:
        annotations = {"wrapper": type(lm).__qualname__}
    final = make_context({**own, "annotations": annotations}, about) if annotations else text
    return Contexts(text, final)


def after_thought(contexts: Contexts) -> Contexts:
    """Return the contexts of attempts that are drawn again.

    Version 0.1 ended attempts at stop strings inside their thoughts. Those are not what is drawn
    today, and a store keeps the first of two attempts under one key.
    """
    return Contexts(
        *(make_context({**c.settings, "stops": "after thought"}, c.about) for c in contexts)
    )


def _if_any(name: str, value: Any) -> dict[str, Any]:
    return {name: value} if value else {}

"""A model's judgement of its own attempts: the logits of the labels become a probability."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from lm_eval_ext.methods.self_evaluation.confidence import Temperature, confidence
from lm_eval_ext.methods.self_evaluation.layout import SelfEvalLayout
from lm_eval_ext.models.generation import Generation

SOURCE = "self_eval"
"""Name of the probability among those of an attempt."""

UNTUNED = "self_eval_untuned"
"""Name, in ``extra``, of the probability at temperature 1 where another was set."""


class SelfEvaluation:
    """Judges attempts: what is read after them, and what the labels' logits say.

    Attributes
    ----------
    counts
        Attempts so far: ``judged``, ``retokenized`` (the tokenizer's tokens of the response were
        not those that had been sampled) and ``cut`` (too long, cut from the left).
    """

    def __init__(self, layout: SelfEvalLayout, temperature: Temperature | None = None) -> None:
        self.layout = layout
        self.temperature = temperature
        self.counts: Counter[str] = Counter(judged=0, retokenized=0, cut=0)

    def annotated(self, generation: Generation, readout: Sequence[float]) -> Generation:
        """Return an attempt with its confidence, given the logits of both labels."""
        yes, no = readout
        untuned = confidence(yes, no)
        if self.temperature is None:
            return generation.annotated(probabilities={SOURCE: untuned})
        tuned = confidence(yes, no, self.temperature.value)
        return generation.annotated(probabilities={SOURCE: tuned}, extra={UNTUNED: untuned})

    def key_settings(self) -> dict[str, Any]:
        """Return what decides the confidence, for the keys of a store."""
        template = self.layout.template
        return {
            "prompt": template.prompt,
            "labels": list(template.labels),
            "template_ids": list(self.layout.template_ids),
            "temperature": None if self.temperature is None else self.temperature.value,
        }

    def record(self) -> dict[str, Any]:
        """Return the settings and the counts, for the record of the run."""
        template = self.layout.template
        temperature = self.temperature or Temperature(1.0)
        return {
            "prompt": template.prompt,
            "labels": list(template.labels),
            "label_ids": list(self.layout.label_ids),
            "n_template_tokens": len(self.layout.template_ids),
            "temperature": temperature.value,
            "temperature_file": temperature.source,
            "attempts": dict(self.counts),
        }

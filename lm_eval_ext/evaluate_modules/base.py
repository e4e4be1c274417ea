"""The base of the scripts: two columns of numbers, and one metric of this package."""

from __future__ import annotations

from collections.abc import Callable
from inspect import cleandoc
from typing import Any, ClassVar

import datasets
import evaluate


class NumberPairs(evaluate.Metric):
    """A `metric` of two columns of numbers, described by the docstring of its class."""

    metric: ClassVar[Callable[..., float]]
    citation_text = ""
    urls: tuple[str, ...] = ()

    def _info(self) -> evaluate.MetricInfo:
        description, _, usage = cleandoc(type(self).__doc__ or "").partition("\n\nParameters\n")
        # Not int64 for verdicts and counts: it would silently turn 0.7 into 0.
        columns = {name: datasets.Value("float64") for name in ("predictions", "references")}
        return evaluate.MetricInfo(
            description=description,
            citation=self.citation_text,
            inputs_description=f"Parameters\n{usage}",
            features=datasets.Features(columns),
            reference_urls=list(self.urls),
        )

    def _compute(self, predictions: Any, references: Any, **options: Any) -> dict[str, Any]:
        return {self.name: type(self).metric(predictions, references, **options)}

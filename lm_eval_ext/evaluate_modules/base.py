"""What the scripts share: features, and the texts of `evaluate` read from the class's docstring."""

from __future__ import annotations

from inspect import cleandoc

import datasets
import evaluate


class NumberPairs(evaluate.Metric):
    """A metric of two columns of numbers, described by the docstring of its class."""

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

"""Read a sample file once, line by line: values of questions, and attempts of pooled metrics."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard.rescoring import changed_settings
from lm_eval_ext.leaderboard.run_data import HASH_DIGITS
from lm_eval_ext.leaderboard.run_files import read_samples
from lm_eval_ext.metrics import UndefinedMetricWarning
from lm_eval_ext.scoring.aggregations import Aggregation
from lm_eval_ext.scoring.metric_suites import suite
from lm_eval_ext.scoring.question import MetricSuite, QuestionMetric, SourceMetric
from lm_eval_ext.scoring.scores import Score, score, score_with_values

HEADLINE = ("debiased_ece:*", "brier:*", "hallucination_auroc:*", "within_question_auroc:*")
"""Metrics that pool attempts and are computed unless others are asked for: each costs a bootstrap,
and those of rankings take seconds on 20,000 attempts."""


class TaskSamples:
    """What a task's sample file holds, as far as tables need it.

    Raises
    ------
    UserError
        For a damaged file: one line with the file and the place.
    """

    def __init__(
        self, path: Path, metadata: Mapping[str, Any], pooled: Sequence[str] = HEADLINE
    ) -> None:
        self.path = path
        self.questions: dict[int, str] = {}
        self.counts: Counter[str] = Counter()  # samples of each filter
        self.values: dict[str, dict[int, float]] = {}
        self._tokens: dict[int, int | None] = {}
        self._metadata = metadata
        self._pooled = pooled
        self._wanted: dict[str, bool] = {}
        self._suite: MetricSuite | None = None
        self._items: dict[tuple[str, Any, str], dict[int, Any]] = {}
        self._metrics: dict[str, tuple[SourceMetric | QuestionMetric, tuple[str, Any, str]]] = {}
        self._read()

    @property
    def tokens(self) -> int | None:
        """Tokens of all attempts, or None where the model did not count them."""
        counts = list(self._tokens.values())
        return None if None in counts else sum(n for n in counts if n is not None)

    def _read(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndefinedMetricWarning)
            for sample in read_samples(self.path):
                self.counts[sample["filter"]] += 1
                self._add(sample, f",{sample['filter']}")
        if len(self.counts) == 1:  # a filter is named only where there are several
            (suffix,) = (f",{name}" for name in self.counts)
            self.values = {k.removesuffix(suffix): v for k, v in self.values.items()}
            self._metrics = {k.removesuffix(suffix): v for k, v in self._metrics.items()}

    def _add(self, sample: Mapping[str, Any], suffix: str) -> None:
        question = int(sample["doc_id"])
        self.questions[question] = str(sample["doc_hash"])[:HASH_DIGITS]
        for metric in sample["metrics"]:
            value = sample.get(metric)
            if isinstance(value, (int, float)):  # some tasks log verdicts as true and false
                of_question = self.values.setdefault(metric + suffix, {})
                if question in of_question:
                    raise UserError(
                        f"{self.path}: question {question} is there twice; two runs were written "
                        "into one file"
                    )
                of_question[question] = float(value)
        attempts = sample.get("attempts")
        counts = [attempt.get("n_tokens") for attempt in attempts or [{}]]
        self._tokens[question] = None if None in counts else sum(counts)
        if not attempts:
            return
        if "correct" in attempts[0]:
            try:
                self._add_pooled(question, attempts, suffix)
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(
                    f"{self.path}: the attempts at question {question} cannot be scored ({error!r})"
                ) from error

    def _add_pooled(self, question: int, attempts: Any, suffix: str) -> None:
        if self._suite is None:
            settings = changed_settings(self._metadata, {})
            self._suite = suite(self._metadata.get("metrics", "passn"), settings)
        for name, metric in self._suite.metrics.items():
            if isinstance(metric.aggregation, Aggregation):
                self._keep(name, metric, ("", metric.value, suffix), question, attempts)
        for source_name, source in self._suite.sources(attempts).items():
            for name, source_metric in self._suite.source_metrics.items():
                if isinstance(source_metric.aggregation, Aggregation):
                    full, key = f"{name}:{source_name}", (source_name, source_metric.value, suffix)
                    self._keep(full, source_metric, key, question, attempts, source)

    def _keep(
        self,
        name: str,
        metric: SourceMetric | QuestionMetric,
        key: tuple[str, Any, str],
        question: int,
        *arguments: Any,
    ) -> None:
        """Note the question's value; metrics that share a reading of the attempts share it here."""
        if name not in self._wanted:
            self._wanted[name] = any(fnmatchcase(name, pattern) for pattern in self._pooled)
        if not self._wanted[name]:
            return
        of_key = self._items.setdefault(key, {})
        if question not in of_key:
            value = metric.value(*arguments)
            of_key[question] = value
        if of_key[question] is not None:
            self._metrics.setdefault(name + key[2], (metric, key))

    def pooled(self) -> dict[str, tuple[Score, NDArray[np.float64] | None]]:
        """Return the metrics that pool attempts, and their values on shared resamples.

        The values are None where a question has no attempt that counts: the resamples are then not
        those of other runs.
        """
        found: dict[str, tuple[Score, NDArray[np.float64] | None]] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndefinedMetricWarning)
            for name, (metric, key) in self._metrics.items():
                of_key = self._items[key]
                items = [of_key[i] for i in sorted(of_key) if of_key[i] is not None]
                assert isinstance(metric.aggregation, Aggregation)
                of_name, values = score_with_values(
                    items, metric.aggregation, metric.higher_is_better
                )
                is_whole = of_name.n_questions == len(self.questions)
                found[name] = of_name, values if is_whole else None
        return found

    def means(self, directions: Mapping[str, bool | None]) -> dict[str, Score]:
        """Return the metrics that are means over questions."""
        return {
            name: score(list(values.values()), "mean", directions.get(name.partition(",")[0]))
            for name, values in self.values.items()
        }


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()

"""One task of one run on the page: an index of its questions, its curves, and pages of texts."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval_ext.grading.attempt_details import Question
from lm_eval_ext.harness.attempt_settings import AttemptSettings, read_settings
from lm_eval_ext.leaderboard.page.curves import SourceRows, k_curves, source_curves
from lm_eval_ext.leaderboard.page.embedding import pack
from lm_eval_ext.leaderboard.page.questions import (
    attempts_of,
    excerpt_of,
    index_row,
    plain_details,
    prompt_of,
)
from lm_eval_ext.leaderboard.page.size_limits import PageLimits
from lm_eval_ext.leaderboard.run_files import read_samples
from lm_eval_ext.metrics import UndefinedMetricWarning
from lm_eval_ext.scoring.confidence_sources import Source, confidence_sources

PAGE_SIZE = 25
"""Questions whose texts are unpacked together."""


class TaskData(NamedTuple):
    """What the page keeps of a task of a run, each part packed on its own.

    Parameters
    ----------
    overview
        Per question what the list is filtered by, and the numbers behind the charts.
    excerpts
        Number and beginning of each question; the same for all runs that saw the same questions.
    """

    overview: bytes
    excerpts: bytes
    prompts: list[bytes]
    attempts: list[bytes]


class _Texts(NamedTuple):
    prompt: dict[str, str]
    attempts: list[dict[str, Any]]


def read_task(samples: Path, metadata: Mapping[str, Any], limits: PageLimits) -> TaskData:
    """Read the samples of a task.

    Parameters
    ----------
    samples
        The sample file; its texts pass through memory page by page.

    Raises
    ------
    UserError
        For a damaged file.
    """
    reader = _Reader(samples, limits)
    prompts, attempts = [], []
    texts = reader.texts()
    with warnings.catch_warnings():
        # The board, whose tables stand beside this, has told.
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        while page := list(itertools.islice(texts, PAGE_SIZE)):
            prompts.append(pack([question.prompt for question in page]))
            attempts.append(pack([question.attempts for question in page]))
        curves = _curves(reader, metadata)
    overview = {**reader.columns(), "filters": reader.filters, "curves": curves}
    return TaskData(pack(overview), pack(reader.excerpts), prompts, attempts)


class _Reader:
    """One pass over a sample file: texts are handed on, what statistics need is collected."""

    def __init__(self, samples: Path, limits: PageLimits) -> None:
        self._samples = samples
        self._limits = limits
        self.filters: list[str] = []  # the first is the one whose answers are shown
        self.excerpts: list[tuple[int, str]] = []
        self.questions: list[Question] = []
        self.sources: dict[str, SourceRows] = {}
        self._index: list[dict[str, Any]] = []

    def texts(self) -> Iterator[_Texts]:
        """Yield the texts of the questions that the limits keep."""
        for sample in read_samples(self._samples):
            if sample["filter"] not in self.filters:
                self.filters.append(sample["filter"])
            if sample["filter"] != self.filters[0]:
                continue
            details: Question | None = sample.get("attempts")
            sources = confidence_sources(details) if details and _is_graded(details) else {}
            self._collect(sample, details, sources)
            if self._limits.questions is None or len(self._index) <= self._limits.questions:
                attempts = attempts_of(sample, sources, self._limits)
                yield _Texts(prompt_of(sample, self._limits), attempts)

    def _collect(
        self, sample: dict[str, Any], details: Question | None, sources: Mapping[str, Source]
    ) -> None:
        place = len(self._index)
        self.excerpts.append((int(sample["doc_id"]), excerpt_of(sample)))
        self._index.append(index_row(details or plain_details(sample), sources))
        if details is not None and _is_graded(details):
            self.questions.append(_verdicts(details))
        for name, source in sources.items():
            if source.confidence:
                rows = self.sources.setdefault(name, SourceRows(source.is_probability))
                rows.add(source, place)

    def columns(self) -> dict[str, Any]:
        """Return the index, one list per property: half the size of one object per question."""
        names = [name for name in (self._index[0] if self._index else {}) if name != "wrong"]
        columns: dict[str, Any] = {name: [row[name] for row in self._index] for name in names}
        columns["wrong"] = {
            name: [row["wrong"].get(name) for row in self._index] for name in self.sources
        }
        return columns


def _is_graded(details: Question) -> bool:
    return all("correct" in attempt and "answer" in attempt for attempt in details)


def _verdicts(details: Question) -> Question:
    """Keep what the curves over k need; the rest of a whole run would fill the memory."""
    return [
        {"attempt": a["attempt"], "answer": a["answer"], "correct": a["correct"]} for a in details
    ]


def _curves(reader: _Reader, metadata: Mapping[str, Any]) -> dict[str, Any]:
    settings = _settings(reader.questions, metadata)
    curves: dict[str, Any] = {
        "sources": {
            name: source_curves(rows, settings.n_bins) for name, rows in reader.sources.items()
        }
    }
    if len(reader.questions) > 1 and settings.attempts > 1:
        curves["k"] = k_curves(reader.questions, settings)
    return curves


def _settings(questions: list[Question], metadata: Mapping[str, Any]) -> AttemptSettings:
    """Return every k that the attempts allow, and the run's number of bins."""
    most = max(map(len, questions), default=1)
    powers = sorted({2**i for i in range(most.bit_length())} | {most})
    options = {name: metadata[name] for name in ("n_bins",) if name in metadata}
    return read_settings({**options, "attempts": most, "vote_ks": powers})

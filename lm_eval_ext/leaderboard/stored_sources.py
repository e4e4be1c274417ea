"""Sources that need per-token log-probabilities, added to a finished run from its store."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

from lm_eval_ext.errors import UserError
from lm_eval_ext.grading.attempt_details import AttemptDetails, graded_answer_logprob
from lm_eval_ext.leaderboard.run_files import asked
from lm_eval_ext.models.answer_tokens import answer_tokens
from lm_eval_ext.models.attempt_summary import attempt_summary
from lm_eval_ext.models.digests import digest
from lm_eval_ext.models.generation import Generation, Thought
from lm_eval_ext.models.model_loading import model_location
from lm_eval_ext.models.token_texts import TokenTexts
from lm_eval_ext.store.appending import FileSpan
from lm_eval_ext.store.encoding import decode_generation
from lm_eval_ext.store.inspection import checked_line, store_files
from lm_eval_ext.store.lines import decode_line, read_lines

logger = logging.getLogger(__name__)


class StoredSources:
    """Adds to logged attempts what their stored tokens say.

    Parameters
    ----------
    folder
        The ``store=`` of the run.

    Raises
    ------
    UserError
        If it is not a store.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._spans: dict[tuple[str, int], list[tuple[FileSpan, str]]] = defaultdict(list)
        self._pretrained: dict[str, str] = {}  # by context
        self._texts: dict[str, TokenTexts | None] = {}
        self.n_added = self.n_missing = 0
        for path in store_files(folder):
            for line in read_lines(path):
                try:
                    kind, name, value = checked_line(line.data)
                except (KeyError, TypeError, ValueError):
                    continue
                if kind == "context":
                    self._pretrained[name] = str(value["about"].get("pretrained"))
                elif kind == "key":
                    span = FileSpan(path, line.offset, len(line.data))
                    self._spans[value["prompt"], value["attempt"]].append((span, value["context"]))

    def add(self, sample: dict[str, Any]) -> None:
        """Add the sources to the attempts of a sample, those that the store has.

        Parameters
        ----------
        sample
            As read from a sample file; its attempts are changed.
        """
        prompt = digest("prompt", asked(sample)[1])
        for details, text in zip(sample["attempts"], sample["resps"][0], strict=False):
            found = self._find(prompt, details, text)
            if found is None:
                self.n_missing += 1
                continue
            self.n_added += 1
            generation, context = found
            details.update({**attempt_summary(generation.record), **details})
            texts = self._token_texts(context)
            if texts is not None:
                answer = answer_tokens(texts, generation)
                record = replace(generation.record, answer=answer)
                sure = graded_answer_logprob(record, details.get("answer"))
                if sure is not None:
                    details["answer_logprob"] = sure

    def report(self, samples: Path) -> None:
        """Say how many attempts of a task the store lacks, and begin to count again.

        Raises
        ------
        UserError
            If it has none of them.
        """
        if not self.n_added:
            raise UserError(
                f"--store={self._folder}: holds none of the attempts of {samples.name}; give the "
                "store= of that run"
            )
        if self.n_missing:
            n = self.n_missing + self.n_added
            logger.warning("--store lacks %d of %d attempts of %s", self.n_missing, n, samples.name)
        self.n_added = self.n_missing = 0

    def _find(
        self, prompt: str, details: AttemptDetails, text: Any
    ) -> tuple[Generation, str] | None:
        """Return the stored attempt with this text and log-probability, and its context."""
        for span, context in self._spans.get((prompt, details["attempt"]), ()):
            with span.path.open("rb") as file:
                file.seek(span.offset)
                value = decode_line(file.read(span.length))[2]
            generation = decode_generation(value["record"])
            if str(generation) != text or generation.record.statistics is None:
                continue
            mean = attempt_summary(generation.record)["mean_logprob"]
            if math.isclose(mean, details.get("mean_logprob", mean), abs_tol=1e-6):
                thought = _thought(details)
                record = replace(generation.record, thought=thought)
                return Generation(str(generation), record), context
        return None

    def _token_texts(self, context: str) -> TokenTexts | None:
        """Return the texts of the tokens of a context's model; None without its tokenizer."""
        name = self._pretrained.get(context, "an unknown model")
        if name not in self._texts:
            from transformers import AutoTokenizer

            try:
                tokenizer = AutoTokenizer.from_pretrained(model_location(name))
                self._texts[name] = TokenTexts(tokenizer)
            except (OSError, ValueError) as error:
                logger.warning("no tokenizer of %s (%s): answer_logprob is left out", name, error)
                self._texts[name] = None
        return self._texts[name]


def _thought(details: AttemptDetails) -> Thought | None:
    if "unfinished_thought" not in details:
        return None
    return Thought(
        not details["unfinished_thought"],
        details.get("n_thinking_tokens"),
        details.get("n_thinking_characters"),
    )

"""Let a model judge its own attempts, each right after it has ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from lm_eval_ext.engine.epilogue import FinishedAttempt
from lm_eval_ext.engine.request import AttemptRequest
from lm_eval_ext.methods.self_evaluation.confidence import Temperature, confidence
from lm_eval_ext.methods.self_evaluation.layout import SelfEvalLayout
from lm_eval_ext.models.generation import Generation

SOURCE = "self_eval"
"""Name of the probability among those of an attempt."""

UNTUNED = "self_eval_untuned"
"""Name, in ``extra``, of the probability at temperature 1 where another was set."""


class Judged(NamedTuple):
    """What is to be judged of an attempt."""

    asked: AttemptRequest
    response: str


Describe = Callable[[FinishedAttempt], "Judged | None"]
"""Says what is to be judged of a finished attempt; None leaves it for later."""


class SelfEvaluation:
    """Reads the question about each response after it, and turns logits into confidence.

    Parameters
    ----------
    layout
        Where the tokens stand.
    temperature
        Of the confidence, or None.

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

    def epilogue(self, describe: Describe) -> ResponseEpilogue:
        """Return what a decoder reads after its attempts.

        Parameters
        ----------
        describe
            Says what is to be judged of each.
        """
        return ResponseEpilogue(self, describe)

    def annotated(self, generation: Generation, readout: Sequence[float]) -> Generation:
        """Return an attempt with its confidence."""
        yes, no = readout
        untuned = confidence(yes, no)
        if self.temperature is None:
            return generation.annotated(probabilities={SOURCE: untuned})
        tuned = confidence(yes, no, self.temperature.value)
        return generation.annotated(probabilities={SOURCE: tuned}, extra={UNTUNED: untuned})

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


class ResponseEpilogue:
    """The template after responses; an `lm_eval_ext.engine.epilogue.Epilogue`."""

    def __init__(self, evaluation: SelfEvaluation, describe: Describe) -> None:
        self._evaluation = evaluation
        self._describe = describe
        # By request: where memory runs out, an attempt may be judged twice, and counts once.
        self._tallies: dict[AttemptRequest, dict[str, int]] = {}

    @property
    def readout_ids(self) -> tuple[int, ...]:
        """Tokens of the labels."""
        return self._evaluation.layout.label_ids

    def tally(self, request: AttemptRequest) -> dict[str, int]:
        """Return what an attempt adds to the counts, nothing where it was not judged."""
        return self._tallies.pop(request, {})

    def requests(self, finished: Sequence[FinishedAttempt]) -> list[AttemptRequest | None]:
        """Return what is read for each attempt."""
        layout = self._evaluation.layout
        judged = [self._describe(attempt) for attempt in finished]
        ids = iter(layout.response_ids([one.response for one in judged if one is not None]))
        requests: list[AttemptRequest | None] = []
        for attempt, one in zip(finished, judged, strict=True):
            if one is None:
                requests.append(None)
                continue
            response_ids = next(ids)
            request = layout.request(one.asked, response_ids)
            context = (*one.asked.private_ids, *response_ids)
            sampled = (*attempt.request.private_ids, *attempt.token_ids)
            self._tallies[attempt.request] = {
                "judged": 1,
                "retokenized": int(context != sampled[: len(context)]),
                "cut": int(request.shared_ids != one.asked.shared_ids),
            }
            requests.append(request)
        return requests

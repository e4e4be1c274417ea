"""What happens to attempts that have ended: a box is completed, the model judges its answer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from lm_eval_ext.checks import check_flag
from lm_eval_ext.engine.epilogue import Epilogue, FinishedAttempt
from lm_eval_ext.engine.request import AttemptRequest, AttemptResult
from lm_eval_ext.engine.sampling_settings import SamplingSettings
from lm_eval_ext.engine.stop_strings import StopStrings
from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.self_evaluation.box_completion import (
    LEAD_IN,
    MAX_NEW_TOKENS,
    BoxCompletion,
    OpenAttempt,
    has_closed_box,
    joined,
)
from lm_eval_ext.methods.self_evaluation.confidence import Temperature, read_temperature
from lm_eval_ext.methods.self_evaluation.judging import (
    Describe,
    Judged,
    ResponseEpilogue,
    SelfEvaluation,
)
from lm_eval_ext.methods.self_evaluation.layout import SelfEvalLayout
from lm_eval_ext.methods.self_evaluation.template import SelfEvalTemplate, read_template
from lm_eval_ext.models.generation import Generation
from lm_eval_ext.models.thoughts import ThoughtTags

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


class Decode(Protocol):
    """Samples attempts."""

    def __call__(
        self,
        requests: Sequence[AttemptRequest],
        settings: SamplingSettings,
        stop: StopStrings,
        epilogue: Epilogue | None,
    ) -> Iterator[tuple[int, AttemptResult]]:
        """Yield (place, result) in any order."""


class Texts(NamedTuple):
    """Two readings of generated tokens, both without the end of sequence and the stop string.

    Each takes the tokens and the tags of the thought that the prompt leaves open.

    Parameters
    ----------
    visible
        What is graded.
    response
        What the model wrote, its thinking included.
    """

    visible: Callable[[Sequence[int], ThoughtTags | None], str]
    response: Callable[[Sequence[int], ThoughtTags | None], str]


class Concluded(NamedTuple):
    """An attempt with which nothing more happens.

    Parameters
    ----------
    place
        Place of its request.
    result
        What was generated.
    text
        The visible text, a completed box included.
    tally
        What the attempt adds to the counts; see `Conclusion.count`.
    """

    place: int
    result: AttemptResult
    text: str
    tally: dict[str, dict[str, int]]


class ConclusionSettings(NamedTuple):
    """What a model's arguments say.

    Parameters
    ----------
    template
        The question about an attempt, or None where attempts are not judged.
    temperature
        Of the confidence, or None.
    completes_boxes
        Whether boxes are completed.
    """

    template: SelfEvalTemplate | None
    temperature: Temperature | None
    completes_boxes: bool


def read_conclusion(
    self_eval: object,
    *,
    prompt: str | None = None,
    labels: str | Sequence[str] | None = None,
    temperature: float | str | Path | None = None,
    box_completion: object = False,
) -> ConclusionSettings:
    """Read the arguments of a model.

    Parameters
    ----------
    self_eval
        Whether the model judges its attempts.
    prompt, labels
        See `lm_eval_ext.methods.self_evaluation.template.read_template`.
    temperature
        See `lm_eval_ext.methods.self_evaluation.confidence.read_temperature`.
    box_completion
        Whether boxes are completed.

    Raises
    ------
    UserError
        For a value that cannot be, or one that would have no effect.
    """
    check_flag("self_eval", self_eval)
    check_flag("box_completion", box_completion)
    if self_eval:
        template = read_template(prompt, labels)
        return ConclusionSettings(template, read_temperature(temperature), bool(box_completion))
    stated = {
        "self_eval_prompt": prompt,
        "self_eval_labels": labels,
        "calibration_temperature": temperature,
    }
    for name, value in stated.items():
        if value is not None:
            raise UserError(f"{name}={value!r} has no effect without self_eval=true: add it")
    return ConclusionSettings(None, None, bool(box_completion))


class Conclusion:
    """Concludes the attempts of a model.

    Attributes
    ----------
    evaluation
        Judges attempts, or None.
    boxes
        Completes boxes, or None.

    Raises
    ------
    UserError
        If the template or its labels do not fit the tokenizer.
    """

    def __init__(
        self, settings: ConclusionSettings, tokenizer: PreTrainedTokenizerBase, *, max_length: int
    ) -> None:
        self.evaluation: SelfEvaluation | None = None
        self.boxes: BoxCompletion | None = None
        if settings.template is not None:
            layout = SelfEvalLayout(tokenizer, settings.template, max_length=max_length)
            self.evaluation = SelfEvaluation(layout, settings.temperature)
        if settings.completes_boxes:
            self.boxes = BoxCompletion(tokenizer, max_length=max_length)

    def run(
        self,
        decode: Decode,
        requests: Sequence[AttemptRequest],
        settings: SamplingSettings,
        stop: StopStrings,
        texts: Texts,
    ) -> Iterator[Concluded]:
        """Sample attempts and conclude each."""
        without_box: list[OpenAttempt] = []

        def judged(attempt: FinishedAttempt) -> Judged | None:
            ids, opened = attempt.token_ids, attempt.request.opened
            if self.boxes is not None and self._has_open_box(texts.visible(ids, opened)):
                return None  # until there is one
            return Judged(attempt.request, texts.response(ids, opened))

        epilogue = self._epilogue(judged)
        for place, result in decode(requests, settings, stop, epilogue):
            ids, opened = result.token_ids, requests[place].opened
            text = texts.visible(ids, opened)
            if self._has_open_box(text):
                response = texts.response(ids, opened)
                without_box.append(OpenAttempt(place, requests[place], result, response, text))
            else:
                tally = self._tally(epilogue, requests[place])
                yield Concluded(place, result, text, tally)
        if self.boxes is not None:
            yield from self._complete(decode, without_box, settings, self.boxes)

    def _complete(
        self,
        decode: Decode,
        opened: list[OpenAttempt],
        settings: SamplingSettings,
        boxes: BoxCompletion,
    ) -> Iterator[Concluded]:
        if not opened:
            return
        requests = [boxes.request(attempt) for attempt in opened]
        attempt_of = dict(zip(requests, opened, strict=True))

        def judged(finished: FinishedAttempt) -> Judged:
            first = attempt_of[finished.request]
            return Judged(first.asked, first.response + boxes.added_text(finished.token_ids))

        few = replace(settings, max_new_tokens=MAX_NEW_TOKENS, stop=("}",), thinking_budget=None)
        epilogue = self._epilogue(judged)
        for place, result in decode(requests, few, boxes.stop, epilogue):
            first = opened[place]
            closed = result.finish_reason == "stop"
            tally = self._tally(epilogue, requests[place], completed=1, closed=int(closed))
            text = first.text + boxes.added_text(result.token_ids)
            yield Concluded(first.place, joined(first.result, result), text, tally)

    def _has_open_box(self, text: str) -> bool:
        return self.boxes is not None and not has_closed_box(text)

    def _tally(
        self,
        epilogue: ResponseEpilogue | None,
        request: AttemptRequest,
        *,
        completed: int = 0,
        closed: int = 0,
    ) -> dict[str, dict[str, int]]:
        tally: dict[str, dict[str, int]] = {}
        if epilogue is not None:
            tally["self_evaluation"] = epilogue.tally(request)
        if self.boxes is not None:
            tally["box_completion"] = {"attempts": 1, "completed": completed, "closed": closed}
        return tally

    def count(self, tally: Mapping[str, Mapping[str, int]]) -> None:
        """Count an attempt; kept with it, its tally is the same when it is read from a store."""
        if self.evaluation is not None:
            self.evaluation.counts.update(tally["self_evaluation"])
        if self.boxes is not None:
            self.boxes.counts.update(tally["box_completion"])

    def settings(self) -> dict[str, Any]:
        """Return what decides texts and confidences, without the counts."""
        settings: dict[str, Any] = {}
        if self.evaluation is not None:
            template = self.evaluation.layout.template
            temperature = self.evaluation.temperature
            settings["self_evaluation"] = {
                "prompt": template.prompt,
                "labels": list(template.labels),
                "template_ids": list(self.evaluation.layout.template_ids),
                "temperature": None if temperature is None else temperature.value,
            }
        if self.boxes is not None:
            settings["box_completion"] = {"lead_in": LEAD_IN, "max_new_tokens": MAX_NEW_TOKENS}
        return settings

    def report(self) -> None:
        """Say what there was to say about the attempts so far."""
        if self.boxes is not None:
            self.boxes.report()

    def _epilogue(self, describe: Describe) -> ResponseEpilogue | None:
        return None if self.evaluation is None else self.evaluation.epilogue(describe)

    def annotated(self, generation: Generation, result: AttemptResult) -> Generation:
        """Return an attempt with what its conclusion says about it."""
        if self.evaluation is None or result.readout is None:
            return generation
        return self.evaluation.annotated(generation, result.readout)

    def record(self) -> dict[str, Any]:
        """Return the settings and counts, for the record of the run."""
        record: dict[str, Any] = {}
        if self.evaluation is not None:
            record["self_evaluation"] = self.evaluation.record()
        if self.boxes is not None:
            record["box_completion"] = self.boxes.record()
        return record

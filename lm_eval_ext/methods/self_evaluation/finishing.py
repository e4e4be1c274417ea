"""What happens to attempts that have ended: a box is completed, the model judges its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lm_eval_ext.checks import check_flag
from lm_eval_ext.engine.attempt_texts import response_text, visible_text, with_thought
from lm_eval_ext.engine.follow_up import FinishedAttempt
from lm_eval_ext.engine.request import AttemptRequest, AttemptResult
from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.self_evaluation.box_completion import (
    BoxCompletion,
    has_closed_box,
    joined,
)
from lm_eval_ext.methods.self_evaluation.confidence import (
    SelfEvaluation,
    Temperature,
    read_temperature,
)
from lm_eval_ext.methods.self_evaluation.layout import SelfEvalLayout
from lm_eval_ext.methods.self_evaluation.template import SelfEvalTemplate, read_template
from lm_eval_ext.models.generation import Generation
from lm_eval_ext.store.sampling_group import Sampled, SamplingGroup

if TYPE_CHECKING:
    from lm_eval.models.huggingface import HFLM
    from transformers import PreTrainedTokenizerBase


class FinisherSettings(NamedTuple):
    """The arguments of a model, read; without a template attempts are not judged."""

    template: SelfEvalTemplate | None = None
    temperature: Temperature | None = None
    completes_boxes: bool = False


def read_finisher_settings(
    *,
    self_eval: object,
    self_eval_prompt: str | None = None,
    self_eval_labels: str | Sequence[str] | None = None,
    calibration_temperature: float | str | Path | None = None,
    box_completion: object = False,
) -> FinisherSettings:
    """Read the arguments of a model; see `lm_eval_ext.model_wrappers.attempt_sampling`.

    Raises
    ------
    UserError
        For a value that cannot be, or one that would have no effect.
    """
    check_flag("self_eval", self_eval)
    check_flag("box_completion", box_completion)
    if self_eval:
        template = read_template(self_eval_prompt, self_eval_labels)
        temperature = read_temperature(calibration_temperature)
        return FinisherSettings(template, temperature, bool(box_completion))
    without_effect = {
        "self_eval_prompt": self_eval_prompt,
        "self_eval_labels": self_eval_labels,
        "calibration_temperature": calibration_temperature,
    }
    for name, value in without_effect.items():
        if value is not None:
            raise UserError(f"{name}={value!r} has no effect without self_eval=true: add it")
    return FinisherSettings(completes_boxes=bool(box_completion))


class AttemptFinisher:
    """Finishes the attempts of a model: judges them, completes their boxes, and counts both.

    Raises
    ------
    UserError
        If the template or its labels do not fit the tokenizer.
    """

    def __init__(
        self, settings: FinisherSettings, tokenizer: PreTrainedTokenizerBase, *, max_length: int
    ) -> None:
        self.evaluation: SelfEvaluation | None = None
        self.boxes: BoxCompletion | None = None
        if settings.template is not None:
            layout = SelfEvalLayout(tokenizer, settings.template, max_length=max_length)
            self.evaluation = SelfEvaluation(layout, settings.temperature)
        if settings.completes_boxes:
            self.boxes = BoxCompletion(tokenizer, max_length=max_length)
        parts = {"self_evaluation": self.evaluation, "box_completion": self.boxes}
        self._parts = {name: part for name, part in parts.items() if part is not None}

    def count(self, tally: Mapping[str, Mapping[str, int]]) -> None:
        """Count an attempt; kept with it, its tally is the same when it is read from a store."""
        for name, part in self._parts.items():
            part.counts.update(tally[name])

    def report(self) -> None:
        """Say how many boxes were completed so far."""
        if self.boxes is not None:
            self.boxes.report()

    def key_settings(self) -> dict[str, Any]:
        """Return what decides texts and confidences, for the keys of a store."""
        return {name: part.key_settings() for name, part in self._parts.items()}

    def record(self) -> dict[str, Any]:
        """Return the settings and counts, for the record of the run."""
        return {name: part.record() for name, part in self._parts.items()}


@dataclass(frozen=True)
class _OpenBox:
    """An attempt without a closed box.

    `response` is all that it wrote, `text` the part of it that is graded.
    """

    index: int
    result: AttemptResult
    response: str
    text: str


class GroupFinisher:
    """Finishes the attempts of a group: takes results, and returns attempts with annotations.

    It is an `lm_eval_ext.engine.follow_up.FollowUp` too: the engine asks it what to read after an
    attempt, while the attempt's cache is there, and the result brings the logits along.
    """

    def __init__(self, finisher: AttemptFinisher, lm: HFLM, group: SamplingGroup) -> None:
        self._evaluation, self._boxes = finisher.evaluation, finisher.boxes
        self._lm, self._group = lm, group
        self._completions: dict[AttemptRequest, _OpenBox] = {}
        # By request: where memory runs out, an attempt may be judged twice, and counts once.
        self._judged: dict[AttemptRequest, dict[str, int]] = {}

    @property
    def follow_up(self) -> GroupFinisher | None:
        """What the engine is to read after attempts, or None where they are not judged."""
        return None if self._evaluation is None else self

    @property
    def readout_ids(self) -> tuple[int, ...]:
        """Tokens of the labels."""
        assert self._evaluation is not None
        return self._evaluation.layout.label_ids

    def requests(self, finished: Sequence[FinishedAttempt]) -> list[AttemptRequest | None]:
        """Return what the model reads to judge attempts; None for one whose box is open."""
        assert self._evaluation is not None
        responses = [self._response(attempt) for attempt in finished]
        ids = iter(
            self._evaluation.layout.response_ids([text for text in responses if text is not None])
        )
        return [
            None if text is None else self._question(attempt, next(ids))
            for attempt, text in zip(finished, responses, strict=True)
        ]

    def _response(self, finished: FinishedAttempt) -> str | None:
        """Return the text to judge, without end-of-sequence token and stop string."""
        ids, request, stop = finished.token_ids, finished.request, self._group.settings.stop
        if self._boxes is not None:
            if request in self._completions:
                return self._completions[request].response + self._boxes.added_text(ids)
            if not has_closed_box(visible_text(self._lm, ids, stop, request.opened)):
                return None
        return response_text(self._lm, ids, stop, request.opened)

    def _question(self, finished: FinishedAttempt, response_ids: Sequence[int]) -> AttemptRequest:
        assert self._evaluation is not None
        request, first = finished.request, self._completions.get(finished.request)
        asked = request if first is None else self._group.attempts[first.index]
        question = self._evaluation.layout.request(asked, response_ids)
        read = (*asked.private_ids, *response_ids)
        sampled = (*request.private_ids, *finished.token_ids)
        self._judged[request] = {
            "judged": 1,
            "retokenized": int(read != sampled[: len(read)]),
            "cut": int(question.shared_ids != asked.shared_ids),
        }
        return question

    def finish(self, index: int, result: AttemptResult) -> Sampled | None:
        """Return an attempt of the group; None where its box is open, see `completions`."""
        request, stop = self._group.attempts[index], self._group.settings.stop
        text = visible_text(self._lm, result.token_ids, stop, request.opened)
        if self._boxes is not None and not has_closed_box(text):
            response = response_text(self._lm, result.token_ids, stop, request.opened)
            box = _OpenBox(index, result, response, text)
            self._completions[self._boxes.request(request, response)] = box
            return None
        return self._finished(index, result, text, request)

    def completions(self) -> list[AttemptRequest]:
        """Return the requests that complete the open boxes."""
        return list(self._completions)

    def complete(self, request: AttemptRequest, result: AttemptResult) -> Sampled:
        """Return an attempt with what followed the lead-in; `request` is of `completions`."""
        assert self._boxes is not None
        first = self._completions[request]
        text = first.text + self._boxes.added_text(result.token_ids)
        closed = result.finish_reason == "stop"
        whole = joined(first.result, result)
        return self._finished(first.index, whole, text, request, completed=1, closed=closed)

    def _finished(
        self,
        index: int,
        result: AttemptResult,
        text: str,
        judged: AttemptRequest,
        *,
        completed: int = 0,
        closed: int = 0,
    ) -> Sampled:
        generation = Generation(text, self._group.record(index, result))
        generation = with_thought(self._lm, generation, self._group.attempts[index].opened)
        tally: dict[str, dict[str, int]] = {}
        if self._evaluation is not None:
            tally["self_evaluation"] = self._judged.pop(judged, {})
            if result.readout is not None:
                generation = self._evaluation.annotated(generation, result.readout)
        if self._boxes is not None:
            counts = {"attempts": 1, "completed": completed, "closed": int(closed)}
            tally["box_completion"] = counts
        return Sampled(index, generation, tally)

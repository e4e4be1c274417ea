"""Phase ``generate``: the current model answers its problems.

Every attempt draws from its own random stream, keyed by the round's seed. Attempts are made in
batches that are always the same ones: a batch that a kill interrupted is made again as a whole and
only what is missing of it is written, so the files are those of an unbroken run.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tqdm import tqdm

from lm_eval_ext.engine import attempt_texts
from lm_eval_ext.errors import UserError
from lm_eval_ext.harness import requests as harness
from lm_eval_ext.methods.self_evaluation.box_completion import LEAD_IN
from lm_eval_ext.models.generation import Generation
from lm_eval_ext.models.thoughts import ThoughtTags
from lm_eval_ext.store.lines import drop_unfinished_line
from lm_eval_ext.training.run import write_json
from lm_eval_ext.training.self_training.folders import Stage, read_attempts
from lm_eval_ext.training.self_training.models import load_generator
from lm_eval_ext.training.self_training.problems import TrainingProblem, read_problems
from lm_eval_ext.training.self_training.settings import SelfTraining, SelfTrainingRuntime
from lm_eval_ext.training.self_training.taken_attempts import TakenAttempts

if TYPE_CHECKING:
    from lm_eval.models.huggingface import HFLM

logger = logging.getLogger(__name__)


class Limits(NamedTuple):
    """What attempts must have in common to be sampled together."""

    completes_boxes: bool
    stop: tuple[str, ...]
    max_new_tokens: int


class Batch(NamedTuple):
    """Problems that are answered in one call."""

    limits: Limits
    problems: list[TrainingProblem]


def batches(
    problems: Iterable[TrainingProblem], n_attempts: int, attempts_per_batch: int
) -> list[Batch]:
    """Divide problems into batches, those that complete boxes last."""
    alike: dict[Limits, list[TrainingProblem]] = defaultdict(list)
    for problem in problems:
        limits = Limits(problem.completes_boxes, problem.stop, problem.max_new_tokens)
        alike[limits].append(problem)
    size = max(1, attempts_per_batch // n_attempts)
    return [
        Batch(limits, group[start : start + size])
        for limits, group in sorted(alike.items(), key=lambda item: item[0].completes_boxes)
        for start in range(0, len(group), size)
    ]


def generate(run: SelfTraining, stage: Stage, runtime: SelfTrainingRuntime) -> None:
    """Make the attempts of a stage that are not there yet, in all processes of the launch.

    Raises
    ------
    UserError
        For a generator that lm-eval does not know or that returns plain text, and as its model.
    """
    from lm_eval_ext.training.processes import join_processes

    processes = join_processes()
    stage.folder.mkdir(parents=True, exist_ok=True)
    own = stage.folder / f"attempts-{processes.rank}.jsonl"
    drop_unfinished_line(own, what="its attempt")
    n_attempts = run.sampling.attempts
    problems = list(read_problems(stage.output, held_out=stage.held_out))
    todo = batches(problems, n_attempts, runtime.attempts_per_save)[processes.rank :: processes.n]
    # Before anyone writes, all must have seen the same.
    known = {(line["problem"], line["attempt"]) for line in read_attempts(stage)}
    processes.wait()
    facts: dict[str, Any] = {}
    lm: HFLM | None = None
    total = sum(len(batch.problems) for batch in todo) * n_attempts
    with (
        own.open("a", encoding="utf-8") as file,
        tqdm(
            total=total, desc=f"Attempts, {stage.name}", unit="attempt", disable=processes.rank > 0
        ) as progress,
    ):
        for completes_boxes in (False, True):
            mine = [batch for batch in todo if batch.limits.completes_boxes == completes_boxes]
            if not mine:
                continue
            lm = None  # one model at a time
            lm = load_generator(
                run, stage, runtime, completes_boxes=completes_boxes, device=processes.device
            )
            facts = _facts(lm, stage)
            taken = _taken(run, stage, runtime, problems, facts)
            for batch in mine:
                keys = {(p.number, i) for p in batch.problems for i in range(n_attempts)}
                if not keys <= known:
                    for line in _answer(lm, batch, run) if taken is None else taken(lm, batch):
                        if (line["problem"], line["attempt"]) not in known:
                            file.write(json.dumps(line, ensure_ascii=False) + "\n")
                    file.flush()
                progress.update(len(keys))
    processes.wait()
    if processes.rank == 0:
        write_json(stage.report("generate"), {**_counts(stage), **facts})


def _taken(
    run: SelfTraining,
    stage: Stage,
    runtime: SelfTrainingRuntime,
    problems: Sequence[TrainingProblem],
    facts: Mapping[str, Any],
) -> Callable[[HFLM, Batch], Iterator[dict[str, Any]]] | None:
    """Return what stands in for sampling where the first round takes its attempts from a folder."""
    if runtime.attempts_from is None or stage.number > 1 or stage.held_out:
        return None
    found = TakenAttempts(Path(runtime.attempts_from), run, problems)
    found.check_model(run, facts["fingerprint"])

    def lines(lm: HFLM, batch: Batch) -> Iterator[dict[str, Any]]:
        for problem in batch.problems:
            yield from found.at(problem, harness.prompt_tokens(lm, problem.prompt))

    return lines


def _answer(lm: HFLM, batch: Batch, run: SelfTraining) -> Iterator[dict[str, Any]]:
    limits, n = batch.limits, run.sampling.attempts
    asked = [problem for problem in batch.problems for _ in range(n)]
    generations = harness.complete(
        lm,
        [problem.prompt for problem in asked],
        until=list(limits.stop),
        max_gen_toks=limits.max_new_tokens,
        **run.sampling.generation_kwargs(),
    )
    for i, (problem, generation) in enumerate(zip(asked, generations, strict=True)):
        if not isinstance(generation, Generation):
            raise UserError(
                f"generator={run.sampling.generator} returns plain text: use sampled, or another "
                "of this package's models"
            )
        yield _line(lm, problem, i % n, generation, limits)


def _line(
    lm: HFLM, problem: TrainingProblem, attempt: int, generation: Generation, limits: Limits
) -> dict[str, Any]:
    record = generation.record
    line: dict[str, Any] = {"problem": problem.number, "attempt": attempt, "text": str(generation)}
    opened = attempt_texts.open_thought(lm, problem.prompt)
    visible = attempt_texts.visible_text(lm, record.token_ids, limits.stop, opened)
    # The lead-in is in the text and not among the tokens.
    completed = limits.completes_boxes and line["text"] != visible
    response = response_text(lm, generation, limits.stop, opened, completed=completed)
    if response != line["text"]:
        line["response"] = response
    line["finish_reason"] = record.finish_reason
    if record.thought is not None:
        line["thought"] = record.thought._asdict()
    line["n_tokens"] = record.n_tokens
    line["box_completed"] = completed
    line["n_cut_prompt_tokens"] = record.n_truncated_prompt_tokens
    if attempt == 0:
        prompt_ids = harness.prompt_tokens(lm, problem.prompt)
        line["prompt_ids"] = prompt_ids[-record.n_prompt_tokens :]
    if record.probabilities:
        line["probabilities"] = dict(record.probabilities)
    return line


def response_text(
    lm: HFLM,
    generation: Generation,
    stop: Sequence[str],
    opened: ThoughtTags | None,
    *,
    completed: bool,
) -> str:
    """Return what the model wrote, its thinking included: the text it judges."""
    visible = str(generation)
    if getattr(lm, "think_end_token", None) is None:
        return visible
    written = attempt_texts.response_text(lm, generation.record.token_ids, list(stop), opened)
    if not completed:
        return written
    before, _, inside = visible.rpartition(LEAD_IN)
    end = written.rfind(before) + len(before)
    return written[:end] + LEAD_IN + inside


def _facts(lm: HFLM, stage: Stage) -> dict[str, Any]:
    facts: dict[str, Any] = {"max_length": int(lm.max_length), "fingerprint": _fingerprint(lm)}
    if stage.held_out:
        evaluation = dict(lm.run_record().get("self_evaluation", {}))
        evaluation.pop("attempts", None)  # of this process only
        facts["self_evaluation"] = evaluation
    return facts


def _fingerprint(lm: HFLM) -> str | None:
    """Return what changes when the model's weights do, or None where an engine keeps them."""
    from transformers import PreTrainedModel

    from lm_eval_ext.models.fingerprint import model_fingerprint

    known: str | None = getattr(lm, "fingerprints", {}).get("model")
    if known is None and isinstance(lm.model, PreTrainedModel):
        return model_fingerprint(lm.model)
    return known


def _counts(stage: Stage) -> dict[str, int]:
    counts = dict.fromkeys(("sampled", "truncated", "box_completed", "prompt_cut"), 0)
    for line in read_attempts(stage):
        counts["sampled"] += 1
        counts["truncated"] += line["finish_reason"] == "length"
        counts["box_completed"] += line["box_completed"]
        counts["prompt_cut"] += line["n_cut_prompt_tokens"] > 0
    return counts

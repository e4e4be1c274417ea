"""The measurements of the study of drafts: prompts, responses, drafts, scores and cost.

Everything is kept in files of the study's folder; what is there is not made again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm
from transformers import AutoModelForCausalLM

from lm_eval_ext.engine.packed import ForcedAttempt
from lm_eval_ext.grading import grade
from lm_eval_ext.harness import requests as harness
from lm_eval_ext.methods.epistemic.drafts import draft_names, load_drafts
from lm_eval_ext.methods.epistemic.forced_model import ForcedModel
from lm_eval_ext.methods.epistemic.reference import AttemptKey, TokurReference
from lm_eval_ext.methods.epistemic.response_scoring import FinishedAttempt, ResponseScorer
from lm_eval_ext.methods.epistemic.weight_perturbation import WeightPerturbation
from lm_eval_ext.model_wrappers.sampled import SampledLM
from lm_eval_ext.training.drafts.distillation import collate, distillation_loss, response_logits
from lm_eval_ext.training.drafts.draft_job import train_drafts
from lm_eval_ext.training.drafts.settings import DraftJob
from lm_eval_ext.training.drafts.target_responses import Example
from lm_eval_ext.training.options import RuntimeOptions
from lm_eval_ext.training.prompts import load_problems
from lm_eval_ext.training.run import write_json

FloatArray = NDArray[np.float64]
CHUNK = 64
"""Responses scored between saves, and sampled at four to a question."""


class Question(NamedTuple):
    """A question as the target reads it.

    Parameters
    ----------
    prompt
        With its examples.
    record
        What it is graded by.
    """

    prompt: str
    record: dict[str, Any]


class Sampled(NamedTuple):
    """The target's responses, in one order.

    Parameters
    ----------
    attempts
        What was read and written.
    question
        Number of the question of each response, shape (n_responses,).
    correct
        Whether each is right.
    entropy, surprise
        Of the target at every token, shape (n_tokens,), nats.
    """

    attempts: list[FinishedAttempt]
    question: NDArray[np.int64]
    correct: NDArray[np.bool_]
    entropy: FloatArray
    surprise: FloatArray

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each response."""
        return np.array([len(one.forced.response_ids) for one in self.attempts])

    def first(self, n: int) -> Sampled:
        """Return the first responses."""
        n_tokens = int(self.lengths[:n].sum())
        return Sampled(
            self.attempts[:n],
            self.question[:n],
            self.correct[:n],
            self.entropy[:n_tokens],
            self.surprise[:n_tokens],
        )


def once(path: Path, compute: Callable[[], Any]) -> Any:
    """Return what an earlier run wrote, or compute and write it."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, compute())
    return json.loads(path.read_text(encoding="utf-8"))


def arrays_once(path: Path, compute: Callable[[], dict[str, FloatArray]]) -> dict[str, FloatArray]:
    """Do the same with arrays."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".writing.npz")
        np.savez(scratch, **compute())  # type: ignore[arg-type]
        scratch.rename(path)
    with np.load(path) as kept:
        return dict(kept)


def questions_of(task: str, limit: int | None, shots: int) -> list[Question]:
    """Return the rendered questions of an lm-eval task, each prompt once.

    Parameters
    ----------
    task
        Its name.
    limit
        Most questions.
    shots
        Solved examples before each, where the task has some.
    """
    from lm_eval.tasks import TaskManager

    loaded = next(iter(TaskManager().load([task])["tasks"].values()))
    if loaded.get_config("num_fewshot"):
        loaded.set_config(key="num_fewshot", value=shots)
    loaded.build_all_requests(limit=limit)
    found = {str(one.args[0]): Question(str(one.args[0]), one.doc) for one in loaded.instances}
    return list(found.values())


def training_questions(
    tasks: str, shots: int, n: int, held_out: int
) -> tuple[list[str], list[Question]]:
    """Return the prompts to learn from, and other questions for held-out figures.

    Parameters
    ----------
    tasks
        Tasks of training questions, joined by ``+``; "" for the shipped model's own. The held-out
        ones are of the first, whose kind is judged on.
    shots
        As for `questions_of`.
    n
        Most prompts of each task.
    held_out
        Questions held out.
    """
    if not tasks:
        problems = load_problems("tiny_gsm8k:train", limit=n + held_out)
        generated = [Question(one.prompt, dict(one.record or {})) for one in problems]
        return [one.prompt for one in generated[:n]], generated[n:]
    found = [questions_of(task, None, shots) for task in tasks.split("+")]
    apart, found[0] = found[0][:held_out], found[0][held_out:]
    return [one.prompt for part in found for one in part[:n]], apart


def sample(
    lm: SampledLM, folder: Path, questions: Sequence[Question], n: int, **settings: Any
) -> Sampled:
    """Let the target respond N times to each question, saving after every few questions.

    Parameters
    ----------
    lm
        The target.
    folder
        Of the responses.
    questions
        What is asked.
    n
        Responses to each.
    **settings
        As a task's ``generation_kwargs``.
    """

    def respond(asked: Sequence[Question]) -> list[dict[str, Any]]:
        prompts = [question.prompt for question in asked for _ in range(n)]
        rows = []
        for place, text in enumerate(harness.complete(lm, prompts, **settings)):
            record, question = text.record, asked[place // n]
            rows.append(
                {
                    "attempt": record.attempt,
                    "text": str(text),
                    "token_ids": list(record.token_ids),
                    "correct": bool(grade("gsm8k", text, question.record).correct),
                    "entropy": np.asarray(record.statistics.entropy, dtype=float).tolist(),
                    "surprise": (-np.asarray(record.statistics.log_prob, dtype=float)).tolist(),
                }
            )
        return rows

    rows: list[tuple[int, dict[str, Any]]] = []
    for start in tqdm(range(0, len(questions), CHUNK // 4), desc=f"{folder.name}: responses"):
        asked = questions[start : start + CHUNK // 4]
        found = once(folder / f"{start:05d}.json", lambda asked=asked: respond(asked))  # type: ignore[misc]
        rows += [(start + place // n, row) for place, row in enumerate(found)]
    # By attempt, so that any first part of them holds as many questions as it can.
    rows = sorted((row for row in rows if row[1]["token_ids"]), key=lambda row: row[1]["attempt"])
    ids = [tuple(lm.prompt_token_ids(question.prompt)) for question in questions]
    return Sampled(
        [
            FinishedAttempt(
                ForcedAttempt(ids[number], tuple(row["token_ids"])),
                AttemptKey(questions[number].prompt, row["attempt"]),
            )
            for number, row in rows
        ],
        np.array([number for number, _ in rows]),
        np.array([row["correct"] for _, row in rows]),
        np.concatenate([row["entropy"] for _, row in rows]),
        np.concatenate([row["surprise"] for _, row in rows]),
    )


def score(
    lm: SampledLM,
    sampled: Sampled,
    folder: Path,
    drafts: Path | None = None,
    reference: TokurReference | None = None,
) -> dict[str, FloatArray]:
    """Return the scores of every response token, saving after every few responses.

    Parameters
    ----------
    lm
        The target.
    sampled
        Its responses.
    folder
        Of the scores.
    drafts
        Folder of the drafts; None for a copy of the target, which costs nothing.
    reference
        Adds the reference uncertainty.
    """
    starts = range(0, len(sampled.attempts), CHUNK)
    paths = [folder / f"{start:05d}.npz" for start in starts]
    scorer = None
    if not all(path.exists() for path in paths):
        loaded = load_drafts(
            [lm.model] if drafts is None else str(drafts),
            target=lm.model,
            tokenizer=lm.tokenizer,
            device=lm.model.device,
            dtype=lm.model.dtype,
        )
        scorer = ResponseScorer(ForcedModel(lm.model), loaded, reference)

    def compute(start: int) -> dict[str, FloatArray]:
        assert scorer is not None
        part = sampled.attempts[start : start + CHUNK]
        found = dict(scorer.score(part))
        return {
            name: np.concatenate([found[i][name] for i in range(len(part))]) for name in found[0]
        }

    chunks = [
        arrays_once(path, lambda start=start: compute(start))  # type: ignore[misc]
        for path, start in tqdm(
            list(zip(paths, starts, strict=True)), desc=f"{folder.name}: scores"
        )
    ]
    return {
        name: np.concatenate([chunk[name] for chunk in chunks]).astype(np.float64)
        for name in chunks[0]
    }


def tokur(lm: SampledLM, samples: int, seed: int) -> TokurReference:
    """Return TokUR's reference of the target, at its own settings."""
    return TokurReference(
        ForcedModel(lm.model), WeightPerturbation(lm.model), samples=samples, seed=seed
    )


@torch.inference_mode()
def held_out_kl(
    lm: SampledLM, drafts: Path, attempts: Sequence[FinishedAttempt]
) -> list[list[float]]:
    """Return KL(target, draft) of each draft at responses it has not learned from, by response."""
    examples = [Example(one.forced.prompt_ids, one.forced.response_ids) for one in attempts]
    by_draft = []
    for name in draft_names(str(drafts)):
        draft = AutoModelForCausalLM.from_pretrained(name, dtype=lm.model.dtype)
        draft = draft.to(lm.model.device).eval()
        values = []
        for example in examples:
            batch = collate([example])
            probs = response_logits(lm.model, batch).float().softmax(dim=-1)
            logits = response_logits(draft, batch)
            width = min(probs.shape[-1], logits.shape[-1])
            values.append(float(distillation_loss(probs[:, :width], logits[:, :width])))
        by_draft.append(values)
    return by_draft


def train(job: DraftJob, folder: Path, responses: Path | None) -> None:
    """Train drafts, learning from the responses of an earlier training where there is one."""
    if (folder / "drafts.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    if responses is not None and responses != folder:
        for file in responses.glob("responses-*.jsonl"):
            if not (folder / file.name).exists():
                shutil.copy(file, folder / file.name)
    train_drafts(job, folder, RuntimeOptions(checkpoint_steps=20))
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def with_steps(job: DraftJob, steps: int, **changes: Any) -> DraftJob:
    """Return a job with other steps."""
    optimization = replace(job.optimization, steps=steps, warmup_steps=max(1, steps // 10))
    return replace(job, optimization=optimization, **changes)

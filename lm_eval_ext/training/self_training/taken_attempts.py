"""Attempts that were sampled before: by ``lm_eval --log_samples``, or by another training.

``--attempts-from FOLDER`` takes those of the first round from there, so that several trainings
learn from the same ones. They may have been sampled with another prompt, such as one with solved
examples, and by another model than the one that is trained.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval_ext.data.question_text import question_text
from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard.run_files import attempt_texts, newest_run, read_samples
from lm_eval_ext.training.run import SETTINGS
from lm_eval_ext.training.self_training.folders import Stage, read_attempts
from lm_eval_ext.training.self_training.problems import (
    TrainingProblem,
    read_problems,
    same_reference,
)
from lm_eval_ext.training.self_training.settings import SelfTraining

logger = logging.getLogger(__name__)


class Answered(NamedTuple):
    """A question and the attempts at it.

    Parameters
    ----------
    attempts
        As `lm_eval_ext.training.self_training.attempts` writes them; ``problem`` and the tokens of
        the prompt do not count.
    """

    question: str
    record: Mapping[str, Any]
    attempts: list[dict[str, Any]]


class TakenAttempts:
    """The attempts of a folder, checked against a run.

    Parameters
    ----------
    folder
        The ``--output_path`` of an lm_eval run, or the ``--output`` of a training, whose first
        round counts.

    Raises
    ------
    UserError
        For a folder that is neither, a problem without its number of attempts, another reference
        answer, seed or temperature than the run's, and thoughts in samples of lm_eval.
    """

    def __init__(
        self, folder: Path, run: SelfTraining, problems: Sequence[TrainingProblem]
    ) -> None:
        self.folder = folder
        read = _read_training if (folder / SETTINGS).is_file() else _read_lm_eval
        self.sampled_by, answered = read(folder)
        for name, asked in (("seed", run.seed), ("temperature", run.sampling.temperature)):
            if self.sampled_by[name] != asked:
                there = self.sampled_by[name]
                raise UserError(
                    f"attempts-from={folder}: sampled with {name}={there}, and this run has "
                    f"{asked}: give --{name} {there}, or other attempts"
                )
        by_question: dict[str, Answered] = {}
        for one in answered:
            by_question.setdefault(one.question, one)
        self._of_problem = {
            problem.number: self._attempts_at(problem, by_question, run.sampling.attempts)
            for problem in problems
            if not problem.held_out
        }
        if self.sampled_by["pretrained"] != run.pretrained:
            logger.warning(
                "attempts-from=%s: sampled by %s; training starts from %s",
                folder,
                self.sampled_by["pretrained"],
                run.pretrained,
            )

    def _attempts_at(
        self, problem: TrainingProblem, by_question: Mapping[str, Answered], n: int
    ) -> list[dict[str, Any]]:
        question = question_text(problem.record, otherwise=problem.prompt)
        found = by_question.get(question)
        shown = f"{question[:60]}..." if len(question) > 60 else question
        if found is None or len(found.attempts) != n:
            has = 0 if found is None else len(found.attempts)
            raise UserError(
                f"attempts-from={self.folder}: {has} attempts at the problem {shown!r}, and "
                f"--attempts is {n}: give the same problems and number of attempts"
            )
        if not same_reference(found.record, problem.record, problem.family):
            raise UserError(
                f"attempts-from={self.folder}: another reference answer to the problem {shown!r}: "
                "give the problems that were sampled"
            )
        return found.attempts

    def check_model(self, run: SelfTraining, fingerprint: str | None) -> None:
        """Refuse attempts that a model of the same name, but with other weights, has sampled.

        Parameters
        ----------
        fingerprint
            Of the model that its training starts from, or None where it is not known.
        """
        known = self.sampled_by["fingerprint"]
        differ = known is not None and fingerprint is not None and known != fingerprint
        if differ and self.sampled_by["pretrained"] == run.pretrained:
            raise UserError(
                f"attempts-from={self.folder}: sampled by other weights than those that "
                f"{run.pretrained} now has: sample again, or name the model that sampled them"
            )

    def at(self, problem: TrainingProblem, prompt_ids: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Yield the attempts at a problem as lines of the run that takes them.

        Parameters
        ----------
        prompt_ids
            Tokens of its prompt, from which the run learns to answer.
        """
        for line in self._of_problem[problem.number]:
            kept = {name: value for name, value in line.items() if name != "prompt_ids"}
            first = {"prompt_ids": list(prompt_ids)} if line["attempt"] == 0 else {}
            yield {**kept, "problem": problem.number, **first}

    def record(self) -> dict[str, Any]:
        """Return what settings note of them: who sampled them and how, and a hash of all texts."""
        digest = hashlib.sha256()
        for number, lines in sorted(self._of_problem.items()):
            digest.update(json.dumps([number, [line["text"] for line in lines]]).encode())
        return {**self.sampled_by, "sha256": digest.hexdigest()}


def _read_training(folder: Path) -> tuple[dict[str, Any], Iterator[Answered]]:
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    stage = Stage(folder, 1)
    if not stage.report("generate").exists():
        raise UserError(
            f"attempts-from={folder}: its first round has not sampled all attempts: let it finish"
        )
    sampled_by = settings.get("attempts_from") or {
        "pretrained": settings["pretrained"],
        "generator": settings["generator"],
        "generator_args": settings["generator_args"],
        "fingerprint": stage.counts("generate").get("fingerprint"),
        "seed": settings["seed"],
        "temperature": settings["temperature"],
    }
    lines: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for line in read_attempts(stage):
        lines[line["problem"]].append(line)
    answered = (
        Answered(
            question_text(problem.record, otherwise=problem.prompt),
            problem.record,
            sorted(lines[problem.number], key=lambda line: int(line["attempt"])),
        )
        for problem in read_problems(folder, held_out=False)
        if problem.number in lines
    )
    return {name: value for name, value in sampled_by.items() if name != "sha256"}, answered


def _read_lm_eval(folder: Path) -> tuple[dict[str, Any], Iterator[Answered]]:
    files = newest_run(folder)
    config = files.results["config"]
    if len(files.samples) != 1 or "lm_eval_ext" not in config:
        raise UserError(
            f"attempts-from={folder}: give a run of one task by a wrapper of this package, such as "
            "--model sampled --tasks mawps_train_passn"
        )
    ((task, path),) = files.samples.items()
    arguments = dict(config["model_args"])
    own = {"pretrained", "store", "seed", "batch_size"}
    sampling = config["lm_eval_ext"]["sampling"][0]
    sampled_by = {
        "pretrained": arguments["pretrained"],
        "generator": config["model"],
        "generator_args": ",".join(f"{k}={v}" for k, v in arguments.items() if k not in own),
        "fingerprint": None,
        "task": task,
        "seed": config["lm_eval_ext"]["seed"],
        "temperature": sampling["temperature"],
        "top_k": sampling["top_k"],
        "top_p": sampling["top_p"],
    }
    return sampled_by, (_answered(sample, path) for sample in read_samples(path))


def _answered(sample: Mapping[str, Any], path: Path) -> Answered:
    details = sample.get("attempts") or []
    if any("unfinished_thought" in one for one in details) or not details:
        what = "attempts with thoughts" if details else "no attempts"
        raise UserError(
            f"attempts-from={path.parent}: {what}, which cannot be learned from samples of lm_eval"
        )
    lines = [
        {
            "attempt": i,
            "text": text,
            "finish_reason": one["finish_reason"],
            "n_tokens": one["n_tokens"],
            "box_completed": False,
            "n_cut_prompt_tokens": 0,
        }
        for i, (text, one) in enumerate(zip(attempt_texts(sample), details, strict=True))
    ]
    question = question_text(sample["doc"], otherwise=sample["arguments"]["gen_args_0"]["arg_0"])
    return Answered(question, sample["doc"], lines)

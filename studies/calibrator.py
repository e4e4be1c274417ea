"""Whether a fitted probability judges attempts better than any one source, and than EpiCaR.

A calibrator is fitted on training problems from what sampling knows anyway: token statistics, and
how far the attempts at a question agree. The shipped models `tiny-star` (STaR) and `tiny` answer
three families of generated problems; beside them stands `tiny-epicar`, trained to judge itself.

    python studies/calibrator.py --output runs/study-calibrator [--hours 3]

Stopped at any moment, the same command continues. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from plan import Comparison, Measure, Plan, judge, measure_of
from study import Run, Study, add_study_options, docs_of, questions_of

from lm_eval_ext.errors import show_user_errors_in_one_line
from lm_eval_ext.grading.attempt_details import Question
from lm_eval_ext.leaderboard.vote_curves import read_questions
from lm_eval_ext.methods.calibrator import Calibrator, read_calibrator
from lm_eval_ext.metrics import (
    UndefinedMetricWarning,
    auroc,
    brier,
    cluster_bootstrap,
    debiased_ece,
    maj_at_k,
    mean_over_questions,
    minimum_detectable_effect,
    nll,
    pass_at_k,
    weighted_vote,
    within_question_auroc,
)
from lm_eval_ext.scoring.calibrated_source import source_values
from lm_eval_ext.training.tuning.calibrator_fit import fit

FAMILIES = ("tiny_gsm8k", "tiny_math", "tiny_mbpp")
MODELS = ("tiny-star", "tiny")
JUDGE = "tiny-epicar"
OF_ATTEMPTS = (
    "mean_logprob",
    "mean_entropy",
    "perplexity",
    "total_logprob",
    "self_certainty",
    "length",
    "lowest_window_logprob",
    "tail_logprob",
    "answer_logprob",
)
OF_QUESTIONS = ("answer_share", "answer_groups", "answer_entropy")
METHOD = "logistic"
VOTE_K = 10
TAUS = (0.1, 0.2, 0.5, 1.0, 2.0, 10.0)
METRICS = {
    "Brier": brier,
    "NLL": nll,
    "debiased_ece": debiased_ece,
    "AUROC": auroc,
    "within questions": within_question_auroc,
}


@dataclass
class Settings:
    """Sizes and tasks."""

    families: Sequence[str] = FAMILIES
    models: Sequence[str] = MODELS
    judge: str = JUDGE
    questions: int = 500
    train_questions: int = 300
    attempts: int = 16
    vote_k: int = VOTE_K
    method: str = METHOD
    of_attempts: Sequence[str] = OF_ATTEMPTS
    of_questions: Sequence[str] = OF_QUESTIONS

    @classmethod
    def of(cls, args: argparse.Namespace) -> Settings:
        """Read the options."""
        if args.smoke:
            return cls(FAMILIES[:1], MODELS[:1], JUDGE, 24, 24, 4, 3)
        return cls(questions=args.questions, train_questions=args.train_questions)


def plan_of(settings: Settings, seed: int) -> Plan:
    """Return what the study decides: about STaR's model, the families together."""
    model, judge = settings.models[0], settings.judge
    return Plan(
        "calibrator",
        Comparison(
            f"The calibrator of {model} has a lower Brier score than its best source fitted alone",
            *("brier", "calibrated", "best source alone"),
            higher_is_better=False,
        ),
        (
            Comparison(
                f"The calibrator of {model} has a lower Brier score than {judge}'s self_eval",
                *("brier", f"{model} calibrated", f"{judge} self_eval"),
                higher_is_better=False,
            ),
            Comparison(
                f"Votes of {settings.vote_k} weighted by the calibrator of {model} beat the "
                "majority",
                *("accuracy of the vote", "cisc:calibrated", "maj"),
            ),
        ),
        settings={
            "seed": seed,
            "fit": "one per family, on its training problems",
            "best source alone": "lowest cross-fitted Brier score on the training problems, "
            "per family",
            "votes": f"calibrator fitted on {settings.vote_k} attempts; tau from training problems",
            **vars(settings),
        },
    )


Arrays = dict[str, np.ndarray]
"""``correct`` and a confidence by name, one entry per attempt, with ``questions``."""


class CalibratorStudy:
    """The parts of the study."""

    def __init__(self, study: Study, settings: Settings) -> None:
        self.study, self.settings = study, settings
        self.rows: list[dict[str, Any]] = []
        self.predicted: dict[tuple[str, str], dict[str, Arrays]] = {}
        self.votes: dict[tuple[str, str], np.ndarray] = {}
        self.vote_rows: list[str] = []
        self.leaks: list[str] = []

    def sample(self, model: str, family: str, on: str) -> Path:
        """Sample attempts of a model at the test or training problems of a family."""
        task = f"{family}_passn" if on == "test" else f"{family}_train_passn"
        n = self.settings.questions if on == "test" else self.settings.train_questions
        n = min(n, len(docs_of(task)))
        return self.study.evaluate(
            Run(
                f"{on}-{model}-{family}",
                "epicar" if model == self.settings.judge else "sampled",
                task,
                questions_of(task, n, seed=self.study.seed, among=lambda doc: True),
                self.settings.attempts,
                pretrained=model,
                runs_code="mbpp" in family,
            )
        )

    def sources(self, family: str) -> list[str]:
        """Return what a calibrator reads; programs have no box and no last number."""
        names = [*self.settings.of_attempts, *self.settings.of_questions]
        return [name for name in names if "mbpp" not in family or name != "answer_logprob"]

    def fit(self, model: str, family: str, attempts: int) -> Calibrator:
        """Fit the calibrator on the training problems."""
        train = self.sample(model, family, "train")
        path = self.study.folder / "calibrators" / f"{model}-{family}-{attempts}.json"
        path.parent.mkdir(exist_ok=True)
        words = ["lm-eval-ext", "train", "calibrator", str(train), "--output", str(path)]
        words += ["--method", self.settings.method, "--attempts", str(attempts)]
        words += ["--sources", ",".join(self.sources(family))]
        self.study.command(words, log=path.with_suffix(".log"), done=path.exists)
        return read_calibrator(path)

    def read(self, model: str, family: str, on: str = "test") -> list[Question]:
        """Return the attempts at each question."""
        task = f"{family}_passn" if on == "test" else f"{family}_train_passn"
        read = read_questions(self.sample(model, family, on), task)
        return [read[number] for number in sorted(read)]

    def family(self, model: str, family: str) -> None:
        """Judge a family's test questions by the calibrator, each source alone and the judge."""
        n, questions = self.settings.attempts, self.read(model, family)
        everything = self.fit(model, family, n)
        predicted = {"calibrated": probabilities(everything, questions)}
        names, train = tuple(self.sources(family)), self.read(model, family, "train")
        values, correct = arrays_of(train, names)
        of_test, _ = arrays_of(questions, names)
        for name, column, asked in zip(names, values.T, of_test.T, strict=True):
            known = np.isfinite(column)
            fitted = fit(column[known, None], correct[known], self.settings.method)
            answered = np.isfinite(asked)
            p = np.where(
                answered, fitted.probability(np.where(answered, asked, 0)[:, None]), np.nan
            )
            predicted[name] = {**predicted["calibrated"], "confidence": p}
        rate = correct.mean()
        own = predicted["calibrated"]
        predicted["base rate"] = {**own, "confidence": np.full(len(own["correct"]), rate)}
        judged = self.read(self.settings.judge, family)
        predicted[f"{self.settings.judge} self_eval"] = logged(judged, "self_eval")
        file = json.loads(Path(everything.path).read_text(encoding="utf-8"))
        alone = {name: file["cross_fitted"][name]["brier"][0] for name in self.sources(family)}
        best = min(alone, key=alone.__getitem__)
        self.rows += [
            {"model": model, "family": family, "from": name, "best": name == best, **row}
            for name, row in table_rows(predicted).items()
        ]
        self.predicted[model, family] = {**predicted, "best source alone": predicted[best]}

    def measured(self, model: str) -> dict[str, Measure]:
        """Measure the plan's claims on all families together."""
        families = [f for m, f in self.predicted if m == model]
        together = {
            name: joined([self.predicted[model, f][name] for f in families])
            for name in ("calibrated", "best source alone", f"{self.settings.judge} self_eval")
        }
        brier_, judged, votes = self.study.plan.family
        ours = together.pop("calibrated")
        found = {
            claim.claim: paired(brier, ours, other)
            for claim, other in zip((brier_, judged), together.values(), strict=True)
        }
        scores = np.concatenate([self.votes[model, f] for f in families])
        found[votes.claim] = measure_of(
            mean_over_questions, {"values": scores[:, 1]}, {"values": scores[:, 0]}
        )
        return found

    def vote(self, model: str, family: str) -> None:
        """Weigh votes of K by a calibrator that sees K attempts, tau from training problems."""
        k = self.settings.vote_k
        calibrator = self.fit(model, family, k)
        # Attempts beyond K train nothing; votes of K of the first K are one vote per question.
        train = [question[:k] for question in self.read(model, family, "train")]
        tau = max(TAUS, key=lambda tau: (votes_of(train, calibrator, k, tau)[:, 1].mean(), tau))
        found = votes_of(self.read(model, family), calibrator, k, tau)
        self.votes[model, family] = found
        self.vote_rows.append(vote_row(model, family, found, tau))

    def leak(self, model: str, family: str) -> None:
        """Fit on labels shuffled among training questions: nothing may be left."""
        train, test = self.read(model, family, "train"), self.read(model, family)
        rng = np.random.default_rng(self.study.seed)
        names = tuple(self.sources(family))
        values, correct = arrays_of(train, names)
        n = self.settings.attempts
        shuffled = rng.permutation(correct.reshape(-1, n)).ravel()
        known = np.isfinite(values).all(axis=1)
        fitted = fit(values[known], shuffled[known], self.settings.method)
        of_test, labels = arrays_of(test, names)
        known = np.isfinite(of_test).all(axis=1)
        questions = np.repeat(np.arange(len(test)), n)[known]
        data = {"confidence": fitted.probability(of_test[known])}
        data["correct"] = rng.permutation(labels.reshape(-1, n)).ravel()[known]
        cells = []
        for metric in (auroc, within_question_auroc):
            one = cluster_bootstrap(metric, data, clusters=questions)
            cells.append(f"{one.estimate:.3f} ({one.low:.3f}, {one.high:.3f})")
        self.leaks.append(f"| {model} | {family} | {' | '.join(cells)} | {len(test)} |")

    def report(self) -> None:
        """Write what is known so far."""
        sections = quality_tables(self.rows)
        if self.vote_rows:
            k = self.settings.vote_k
            heads = f"maj@{k} | cisc@{k}:calibrated | pass@{k} | won of the way | difference | MDE"
            sections += ["", f"### Votes of {k}", "", f"| model | family | {heads} | tau | n |"]
            sections += ["|---" * 10 + "|", *self.vote_rows]
        if self.leaks:
            heads = "| model | family | AUROC | within questions | n |"
            title = "### Labels shuffled among the questions, training and test"
            sections += ["", title, "", heads, "|---" * 5 + "|", *self.leaks]
        model = self.settings.models[0]
        complete = all((model, f) in self.votes for f in self.settings.families)
        measured = self.measured(model) if complete else {}
        self.study.report(judge(self.study.plan, measured), sections, {"rows": self.rows})


def probabilities(calibrator: Calibrator, questions: Sequence[Question]) -> Arrays:
    """Return the probability and verdict of every attempt, NaN for one that lacks a source."""
    found = []
    for question in questions:
        values = source_values(question, calibrator.sources, np.arange(len(question))[None])
        found.append(calibrator.probability(values[0]))
    return _arrays(questions, found)


def logged(questions: Sequence[Question], source: str) -> Arrays:
    """Return a logged probability and the verdict of every attempt."""
    return _arrays(questions, [[a["probabilities"][source] for a in q] for q in questions])


def _arrays(questions: Sequence[Question], confidence: Sequence[Any]) -> Arrays:
    correct = [[float(a["correct"]) for a in question] for question in questions]
    return {
        "confidence": np.concatenate(confidence),
        "correct": np.concatenate(correct),
        "questions": np.repeat(np.arange(len(questions)), [len(q) for q in questions]),
    }


def arrays_of(questions: Sequence[Question], names: tuple[str, ...]) -> tuple[Any, Any]:
    """Return sources, shape (n_attempts, n_sources), and verdicts of all attempts."""
    values = [source_values(q, names, np.arange(len(q))[None])[0] for q in questions]
    return np.concatenate(values), np.array([a["correct"] for q in questions for a in q], float)


def joined(parts: Sequence[Arrays]) -> Arrays:
    """Put families after one another, each with its own questions."""
    offsets = np.cumsum([0, *(part["questions"].max() + 1 for part in parts[:-1])])
    moved = [
        {**part, "questions": part["questions"] + offset}
        for part, offset in zip(parts, offsets, strict=True)
    ]
    return {name: np.concatenate([part[name] for part in moved]) for name in parts[0]}


def paired(metric: Any, ours: Arrays, other: Arrays) -> Measure:
    """Measure a difference, paired by question; attempts without a confidence are left out."""
    data, clusters = [], []
    for one in (ours, other):
        known = np.isfinite(one["confidence"])
        data.append({name: one[name][known] for name in ("confidence", "correct")})
        clusters.append(one["questions"][known])
    return measure_of(metric, *data, clusters=tuple(clusters))


def table_rows(predicted: Mapping[str, Arrays]) -> dict[str, dict[str, Any]]:
    """Return metrics with intervals of each predictor, and what the calibrator has less."""
    rows: dict[str, dict[str, Any]] = {}
    for name, one in predicted.items():
        known = np.isfinite(one["confidence"])
        data = {key: one[key][known] for key in ("confidence", "correct")}
        row: dict[str, Any] = {"n": int(known.sum())}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndefinedMetricWarning)
            for label, metric in METRICS.items():
                found = cluster_bootstrap(metric, data, clusters=one["questions"][known])
                row[label] = [float(v) for v in (found.estimate, found.low, found.high)]
        for label, metric in (("brier", brier), ("nll", nll)) if name != "calibrated" else ():
            test = paired(metric, predicted["calibrated"], one)(0.95)
            row[f"{label}_less"] = [test.difference, test.low, test.high]
        rows[name] = row
    return rows


def votes_of(
    questions: Sequence[Question], calibrator: Calibrator, k: int, tau: float
) -> np.ndarray:
    """Return the scores of maj@k, the weighted vote and pass@k, shape (n_questions, 3)."""
    names = calibrator.sources
    rows = []
    for question in questions:

        def of_subsets(members: Any, question: Question = question) -> Any:
            found = calibrator.probability(source_values(question, names, members))
            return np.nan_to_num(found, nan=0.0)

        answers = [a["answer"] for a in question]
        correct = [a["correct"] for a in question]
        weighted = weighted_vote(answers, correct, of_subsets, k, tau=tau).score
        plain = maj_at_k(answers, correct, k).score
        rows.append([plain, weighted, pass_at_k(sum(correct), len(correct), k)])
    return np.array(rows, dtype=float)


def vote_row(model: str, family: str, found: np.ndarray, tau: float) -> str:
    """Return a line of the table of votes."""
    majority, weighted, passed = found.mean(axis=0)
    test = measure_of(mean_over_questions, {"values": found[:, 1]}, {"values": found[:, 0]})(0.95)
    way = passed - majority
    won = [x / way for x in (test.difference, test.low, test.high)] if way > 0 else [math.nan] * 3
    seen = minimum_detectable_effect(test.standard_error)
    cells = [model, family, *(f"{x:.4f}" for x in (majority, weighted, passed))]
    cells.append("{:+.0%} ({:+.0%}, {:+.0%})".format(*won))
    cells.append(f"{test.difference:+.4f} ({test.low:+.4f}, {test.high:+.4f})")
    cells += [f"{seen:.4f}", f"{tau:g}", f"{len(found)}"]
    return f"| {' | '.join(cells)} |"


def quality_tables(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lay out the quality of every predictor, a table per model and family."""
    lines: list[str] = []
    for model, family in dict.fromkeys((row["model"], row["family"]) for row in rows):
        heads = [*METRICS, "Brier: calibrated less this", "NLL: calibrated less this", "n"]
        lines += ["", f"### {model}, {family}", "", f"| probability from | {' | '.join(heads)} |"]
        lines.append("|---" * (len(heads) + 1) + "|")
        for row in rows:
            if (row["model"], row["family"]) != (model, family):
                continue
            name = row["from"] + " (the best alone on training problems)" * row["best"]
            cells = ["{:.3f} ({:.3f}, {:.3f})".format(*row[label]) for label in METRICS]
            for label in ("brier_less", "nll_less"):
                less = row.get(label)
                cells.append("" if less is None else "{:+.3f} ({:+.3f}, {:+.3f})".format(*less))
            lines.append(f"| {name} | {' | '.join(cells)} | {row['n']:,} |")
    return lines


def main() -> None:
    """Plan, run what there is time for, and report after every part."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_study_options(parser, pretrained="the shipped models")
    add = parser.add_argument
    add("--questions", type=int, default=500, help="test questions of a family (500)")
    add("--train-questions", type=int, default=300, help="training problems of a family (300)")
    args = parser.parse_args()
    show_user_errors_in_one_line()
    settings = Settings.of(args)
    study = Study(plan_of(settings, args.seed), args, "")
    calibrator = CalibratorStudy(study, settings)
    for model in (*settings.models, settings.judge):
        for family in settings.families:
            for on in ("test",) if model == settings.judge else ("train", "test"):
                if study.may_begin(f"{on} problems of {family}, {model}"):
                    calibrator.sample(model, family, on)
                    study.finish(f"{on} problems of {family}, {model}")
    for model in settings.models:
        for family in settings.families:
            if study.may_begin(f"calibrators of {family}, {model}"):
                calibrator.family(model, family)
                calibrator.vote(model, family)
                calibrator.leak(model, family)
                study.finish(f"calibrators of {family}, {model}")
                calibrator.report()
    print((study.folder / "report" / "calibrator.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()

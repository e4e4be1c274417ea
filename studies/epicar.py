"""Whether training a model on judging its attempts makes it a better judge, at equal accuracy.

The claims of "EpiCaR: Knowing What You Don't Know Matters for Better Reasoning in LLMs"
(arXiv:2601.06786) on a small pretrained model. STaR learns from the right ones of its attempts at
the training problems; EpiCaR goes on from the finished STaR model with self-evaluation of the same
attempts, and nothing else. Parts, in the order of their weight: one seed of both, from training to
test; other problems; a second seed; and one mixed training and the untrained model.

    python studies/epicar.py --output runs/study-epicar [--questions 150] [--hours 3]

Stopped at any moment, the same command continues. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from plan import (
    PILOT_QUESTIONS,
    Comparison,
    Judgement,
    Measure,
    Plan,
    judge,
    judgement_records,
    judgement_table,
    keep_pilot,
    measure_of,
)
from study import Run, Study, add_study_options, docs_of, questions_of

from lm_eval_ext.errors import show_user_errors_in_one_line
from lm_eval_ext.leaderboard.vote_curves import Vote, read_questions, vote_scores
from lm_eval_ext.metrics import auroc, brier, ece, mean_over_questions

TRAIN, TEST, OTHER = "mawps_singleop_train_passn", "mawps_singleop_passn", "svamp_passn"
GREEDY, LARGE = "mawps_singleop_calib", "gsm8k_passn"
MAX_TOKENS = 64
TEMPERATURE = 0.7
PROMPT = "Question: {question}\nAnswer:"
"""Of the trainings, and of trained models at test time: that of the tasks, without examples."""

STAR = "--rounds 1 --held-out-share 0 --lora-rank 16 --merge --learning-rate 2e-4 --warmup-ratio .1"
STAR_PASSES, EVAL_PASSES = 3, 1
VOTES = ("maj", "cisc:self_eval")
VOTE_K = 10
METRICS = {"auroc": (auroc, True), "ece": (ece, False), "brier": (brier, False)}


@dataclass
class Settings:
    """Sizes and tasks; `None` questions are all there are."""

    train: str = TRAIN
    test: str = TEST
    other: str | None = OTHER
    greedy: str | None = GREEDY
    large: str | None = None
    train_problems: int | None = None
    train_attempts: int = 16
    questions: int | None = None
    n_other: int | None = 200
    attempts: int = 30
    pilot_attempts: int = 16
    pilot_questions: int = PILOT_QUESTIONS
    seeds: Sequence[int] = (0, 1)
    training: str = f"{STAR} --batch-size 16"
    star: str = f"--epochs {STAR_PASSES}"
    epicar: str = f"--epochs {EVAL_PASSES} --schedule eval_only"
    mixed: str = f"--epochs {EVAL_PASSES} --schedule mixed"

    @classmethod
    def of(cls, args: argparse.Namespace) -> Settings:
        """Read the options."""
        if args.smoke:
            tiny = "tiny_gsm8k_passn"
            few = {"train_problems": 12, "train_attempts": 4, "questions": 12, "attempts": 4}
            pilot = {"pilot_attempts": 2, "pilot_questions": 6}
            least = {"seeds": (0,), "star": "--steps 2", "epicar": "--steps 2 --schedule eval_only"}
            return cls(tiny, tiny, None, None, **few, **pilot, **least)
        settings = cls(questions=args.questions, n_other=args.other, attempts=args.attempts)
        if args.full:
            settings.large, settings.attempts, settings.n_other = LARGE, 64, None
        return settings


def comparisons(where: str = "") -> tuple[Comparison, ...]:
    """Return what is compared on a set of questions, the primary one first."""
    return (
        Comparison(
            f"EpiCaR's self-evaluation ranks attempts better than STaR's{where}",
            *("auroc", "epicar", "star"),
            margin=0.02,
        ),
        Comparison(
            f"EpiCaR's accuracy is within 2 points of STaR's{where}",
            *("accuracy", "epicar", "star"),
            margin=0.02,
            kind="equivalence",
        ),
        Comparison(
            f"EpiCaR's self-evaluation has a lower ECE than STaR's{where}",
            *("ece", "epicar", "star"),
            margin=0.02,
            higher_is_better=False,
        ),
    )


def plan_of(settings: Settings, pretrained: str, seed: int) -> Plan:
    """Return what the study decides: about the models of the first training seed."""
    primary, *secondary = comparisons()
    fixed = {
        "pretrained": pretrained,
        "seed": seed,
        "temperature": TEMPERATURE,
        "max_tokens": MAX_TOKENS,
        "prompt of training and test": PROMPT,
        "seed of the family": settings.seeds[0],
        "accuracy": "mean over all attempts",
        **vars(settings),
    }
    return Plan("epicar", primary, tuple(secondary), settings=fixed)


class EpicarStudy:
    """The parts of the study."""

    def __init__(self, study: Study, settings: Settings) -> None:
        self.study, self.settings = study, settings
        self.measured: dict[str, Measure] = {}
        self.beside: list[Judgement] = []
        self.data: dict[str, Any] = {}
        seed = study.seed
        of_test = questions_of(settings.test, settings.questions, seed=seed, among=lambda doc: True)
        tested = {docs_of(settings.test)[i]["question"] for i in of_test}
        n = settings.train_problems
        self.train_questions = questions_of(
            settings.train, n, seed=seed, among=lambda doc: doc["question"] not in tested
        )
        self.questions = {
            "pilot": (settings.train, self.train_questions[: settings.pilot_questions]),
            "test": (settings.test, of_test),
        }
        if settings.other:
            n = settings.n_other
            chosen = questions_of(settings.other, n, seed=seed, among=lambda doc: True)
            self.questions["other"] = (settings.other, chosen)
        if settings.greedy:
            docs = docs_of(settings.greedy)
            asked = [i for i, doc in enumerate(docs) if doc["question"] in tested]
            self.questions["greedy"] = (settings.greedy, asked)
        if settings.large:
            self.questions["large"] = (settings.large, range(len(docs_of(settings.large))))

    def sample(self, seed: int) -> Path:
        """Sample the attempts that both methods learn from, with solved examples in the prompt."""
        return self.study.evaluate(
            Run(
                f"train-{seed}",
                "sampled",
                self.settings.train,
                self.train_questions,
                self.settings.train_attempts,
                generation={"temperature": TEMPERATURE, "max_gen_toks": MAX_TOKENS},
                seed=seed,
            )
        )

    def train(self, name: str, seed: int) -> Path:
        """Train ``star``, ``epicar`` or ``mixed``, and return the folder of its model."""
        taken = self.sample(seed)
        problems = self.study.folder / "problems.jsonl"
        if not problems.exists():
            docs = docs_of(self.settings.train)
            records = [docs[i] for i in sorted(self.train_questions)]
            lines = [json.dumps({**doc, "prompt": PROMPT.format(**doc)}) for doc in records]
            problems.write_text("\n".join(lines) + "\n", encoding="utf-8")
        begins = self.study.pretrained
        if name == "epicar":
            begins = str(self.train("star", seed))
        folder = self.study.folder / "trained" / f"{name}-{seed}"
        words = ["lm-eval-ext", "train", "star" if name == "star" else "epicar"]
        words += ["--pretrained", begins, "--problems", str(problems), "--grader", "gsm8k"]
        words += ["--attempts-from", str(taken), "--attempts", str(self.settings.train_attempts)]
        words += ["--temperature", str(TEMPERATURE), "--max-new-tokens", str(MAX_TOKENS)]
        words += [*self.settings.training.split(), *getattr(self.settings, name).split()]
        words += ["--seed", str(seed), "--output", str(folder)]
        done = (folder / "training.json").exists
        self.study.command(words, log=folder.parent / f"{folder.name}.log", done=done)
        return folder / "model"

    def answer(self, name: str, seed: int | None, on: str, attempts: int | None = None) -> Path:
        """Let a model answer a set of questions and judge its attempts."""
        task, questions = self.questions[on]
        model = None if seed is None else str(self.train(name, seed))
        generation = {} if on == "greedy" else {"temperature": TEMPERATURE}
        return self.study.evaluate(
            Run(
                f"{on}-{name}" + ("" if seed is None else f"-{seed}"),
                "epicar",
                task,
                questions,
                attempts,
                generation={**generation, "max_gen_toks": 512 if on == "large" else MAX_TOKENS},
                pretrained=model,
                num_fewshot=None if seed is None else 0,
            )
        )

    def compare(self, on: str, seed: int, attempts: int) -> dict[str, Measure]:
        """Measure the three comparisons between EpiCaR and STaR, by metric."""
        folders = [self.answer(name, seed, on, attempts) for name in ("epicar", "star")]
        task, _ = self.questions[on]
        data = [self._note(folder, read_questions(folder, task)) for folder in folders]
        means = [{"values": one["correct"].mean(axis=1)} for one in data]
        return {
            "accuracy": measure_of(mean_over_questions, *means),
            **{name: measure_of(METRICS[name][0], *data) for name in ("auroc", "ece")},
        }

    def _note(self, folder: Path, questions: dict[int, Any]) -> dict[str, np.ndarray]:
        rows = [questions[number] for number in sorted(questions)]
        data = {
            "correct": np.array([[a["correct"] for a in row] for row in rows], dtype=float),
            "confidence": np.array([[a["probabilities"]["self_eval"] for a in r] for r in rows]),
        }
        values = {name: float(metric(**data)) for name, (metric, _) in METRICS.items()}
        values |= {"accuracy": float(data["correct"].mean()), "n": len(rows)}
        self.data.setdefault("runs", {})[folder.name] = values
        return data

    def pilot(self) -> None:
        """Train one seed of both, and ask the pilot's questions."""
        seed, n = self.settings.seeds[0], self.settings.pilot_attempts
        found = self.compare("pilot", seed, n)
        test = self.questions["test"][1]
        keep_pilot(
            self.study.plan,
            self.study.folder,
            {one.claim: found[one.metric](0.95) for one in self.study.plan.family},
            n_questions=len(test),
            note=f"{n} attempts at questions both models were trained on: for the spread only.",
        )

    def first_seed(self) -> None:
        """Judge the plan's claims on the test questions, and set votes side by side."""
        seed = self.settings.seeds[0]
        found = self.compare("test", seed, self.settings.attempts)
        self.measured = {one.claim: found[one.metric] for one in self.study.plan.family}
        self.beside += self.votes("test", seed)

    def votes(self, on: str, seed: int) -> list[Judgement]:
        """Compare votes of few attempts of EpiCaR with STaR's majority of all."""
        most = self.settings.attempts
        k = min(VOTE_K, most // 2)
        task, _ = self.questions[on]
        read = {
            name: read_questions(self.study.folder / "runs" / f"{on}-{name}-{seed}", task)
            for name in ("star", "epicar")
        }
        target = vote_scores(read["star"], Vote.parse("maj"), [most])[:, 0]
        judged = []
        for name, rule in (("star", "maj"), *(("epicar", rule) for rule in VOTES)):
            score = vote_scores(read[name], Vote.parse(rule), [k])[:, 0]
            claim = Comparison(
                f"{rule}@{k} of {name}, seed {seed}, is within 2 points of STaR's maj@{most}",
                *("accuracy of the vote", f"{name} {rule}@{k}", f"star maj@{most}"),
                margin=0.02,
                kind="non-inferiority",
            )
            measure = measure_of(mean_over_questions, {"values": score}, {"values": target})
            judged += judge(Plan("votes", claim), {claim.claim: measure})
        return judged

    def alone(self, on: str, seed: int) -> None:
        """Judge the three comparisons as a family of their own, beside the plan's."""
        found = self.compare(on, seed, self.settings.attempts)
        primary, *secondary = comparisons(f", {self.questions[on][0]}, seed {seed}")
        family = Plan("beside", primary, tuple(secondary))
        self.beside += judge(family, {one.claim: found[one.metric] for one in family.family})

    def second_seed(self, seed: int) -> None:
        """Do the same with another seed of attempts and trainings."""
        self.alone("test", seed)
        self.beside += self.votes("test", seed)

    def greedy(self) -> None:
        """Ask all models of the first seed, a mixed one and the untrained one for one answer."""
        seed = self.settings.seeds[0]
        task, _ = self.questions["greedy"]
        for name in ("base", "star", "epicar", "mixed"):
            folder = self.answer(name, None if name == "base" else seed, "greedy")
            self._note(folder, read_questions(folder, task))

    def report(self, *, page: bool) -> None:
        """Write what is known so far, with or without pages."""
        sections = ["### Every run", "", "| run | n | accuracy | AUROC | ECE | Brier |"]
        sections += ["|---" * 6 + "|"]
        for name, values in sorted(self.data.get("runs", {}).items()):
            cells = [f"{values[metric]:.4f}" for metric in ("accuracy", "auroc", "ece", "brier")]
            sections.append(f"| {name} | {values['n']} | {' | '.join(cells)} |")
        if self.beside:
            title = "### Beside the plan: other questions, other seeds, votes"
            sections += ["", title, "", *judgement_table(self.beside)]
        sections += ["", "One training seed speaks of its own checkpoints only."]
        data = {**self.data, "beside": judgement_records(self.beside)}
        for on in ("test", "other", "greedy", "large") if page else ():
            names = sorted(name for name in self.data.get("runs", {}) if name.startswith(f"{on}-"))
            if len(names) > 1:
                names.sort(key=lambda name: "star" not in name)
                metrics = "pass@1*,accuracy*,*:self_eval"
                table = self.study.board(f"board-{on}", names, metrics=metrics)
                sections += ["", f"### All runs, {on} questions", "", *table]
        self.study.report(judge(self.study.plan, self.measured), sections, data)


def main() -> None:
    """Plan, run what there is time for, and report after every part."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_study_options(parser)
    add = parser.add_argument
    add("--questions", type=int, help="most test questions (all, about 265)")
    add("--other", type=int, default=200, help="questions of SVAMP (200)")
    add("--attempts", type=int, default=30, help="at each test question (30)")
    args = parser.parse_args()
    show_user_errors_in_one_line()
    settings = Settings.of(args)
    pretrained = args.pretrained or ("tiny" if args.smoke else "smollm2")
    study = Study(plan_of(settings, pretrained, args.seed), args, pretrained)
    epicar = EpicarStudy(study, settings)
    first, *more = settings.seeds
    parts = {
        f"training of seed {first}, and the pilot": epicar.pilot,
        f"primary and secondary: test questions, seed {first}": epicar.first_seed,
    }
    if settings.other:
        parts[f"{settings.other}, seed {first}"] = lambda: epicar.alone("other", first)
    for seed in more:
        parts[f"test questions, seed {seed}"] = lambda seed=seed: epicar.second_seed(seed)
    for seed in more if settings.other else ():
        parts[f"{settings.other}, seed {seed}"] = lambda seed=seed: epicar.alone("other", seed)
    if settings.greedy:
        parts["greedy answers, with mixed training and the untrained model"] = epicar.greedy
    if settings.large:
        parts[f"{settings.large}, seed {first}"] = lambda: epicar.alone("large", first)
    for name, part in parts.items():
        if study.may_begin(name):
            part()
            study.finish(name)
            epicar.report(page=False)
    epicar.report(page=True)
    print((study.folder / "report" / "epicar.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()

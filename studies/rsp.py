"""Whether random soft prompts raise pass@N over temperature sampling, and by what.

The claims of "From Noise to Diversity: Random Embedding Injection in LLM Reasoning"
(arXiv:2605.11936) on a small pretrained model. Parts, in the order of their weight: the best
temperature of each method on training questions, both at their best on the test questions, random
real tokens and a common temperature, harder questions, what the vectors do to the first tokens,
and further controls.

    python studies/rsp.py --output runs/study-rsp [--questions 150] [--hours 2]

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
    Measure,
    Plan,
    judge,
    keep_pilot,
    measure_of,
)
from study import (
    Run,
    Study,
    add_study_options,
    docs_of,
    questions_of,
    read_runs,
    values_of,
)

from lm_eval_ext.errors import show_user_errors_in_one_line
from lm_eval_ext.metrics import mean_over_questions, t_interval

TRAIN, TEST, HARDER = "mawps_singleop_train_passn", "mawps_singleop_passn", "mawps_passn"
LARGE = "gsm8k_passn"
TEMPERATURES = (0.7, 1.0, 1.3)
COMMON = 0.7
LENGTH = 8
MAX_TOKENS, LARGE_TOKENS = 64, 512
MARGIN = 0.02
CONTROLS = {
    "mean": {"length": LENGTH, "control": "mean"},
    "shared": {"length": LENGTH, "control": "shared"},
    "length-1": {"length": 1},
    "length-32": {"length": 32},
}
LENGTHS = (1, LENGTH, 32)


@dataclass
class Settings:
    """Sizes and tasks; `None` questions are all there are."""

    train: str = TRAIN
    test: str = TEST
    harder: str = HARDER
    large: str | None = None
    attempts: int = 16
    choose: int = 100
    questions: int | None = None
    n_harder: int | None = 200
    diagnose: int = 40
    diagnosed_tokens: int = 16
    temperatures: Sequence[float] = TEMPERATURES
    controls: Sequence[str] = tuple(CONTROLS)
    lengths: Sequence[int] = LENGTHS

    @classmethod
    def of(cls, args: argparse.Namespace) -> Settings:
        """Read the options."""
        if args.smoke:
            tiny = "tiny_gsm8k_passn"
            small = {"attempts": 4, "choose": 8, "questions": 12, "n_harder": 8, "diagnose": 2}
            least = {"temperatures": (0.7,), "controls": ("mean",), "lengths": (LENGTH,)}
            return cls(tiny, tiny, tiny, diagnosed_tokens=4, **small, **least)
        settings = cls(choose=args.choose, questions=args.questions, n_harder=args.harder)
        if args.full:
            settings.large, settings.attempts = LARGE, 64
            settings.n_harder = None
        return settings


def plan_of(settings: Settings, pretrained: str, seed: int) -> Plan:
    """Return what the study decides."""
    metric = f"pass@{settings.attempts}"

    def better(claim: str, treatment: str, baseline: str) -> Comparison:
        return Comparison(claim, metric, treatment, baseline, margin=MARGIN)

    return Plan(
        "rsp",
        better(f"RSP raises {metric} over plain sampling, each at its best", "rsp", "plain"),
        (
            better(
                f"RSP raises {metric} over random real tokens, at RSP's temperature",
                "rsp",
                "real_tokens",
            ),
            better(
                f"RSP raises {metric} over plain sampling, both at {COMMON}",
                f"rsp at {COMMON}",
                f"plain at {COMMON}",
            ),
        ),
        settings={
            "pretrained": pretrained,
            "seed": seed,
            "max_tokens": MAX_TOKENS,
            "length": LENGTH,
            "best temperature": f"largest {metric} on the {settings.choose} training questions, "
            "the lower one where equal",
            **vars(settings),
        },
    )


class RspStudy:
    """The parts of the study."""

    def __init__(self, study: Study, settings: Settings) -> None:
        self.study, self.settings = study, settings
        self.metric = f"pass@{settings.attempts}"
        self.chosen: dict[str, float] = {}
        self.measured: dict[str, Measure] = {}
        self.data: dict[str, Any] = {}
        self.sections: list[str] = []

    def run(self, kind: str, temperature: float, *, on: str = "test") -> Path:
        """Sample questions: ``plain``, ``rsp``, ``real_tokens`` or one of `CONTROLS`."""
        arguments = {"plain": {}, "rsp": {"length": LENGTH}, **CONTROLS}
        arguments["real_tokens"] = {"length": LENGTH, "control": "real_tokens"}
        task, questions = self.questions[on]
        most = LARGE_TOKENS if on == "large" else MAX_TOKENS
        return self.study.evaluate(
            Run(
                f"{on}-{kind}-{temperature:g}",
                "sampled" if kind == "plain" else "rsp",
                task,
                questions,
                self.settings.attempts,
                arguments[kind],
                {"temperature": temperature, "max_gen_toks": most},
            )
        )

    def find_questions(self) -> None:
        """Choose the questions of each part."""
        settings, seed = self.settings, self.study.seed

        def of(task: str, n: int | None, without: set[str]) -> list[int]:
            return questions_of(task, n, seed=seed, among=lambda doc: _text(doc) not in without)

        test = of(settings.test, settings.questions, set())
        tested = {_text(docs_of(settings.test)[i]) for i in test}
        # Those of all subsets that are not in the one subset.
        taken = tested if settings.harder == settings.test else _texts(settings.test)
        self.questions = {
            "train": (settings.train, of(settings.train, settings.choose, tested)),
            "test": (settings.test, test),
            "harder": (settings.harder, of(settings.harder, settings.n_harder, taken)),
        }
        if settings.large is not None:
            self.questions["large"] = (settings.large, range(len(docs_of(settings.large))))

    def choose(self) -> None:
        """Choose each method's temperature on training questions; the first 50 are the pilot."""
        settings = self.settings
        found: dict[str, dict[float, Any]] = {"plain": {}, "rsp": {}}
        for kind, by_temperature in found.items():
            for temperature in settings.temperatures:
                folder = self.run(kind, temperature, on="train")
                by_temperature[temperature] = read_runs([folder])[0]
            means = {t: values_of(run, self.metric).mean() for t, run in by_temperature.items()}
            self.chosen[kind] = max(means, key=lambda t: (means[t], -t))
            self.data.setdefault("choice", {})[kind] = {str(t): float(m) for t, m in means.items()}
        print("best temperatures:", self.chosen, flush=True)
        self.data["chosen"] = self.chosen
        pilot = sorted(self.questions["train"][1][:PILOT_QUESTIONS])
        pairs = {
            self.study.plan.primary.claim: tuple(
                found[k][self.chosen[k]] for k in ("rsp", "plain")
            ),
            self.study.plan.secondary[1].claim: tuple(found[k][COMMON] for k in ("rsp", "plain")),
        }
        keep_pilot(
            self.study.plan,
            self.study.folder,
            {
                claim: self._difference(*(values_of(run, self.metric, pilot) for run in pair))(0.95)
                for claim, pair in pairs.items()
            },
            n_questions=len(self.questions["test"][1]),
            note=f"{len(pilot)} of the training questions the temperatures were chosen on.",
        )
        rows = [
            f"| {kind} | {' | '.join(f'{mean:.4f}' for mean in means.values())} "
            f"| {self.chosen[kind]:g} |"
            for kind, means in self.data["choice"].items()
        ]
        heads = " | ".join(f"T={t:g}" for t in settings.temperatures)
        self.sections += [
            f"### {self.metric} on {len(self.questions['train'][1])} training questions",
            "",
            f"| | {heads} | chosen |",
            "|---" * (len(settings.temperatures) + 2) + "|",
            *rows,
            "",
        ]

    @staticmethod
    def _difference(treatment: Any, baseline: Any) -> Measure:
        return measure_of(mean_over_questions, {"values": treatment}, {"values": baseline})

    def compare(self, claim: Comparison, treatment: Path, baseline: Path) -> None:
        """Measure a claim of the plan on two runs."""
        runs = read_runs([treatment, baseline])
        self.measured[claim.claim] = self._difference(*(values_of(r, self.metric) for r in runs))

    def primary(self) -> None:
        """Both methods at their best, on the test questions."""
        rsp, plain = (self.run(kind, self.chosen[kind]) for kind in ("rsp", "plain"))
        self.compare(self.study.plan.primary, rsp, plain)

    def secondary(self) -> None:
        """Real tokens instead of vectors, and both methods at the common temperature."""
        real, common = self.study.plan.secondary
        rsp = self.run("rsp", self.chosen["rsp"])
        self.compare(real, rsp, self.run("real_tokens", self.chosen["rsp"]))
        self.compare(common, self.run("rsp", COMMON), self.run("plain", COMMON))

    def on_harder(self) -> None:
        """Both methods at their best on the harder questions of the data."""
        for kind in ("plain", "rsp"):
            self.run(kind, self.chosen[kind], on="harder")

    def on_large(self) -> None:
        """Both methods at their best on the large test set (with ``--full``)."""
        for kind in ("plain", "rsp"):
            self.run(kind, self.chosen[kind], on="large")

    def controls(self) -> None:
        """Sample with the other controls and lengths at RSP's temperature."""
        for kind in self.settings.controls:
            self.run(kind, self.chosen["rsp"])

    def diagnose(self) -> None:
        """Measure what the vectors do to the first tokens, for each length."""
        found = {}
        for length in self.settings.lengths:
            folder = self.study.folder / "diagnosis" / f"length-{length}"
            arguments = {"pretrained": self.study.pretrained, "length": length}
            arguments |= {"seed": self.study.seed}
            arguments |= {"device": self.study.device} if self.study.device else {}
            words = ["lm-eval-ext", "diagnose", "rsp"]
            words += ["--model-args", ",".join(f"{k}={v}" for k, v in arguments.items())]
            words += ["--tasks", self.settings.test, "--limit", self.settings.diagnose]
            words += ["--attempts", self.settings.attempts, "--temperature", self.chosen["rsp"]]
            words += ["--tokens", self.settings.diagnosed_tokens, "--output", folder]
            path = folder / "early_tokens.json"
            log = folder.parent / f"{folder.name}.log"
            self.study.command([str(word) for word in words], log=log, done=path.exists)
            found[length] = json.loads(path.read_text(encoding="utf-8"))["per_question"]
        lines, self.data["mechanism"] = mechanism(found)
        self.sections += [*lines, ""]

    def report(self, *, page: bool) -> None:
        """Write what is known so far, with or without the pages and tables of all runs."""
        sections = list(self.sections)
        folders = {path.parent.parent for path in self.study.folder.glob("runs/*/*/results_*.json")}
        for on in ("test", "harder", "large") if page else ():
            names = [path.name for path in folders if path.name.startswith(f"{on}-")]
            if not names:
                continue
            names.sort(key=lambda name: ("-plain-" not in name, name))
            metrics = f"pass@1,{self.metric},invalid_rate,mean_tokens"
            table = self.study.board(f"board-{on}", names, metrics=metrics)
            sections += [f"### All runs on the {on} questions", "", *table, ""]
        judged = judge(self.study.plan, self.measured)
        self.study.report(judged, sections, self.data)


def mechanism(found: dict[int, dict[str, Any]]) -> tuple[list[str], list[dict[str, Any]]]:
    """Give each step of the claimed mechanism a line.

    Parameters
    ----------
    found
        By length of the prompt, model (``rsp`` or ``without``) and metric, the values of shape
        (n_questions, n_tokens).

    Returns
    -------
    tuple
        Markdown and records: the difference rsp - without at the first and last token, mean over
        questions with the 95% interval of t, and the first token at which it includes 0.
    """
    steps = {
        "attention": "the vectors are attended to: share of attention",
        "entropy": "the next token is less certain: entropy of the mixture, nats",
        "within": "... because each draw is flatter: entropy within draws, nats",
        "between": "... because draws disagree: entropy between draws, nats",
        "distinct": "attempts branch: share of distinct beginnings",
    }
    records = []
    for metric, step in steps.items():
        for length, models in sorted(found.items()):
            pair = (np.array(models[name][metric], dtype=float) for name in ("rsp", "without"))
            difference = np.subtract(*pair)
            columns = [column[~np.isnan(column)] for column in difference.T]
            intervals = [t_interval(column) for column in columns if len(column) > 1]
            back = [i for i, one in enumerate(intervals, start=1) if one.low <= 0 <= one.high]
            records.append(
                {
                    "step": step,
                    "metric": metric,
                    "length": length,
                    "per_token": [[one.estimate, one.low, one.high] for one in intervals],
                    "n_questions": len(difference),
                    "first_token_at_baseline": back[0] if back else None,
                }
            )
    n_tokens = max(len(one["per_token"]) for one in records)
    heads = ("step", "length", "n", "token 1", f"token {n_tokens}", "first token at baseline")
    lines = ["### What the vectors do to the first tokens (RSP - plain)", ""]
    lines += [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for one in records:
        ends = ["{:+.3f} ({:+.3f}, {:+.3f})".format(*one["per_token"][i]) for i in (0, -1)]
        cells = [one["step"], str(one["length"]), str(one["n_questions"]), *ends]
        cells.append(str(one["first_token_at_baseline"] or "none"))
        lines.append(f"| {' | '.join(cells)} |")
    return lines, records


def _text(doc: dict[str, Any]) -> str:
    return " ".join(str(doc["question"]).split())


def _texts(task: str) -> set[str]:
    return {_text(doc) for doc in docs_of(task)}


def main() -> None:
    """Plan, run what there is time for, and report after every part."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_study_options(parser)
    add = parser.add_argument
    add("--questions", type=int, help="most test questions (all, about 250)")
    add("--choose", type=int, default=100, help="training questions for temperatures (100)")
    add("--harder", type=int, default=200, help="harder questions (200)")
    args = parser.parse_args()
    show_user_errors_in_one_line()
    settings = Settings.of(args)
    pretrained = args.pretrained or ("tiny" if args.smoke else "smollm2")
    study = Study(plan_of(settings, pretrained, args.seed), args, pretrained)
    rsp = RspStudy(study, settings)
    rsp.find_questions()
    parts = {
        "temperatures, on training questions": rsp.choose,
        "primary: RSP against plain sampling, each at its best": rsp.primary,
        f"secondary: real tokens, and both at {COMMON}": rsp.secondary,
        "harder questions": rsp.on_harder,
        "first tokens": rsp.diagnose,
        "controls mean and shared, lengths 1 and 32": rsp.controls,
    }
    if settings.large is not None:
        parts[settings.large] = rsp.on_large
    for name, part in parts.items():
        if study.may_begin(name):
            part()
            study.finish(name)
            rsp.report(page=False)
    rsp.report(page=True)
    print((study.folder / "report" / "rsp.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()

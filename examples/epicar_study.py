"""What training on self-evaluation does to the shipped model as a judge of its own answers.

Trains STaR and EpiCaR from ``tiny`` with ``lm-eval-ext train``, once per seed, runs lm_eval on
generated test questions with base, STaR and EpiCaR, and prints two tables: calibration of greedy
answers, and votes of sampled ones. Killed, the same command continues.

python examples/epicar_study.py --output runs/epicar
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lm_eval_ext.grading.attempt_details import Question, attempt_details
from lm_eval_ext.grading.families import grade_many
from lm_eval_ext.harness import requests as harness
from lm_eval_ext.leaderboard.run_files import newest_run, read_samples
from lm_eval_ext.leaderboard.vote_curves import Vote, read_questions, vote_curve, vote_scores
from lm_eval_ext.metrics import apply_temperature, auroc, brier, ece, mean_over_questions
from lm_eval_ext.metrics.resampling import formula_of, questions_of, resampled_values
from lm_eval_ext.model_wrappers.epicar import EpiCaRLM
from lm_eval_ext.training.tuning.tau import choose_tau

TRAINING = (
    "--pretrained tiny --problems tiny_gsm8k:train_hard+tiny_math:train_hard --num-problems 2500 "
    "--attempts 2 --rounds 1 --learning-rate 2e-4 --batch-size 16 --warmup-ratio 0.05 "
    "--lora-rank 0 --save-dtype float16"
)
CALIB_TASKS = ("tiny_gsm8k_calib", "tiny_math_calib", "tiny_mbpp_calib")
VOTE_TASK = "tiny_gsm8k_passn"
VOTES = ("maj", "cisc:self_eval", "linear:self_eval", "best_of:self_eval")
NAMES = {"base": "base", "star": "STaR", "epicar": "EpiCaR"}
METRICS: dict[str, tuple[Callable[..., Any], str]] = {
    "accuracy": (mean_over_questions, "↑"),
    "AUROC": (auroc, "↑"),
    "ECE": (ece, "↓"),
    "Brier": (brier, "↓"),
}
N_RESAMPLES = 2_000


class Arm(NamedTuple):
    """A row of the first table: how the models were trained, and whether confidence is tuned."""

    method: str
    tuned: bool = False

    def __str__(self) -> str:
        """Return its name in the table."""
        return NAMES[self.method] + " + temperature" * self.tuned


ARMS = [Arm("base"), *(Arm(method, tuned) for method in ("star", "epicar") for tuned in (0, 1))]
PAIRS = [(Arm("epicar"), Arm("star")), (Arm("epicar", True), Arm("star", True))]


class Study:
    """The folders of a study: ``train``, ``calib`` and ``passn``, in each one per model."""

    def __init__(self, output: Path, seeds: Sequence[int]) -> None:
        self.output = output
        self.models = {
            "base": ["base"],
            **{method: [f"{method}-{seed}" for seed in seeds] for method in ("star", "epicar")},
        }

    def pretrained(self, model: str) -> str:
        """Return what lm_eval loads."""
        return "tiny" if model == "base" else str(self.output / "train" / model / "model")

    def temperature(self, model: str) -> float:
        """Return the temperature of the confidence, from the problems held out in training."""
        path = self.output / "train" / model / "temperature.json"
        return float(json.loads(path.read_text(encoding="utf-8"))["temperature"])

    def tau(self, model: str, k: int, n_problems: int = 200) -> float:
        """Fit the temperature of the vote of k attempts on word problems held out in training.

        The training's own tau is of votes among as few attempts as it makes.
        """
        path = self.output / "tau" / f"{model}-{k}.json"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            lines = (self.output / "train" / model / "problems.jsonl").read_text().splitlines()
            problems = [line for line in map(json.loads, lines) if line["held_out"]]
            problems = [line for line in problems if line["family"] == "gsm8k"][:n_problems]
            questions = attempts_at(self.pretrained(model), problems, k)
            choice = choose_tau(questions, "self_eval", k)
            path.write_text(json.dumps({"k": k, "n_questions": len(questions), **choice._asdict()}))
        return float(json.loads(path.read_text())["tau"])

    def train(self, model: str, options: str, *, only_epicar: str) -> None:
        """Train a model, unless that is done."""
        method, _, seed = model.partition("-")
        if method == "epicar":
            options = f"{options} {only_epicar}"
        folder = self.output / "train" / model
        if not (folder / "temperature.json").exists():
            chosen = [*TRAINING.split(), *options.split()]
            self._share_attempts(folder, seed)
            command = ("-m", "lm_eval_ext", "train", method, "--output", folder, "--seed", seed)
            run_python(*command, *chosen)

    def _share_attempts(self, folder: Path, seed: str) -> None:
        """Copy what the base model answered: in the first round both methods have the same."""
        for other in folder.parent.glob(f"*-{seed}/round-1/generate.json"):
            round_1 = folder / "round-1"
            if not round_1.exists():
                round_1.mkdir(parents=True)
                for file in other.parent.glob("attempts-*.jsonl"):
                    shutil.copy(file, round_1 / file.name)

    def evaluate(self, kind: str, model: str, *options: object, arguments: str = "") -> Path:
        """Run lm_eval, unless that is done, and return its output folder."""
        folder = self.output / kind / model
        if not any(folder.rglob("results_*.json")):
            shutil.rmtree(folder, ignore_errors=True)
            run_python(
                *("-m", "lm_eval", "--model", "epicar", "--batch_size", "auto", "--seed", 1234),
                *("--model_args", f"pretrained={self.pretrained(model)}{arguments}"),
                *("--log_samples", "--output_path", folder, *options),
            )
        return folder


def attempts_at(pretrained: str, problems: Sequence[Mapping[str, Any]], k: int) -> list[Question]:
    """Sample and grade k attempts at each problem, as the task of the votes does."""
    lm = EpiCaRLM(pretrained, seed=0)
    found = harness.complete(
        lm,
        [problem["prompt"] for problem in problems for _ in range(k)],
        until=problems[0]["stop"],
        max_gen_toks=problems[0]["max_new_tokens"],
        do_sample=True,
        temperature=0.7,
    )
    questions: list[Question] = []
    for i, problem in enumerate(problems):
        attempts = found[i * k : (i + 1) * k]
        verdicts = grade_many("gsm8k", attempts, problem["record"])
        pairs = zip(attempts, verdicts, strict=True)
        questions.append([attempt_details(n, *pair) for n, pair in enumerate(pairs)])
    return questions


def run_python(*arguments: object) -> None:
    """Run a command line of Python's, and stop where it fails."""
    command = [sys.executable, *map(str, arguments)]
    print("+", " ".join(command), file=sys.stderr, flush=True)
    if subprocess.run(command).returncode:
        raise SystemExit("that failed; this script's same command continues from there")


class Spread(NamedTuple):
    """A metric averaged over seeds, each seed's value, and the average on resamples."""

    estimate: float
    by_seed: list[float]
    resampled: np.ndarray

    def minus(self, other: Spread) -> Spread:
        """Return the paired difference."""
        by_seed = [a - b for a, b in zip(self.by_seed, other.by_seed, strict=True)]
        return Spread(self.estimate - other.estimate, by_seed, self.resampled - other.resampled)

    def summary(self) -> dict[str, Any]:
        """Return estimate, 95% interval, and the seeds."""
        low, high = np.nanquantile(self.resampled, [0.025, 0.975])
        return {"value": [self.estimate, float(low), float(high)], "by_seed": self.by_seed}


def over_seeds(metric: Callable[..., Any], data: Sequence[Mapping[str, np.ndarray]]) -> Spread:
    """Average a metric over models; a resample draws questions and seeds, with replacement.

    The draws are the same at every call: differences are paired by question and by seed.
    """
    estimates, resampled = [], []
    for arrays in data:
        questions = questions_of(arrays, None)
        formula = formula_of(metric, arrays, questions)
        estimate = formula.at_weight_one(questions.n_questions)
        estimates.append(float(estimate))
        resampled.append(
            resampled_values(
                formula, estimate, questions.n_questions, N_RESAMPLES, np.random.default_rng(0)
            )
        )
    n = len(data)
    drawn = np.random.default_rng(1).integers(n, size=(n, N_RESAMPLES))
    values = np.stack(resampled)[drawn, np.arange(N_RESAMPLES)].mean(axis=0)
    return Spread(float(np.mean(estimates)), estimates, values)


def read_answers(folder: Path, task: str) -> dict[str, np.ndarray]:
    """Read verdict and confidence of the one answer to each question, in order."""
    samples = sorted(read_samples(newest_run(folder).samples[task]), key=lambda s: s["doc_id"])
    attempts = [sample["attempts"][0] for sample in samples]
    return {
        "correct": np.array([attempt["correct"] for attempt in attempts], dtype=np.int64),
        "confidence": np.array([a["probabilities"]["self_eval"] for a in attempts]),
    }


def calibration(study: Study, task: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the metrics of every arm on a task, and the differences of the pairs."""
    found: dict[Arm, dict[str, Spread]] = {}
    for arm in ARMS:
        answers = []
        for model in study.models[arm.method]:
            one = read_answers(study.output / "calib" / model, task)
            if arm.tuned:
                temperature = study.temperature(model)
                one["confidence"] = apply_temperature(one["confidence"], temperature)
            answers.append(one)
        found[arm] = {
            name: over_seeds(metric, answers if name != "accuracy" else _verdicts(answers))
            for name, (metric, _) in METRICS.items()
        }
    paired = {
        f"{a} - {b}": {name: found[a][name].minus(found[b][name]) for name in METRICS}
        for a, b in PAIRS
    }
    rows = {str(arm): metrics for arm, metrics in found.items()} | paired
    return {
        row: {name: spread.summary() for name, spread in metrics.items()}
        for row, metrics in rows.items()
    }


def _verdicts(answers: Sequence[Mapping[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    return [{"values": one["correct"]} for one in answers]


def calibration_table(rows: Mapping[str, dict[str, dict[str, Any]]]) -> list[str]:
    """Lay out the metrics of a task as Markdown."""
    heads = [f"{name} {arrow}" for name, (_, arrow) in METRICS.items()]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for row, metrics in rows.items():
        form = "{:+.3f} ({:+.3f}, {:+.3f})" if " - " in row else "{:.3f} ({:.3f}, {:.3f})"
        cells = [form.format(*metrics[name]["value"]) for name in METRICS]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def votes(study: Study, args: argparse.Namespace) -> dict[str, Any]:
    """Set votes beside the majority of all attempts of STaR; scores are averaged over seeds."""
    ks = sorted({*range(1, args.vote_k + 1), *range(5, args.attempts, 5), args.attempts})
    scores: dict[tuple[str, str], list[np.ndarray]] = {}
    for method in ("star", "epicar"):
        for model in study.models[method]:
            folder = study.output / "passn" / model
            tau = study.tau(model, args.vote_k)
            for rule in VOTES:
                kept = folder / f"scores-{rule.replace(':', '-')}-{args.attempts}.npy"
                if not kept.exists():
                    questions = read_questions(folder, VOTE_TASK)
                    np.save(kept, vote_scores(questions, Vote.parse(rule), ks, tau=tau))
                scores.setdefault((method, rule), []).append(np.load(kept))
    target = np.stack([found[:, -1] for found in scores["star", "maj"]])
    place, rows = ks.index(args.vote_k), []
    for (method, rule), found in scores.items():
        mean = np.mean(found, axis=0)
        curve = vote_curve(Vote.parse(rule), ks, mean, target.mean(axis=0), margin=args.margin)
        gaps = [one[:, place] - goal for one, goal in zip(found, target, strict=True)]
        rows.append(
            {
                "name": f"{NAMES[method]}, {rule.partition(':')[0]}",
                "curve": {k: list(point[:3]) for k, point in zip(ks, curve.points, strict=True)},
                "minus_target": list(curve.differences[place][:3]),
                "by_seed": [float(gap.mean()) for gap in gaps],
                "fewest": [_count(k, args.attempts) for k in curve.fewest[:3]],
                "not_inferior": _count(curve.fewest.not_inferior, args.attempts),
            }
        )
    return {"rows": rows, "target": float(target.mean()), "n_questions": target.shape[1]}


def _count(k: float, most: int) -> str:
    return f"{k:.0f}" if np.isfinite(k) else f"> {most}"


def votes_table(found: dict[str, Any], args: argparse.Namespace) -> list[str]:
    """Lay out the votes as Markdown."""
    k, most = args.vote_k, args.attempts
    heads = [
        *("vote", "k=1", f"k={k}", f"k={most}", f"k={k} minus target", "by seed"),
        *("smallest k that reaches it", f"smallest k not {args.margin:g} worse"),
    ]
    lines = [
        f"Target: maj@{most} of STaR, {found['target']:.3f}, on {found['n_questions']} questions.",
        "",
        "| " + " | ".join(heads) + " |",
        "|---" * len(heads) + "|",
    ]
    for row in found["rows"]:
        cells = [
            row["name"],
            *("{:.3f}".format(row["curve"][one][0]) for one in (1, k, most)),
            "{:+.3f} ({:+.3f}, {:+.3f})".format(*row["minus_target"]),
            " ".join(f"{gap:+.3f}" for gap in row["by_seed"]),
            "{} ({}, {})".format(*row["fewest"]),
            row["not_inferior"],
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def check_temperature(study: Study) -> None:
    """See that a run with a temperature gives the confidences that are computed here from one."""
    model, task = study.models["epicar"][0], CALIB_TASKS[0]
    temperature = study.temperature(model)
    run = study.evaluate(
        *("check", model, "--tasks", task, "--limit", 50),
        arguments=f",calibration_temperature={temperature}",
    )
    untuned = read_answers(study.output / "calib" / model, task)["confidence"][:50]
    gap = np.abs(read_answers(run, task)["confidence"] - apply_temperature(untuned, temperature))
    if gap.max() > 1e-4:
        raise SystemExit(f"calibration_temperature gives other confidences, by {gap.max():.2g}")


def main() -> None:
    """Train, evaluate, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="folder of everything")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(0 1 2)")
    parser.add_argument("--attempts", type=int, default=30, help="attempts for votes (30)")
    parser.add_argument("--vote-k", type=int, default=10, help="attempts in a vote (10)")
    parser.add_argument("--vote-questions", type=int, default=200, help="for votes (200)")
    parser.add_argument("--margin", type=float, default=0.01, help="of non-inferiority (0.01)")
    parser.add_argument("--limit", type=int, help="questions of each calib task (all)")
    parser.add_argument("--models", nargs="+", help="train and evaluate only these, and stop")
    parser.add_argument("--training", default="", help="more options of lm-eval-ext train")
    parser.add_argument(
        "--only-epicar", default="--alpha 0.8", help="more options of train epicar (--alpha 0.8)"
    )
    args = parser.parse_args()
    study = Study(args.output, args.seeds)
    everyone = [model for models in study.models.values() for model in models]
    for model in args.models or everyone:
        if model != "base":
            study.train(model, args.training, only_epicar=args.only_epicar)
        limit = ("--limit", args.limit) if args.limit else ()
        tasks = ",".join(CALIB_TASKS)
        study.evaluate("calib", model, "--tasks", tasks, "--confirm_run_unsafe_code", *limit)
        if model != "base":
            attempts = json.dumps({"attempts": args.attempts})
            study.evaluate(
                *("passn", model, "--tasks", VOTE_TASK, "--metadata", attempts),
                *("--limit", args.vote_questions),
            )
    if args.models:
        return
    check_temperature(study)
    results = {
        "calibration": {task: calibration(study, task) for task in CALIB_TASKS},
        "votes": votes(study, args),
        "fitted": {
            model: {"temperature": study.temperature(model), "tau": study.tau(model, args.vote_k)}
            for method in ("star", "epicar")
            for model in study.models[method]
        },
    }
    lines = []
    for task, rows in results["calibration"].items():
        lines += [f"### {task}", "", *calibration_table(rows)]
    lines += [f"### {VOTE_TASK}", "", *votes_table(results["votes"], args)]
    (args.output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (args.output / "table.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()

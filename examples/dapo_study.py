"""What DAPO does to the shipped model, and what random soft prompts add to it, over several seeds.

Trains each seed without and with random soft prompts on the same budget, then lets the untrained
and the trained models answer test questions without and with vectors. Writes a table and the plot
of the reward curves. Killed, the same command continues; commands with different --arms or
--seeds may work at the same time.

python examples/dapo_study.py --output runs/dapo
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from lm_eval_ext.commands.options import parse
from lm_eval_ext.data.tiny.formats import prompt
from lm_eval_ext.data.tiny.problems import load_split
from lm_eval_ext.errors import show_user_errors_in_one_line
from lm_eval_ext.grading import grade_questions
from lm_eval_ext.harness import requests as harness
from lm_eval_ext.metrics import cluster_bootstrap, mean_over_questions, pass_at_k
from lm_eval_ext.model_wrappers.rsp import RSP
from lm_eval_ext.model_wrappers.sampled import SampledLM
from lm_eval_ext.training.dapo.settings import DapoOptions
from lm_eval_ext.training.run import keep_settings

ARMS = ("dapo", "dapo+rsp")
UNTRAINED = "untrained"
READS = ("plain", "rsp")
ANSWERS = "answers"


def train(options: DapoOptions, vectors: int, arm: str, seed: int) -> Path:
    """Train one model and return the folder of its run."""
    from lm_eval_ext.training.dapo.job import train_dapo

    length = vectors if arm == "dapo+rsp" else 0
    job = replace(options, seed=seed, soft_prompts=replace(options.soft_prompts, rsp_length=length))
    output = options.output / f"{arm}-{seed}"
    train_dapo(job, output, options.runtime)
    return output


def evaluate(model: str, read: str, temperature: float, args: argparse.Namespace) -> np.ndarray:
    """Let a model answer test questions; return the right answers, shape (n_questions, n)."""
    docs = load_split("gsm8k", "test", args.questions)
    prompts = [prompt("gsm8k", doc) for doc in docs]
    # The seed of the evaluation is none of those of training.
    common = {"pretrained": model, "seed": 1234, "batch_size": 256}
    lm = SampledLM(**common) if read == "plain" else RSP(**common, length=args.vectors)
    answers = harness.complete(
        lm,
        [text for text in prompts for _ in range(args.attempts)],
        do_sample=True,
        temperature=temperature,
        until=["Question:"],
        max_gen_toks=200,
    )
    n = args.attempts
    asked = [(answers[i * n : (i + 1) * n], doc) for i, doc in enumerate(docs)]
    graded = grade_questions("gsm8k", asked)
    return np.array([[attempt.correct for attempt in attempts] for attempts in graded])


def remembered(
    name: str, model: str, read: str, temperature: float, args: argparse.Namespace
) -> np.ndarray:
    """Return what an earlier run found, or evaluate and keep it."""
    folder = Path(args.output) / ANSWERS
    size = f"{args.questions}x{args.attempts}"
    path = folder / f"{name}-{read}-{temperature:g}-{size}.npy"
    if not path.exists():
        scratch = path.with_suffix(".writing.npy")
        np.save(scratch, evaluate(model, read, temperature, args))
        scratch.rename(path)
    return np.asarray(np.load(path))


def per_question(answers: list[np.ndarray], k: int) -> np.ndarray:
    """Return pass@k of each question, averaged over the models of an arm."""
    values = [pass_at_k(a.sum(axis=1), a.shape[1], k) for a in answers]
    return np.asarray(np.mean(values, axis=0), dtype=np.float64)


def interval(values: np.ndarray) -> str:
    """Return a mean with its 95% interval over questions, in percent."""
    found = cluster_bootstrap(mean_over_questions, {"values": values})
    return "{:.1f} ({:.1f}, {:.1f})".format(
        *(100 * x for x in (found.estimate, found.low, found.high))
    )


def difference(a: list[np.ndarray], b: list[np.ndarray], k: int) -> str:
    """Return the paired difference b - a in points, and that of each seed."""
    a = a * len(b) if len(a) == 1 else a  # the untrained model has no seeds
    each = [per_question([y], k) - per_question([x], k) for x, y in zip(a, b, strict=True)]
    found = cluster_bootstrap(mean_over_questions, {"values": np.mean(each, axis=0)})
    text = "{:+.1f} ({:+.1f}, {:+.1f}); ".format(
        *(100 * x for x in (found.estimate, found.low, found.high))
    )
    return text + ", ".join(f"{100 * values.mean():+.1f}" for values in each)


def table(found: dict[tuple[str, str, float], list[np.ndarray]], args: argparse.Namespace) -> str:
    """Return the results as Markdown."""
    last = args.attempts
    lines = [
        f"| temperature | test | model | pass@1, % | pass@{last}, % |",
        "|---|---|---|---|---|",
    ]
    for (arm, read, temperature), answers in found.items():
        cells = [interval(per_question(answers, k)) for k in (1, last)]
        reading = "with vectors" if read == "rsp" else "plain"
        lines.append("| " + " | ".join([f"{temperature:g}", reading, arm, *cells]) + " |")
    lines += [
        "",
        "| temperature | test | difference | pass@1, points; each seed | "
        f"pass@{last}, points; each seed |",
        "|---|---|---|---|---|",
    ]
    for temperature in args.temperatures:
        for read in args.reads:
            for a, b in ((UNTRAINED, "dapo"), (UNTRAINED, "dapo+rsp"), ARMS):
                pair = [found[arm, read, temperature] for arm in (a, b)]
                cells = [difference(*pair, k) for k in (1, last)]
                reading = "with vectors" if read == "rsp" else "plain"
                name = f"{b} - {a}"
                lines.append("| " + " | ".join([f"{temperature:g}", reading, name, *cells]) + " |")
    return "\n".join(lines)


def curves(output: Path, seeds: list[int]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the share of right rollouts, of dropped groups too, by step: arm, (n_seeds, n)."""
    for arm in ARMS:
        rows = []
        for seed in seeds:
            log = (output / f"{arm}-{seed}" / "log.jsonl").read_text().splitlines()
            found = [json.loads(line).get("groups/accuracy") for line in log]
            rows.append([value for value in found if value is not None])
        yield arm, np.array(rows)


def plot(output: Path, seeds: list[int], path: Path) -> None:
    """Draw the reward curves, a thin line per seed and their mean."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 3.6), layout="constrained")
    for (arm, rows), color in zip(curves(output, seeds), ("#1f77b4", "#d95f02"), strict=True):
        batches = np.arange(1, rows.shape[1] + 1)
        axes.plot(batches, rows.T, color=color, alpha=0.25, linewidth=0.8)
        window = min(5, rows.shape[1])
        smooth = np.convolve(rows.mean(axis=0), np.ones(window) / window, mode="valid")
        axes.plot(batches[window - 1 :], smooth, color=color, linewidth=2, label=arm)
    axes.set_xlabel("generation batch")
    axes.set_ylabel("share of right rollouts (T = 1)")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


TRAINING = (
    "--problems tiny_gsm8k:train_hard --optimizer sgd --learning-rate 0.6 --max-grad-norm 0.2 "
    "--schedule linear --warmup-steps 0 --groups-per-step 8 --updates-per-rollout 2 "
    "--micro-batch-size 64 --overlong-buffer 40 --generation-batch-size 256 --checkpoint-steps 4"
)
"""Options of ``train dapo`` that differ from its own.

All weights. Adam's first steps move each of them as far on noise as on signal; it pays in trainings
ten times as long.
"""


def main() -> None:
    """Train, evaluate, print the table and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    study = parser.add_argument_group("study").add_argument
    study("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(0 1 2)")
    arms = [UNTRAINED, *ARMS]
    study(
        "--arms",
        nargs="+",
        choices=arms,
        default=arms,
        help="to work on now; a part makes no table",
    )
    study("--vectors", type=int, default=8, help="random vectors per rollout and attempt (8)")
    study("--reads", nargs="+", choices=READS, default=list(READS), help="at the test (both)")
    study("--questions", type=int, default=200, help="test questions (200)")
    study("--attempts", type=int, default=16, help="per question (16)")
    study("--temperatures", type=float, nargs="+", default=[0.7, 1.0], help="of the test (0.7 1.0)")
    study("--plot", default="docs/images/dapo_reward.png", help="where the plot goes")
    args, others = parser.parse_known_args()
    # Options of `train dapo` follow: the last one counts.
    options = parse(DapoOptions, [*TRAINING.split(), *others])
    args.output, args.pretrained = options.output, options.pretrained
    output = Path(args.output)
    show_user_errors_in_one_line()
    # Kept answers are those of one untrained model and one number of vectors.
    keep_settings(output / ANSWERS, {"pretrained": args.pretrained, "vectors": args.vectors})
    models: dict[str, list[tuple[str, str]]] = {}
    for arm in args.arms:
        if arm == UNTRAINED:
            models[arm] = [(arm, args.pretrained)]
            continue
        folders = [train(options, args.vectors, arm, seed) for seed in args.seeds]
        models[arm] = [(folder.name, str(folder / "model")) for folder in folders]
    found = {
        (arm, read, temperature): [
            remembered(name, path, read, temperature, args) for name, path in models[arm]
        ]
        for temperature in args.temperatures
        for read in args.reads
        for arm in models
    }
    if set(args.arms) != {UNTRAINED, *ARMS}:
        return
    text = table(found, args)
    (output / "table.md").write_text(text + "\n")
    plot(output, args.seeds, Path(args.plot))
    print(text)


if __name__ == "__main__":
    main()

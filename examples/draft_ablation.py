"""What the teacher and the split of the data do to drafts as estimators of epistemic uncertainty.

Trains {clean, osd} x {same, disjoint} drafts of the shipped model with ``lm-eval-ext train drafts``
and compares {JSD, KL, sum} with the reference uncertainty of the target's greedy responses to
generated test questions. Killed, the same command continues.

python examples/draft_ablation.py --output runs/ablation
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lm_eval_ext.commands.options import parse
from lm_eval_ext.data.tiny.formats import prompt
from lm_eval_ext.data.tiny.problems import load_split
from lm_eval_ext.engine.packed import ForcedAttempt
from lm_eval_ext.grading.families import grade
from lm_eval_ext.harness import requests as harness
from lm_eval_ext.methods.epistemic.drafts import load_drafts
from lm_eval_ext.methods.epistemic.forced_model import ForcedModel
from lm_eval_ext.methods.epistemic.reference import AttemptKey, TokurReference
from lm_eval_ext.methods.epistemic.response_scoring import FinishedAttempt, ResponseScorer
from lm_eval_ext.methods.epistemic.weight_perturbation import WeightPerturbation
from lm_eval_ext.metrics import (
    affine_rmse,
    auroc,
    cluster_bootstrap,
    fit_affine,
    rmse,
    spearman,
)
from lm_eval_ext.model_wrappers.sampled import SampledLM
from lm_eval_ext.training.drafts.draft_job import train_drafts
from lm_eval_ext.training.drafts.settings import DraftJob, DraftOptions, Split, TeacherKind

ARMS: list[tuple[TeacherKind, Split]] = [
    ("clean", "same"),
    ("clean", "disjoint"),
    ("osd", "same"),
    ("osd", "disjoint"),
]
BASELINE, METHOD = ("clean", "same"), ("osd", "disjoint")
ESTIMATES = {"jsd": "JSD", "kl": "KL(mixture, target)", "eu": "sum"}


@dataclass
class Responses:
    """Greedy responses to questions: what is scored, how long each is, whether it is right."""

    attempts: list[FinishedAttempt]
    lengths: np.ndarray
    correct: np.ndarray
    entropy: np.ndarray
    surprise: np.ndarray

    @property
    def question(self) -> np.ndarray:
        """Return the question of each token."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    def sums(self, per_token: np.ndarray) -> np.ndarray:
        """Return the sum over the tokens of each response."""
        return np.bincount(self.question, per_token, len(self.lengths))


def respond(lm: SampledLM, split: str, n_questions: int) -> Responses:
    """Let the target answer the first questions of a split."""
    docs = load_split("gsm8k", split, n_questions)
    prompts = [prompt("gsm8k", doc) for doc in docs]
    answers = harness.complete(lm, prompts, until=["Question:"], max_gen_toks=200)
    records = [answer.record for answer in answers]
    attempts = [
        FinishedAttempt(
            ForcedAttempt(tuple(lm.prompt_token_ids(text)), record.token_ids), AttemptKey(text, 0)
        )
        for text, record in zip(prompts, records, strict=True)
    ]
    return Responses(
        attempts,
        np.array([record.n_tokens for record in records]),
        np.array([grade("gsm8k", a, d).correct for a, d in zip(answers, docs, strict=True)]),
        np.concatenate([record.statistics.entropy for record in records]).astype(np.float64),
        -np.concatenate([record.statistics.log_prob for record in records]).astype(np.float64),
    )


def score(
    lm: SampledLM, responses: Responses, drafts: Path | None, reference: TokurReference | None
) -> dict[str, np.ndarray]:
    """Return the scores of every response token, in the order of the questions."""
    loaded = load_drafts(
        "tiny" if drafts is None else str(drafts),
        target=lm.model,
        tokenizer=lm.tokenizer,
        device=lm.model.device,
        dtype=lm.model.dtype,
    )
    scorer = ResponseScorer(ForcedModel(lm.model), loaded, reference)
    found = dict(scorer.score(responses.attempts))
    return {
        name: np.concatenate([found[i][name] for i in range(len(found))]).astype(np.float64)
        for name in found[0]
    }


def common_start(job: DraftJob, output: Path, steps: int, learning_rate: float) -> DraftJob:
    """Distil one draft on the clean target and let the drafts of every arm begin as it.

    Steps that all arms would take alike are taken once.
    """
    first = replace(
        job,
        num_drafts=1,
        split="same",
        teacher=replace(job.teacher, teacher="clean"),
        optimization=replace(job.optimization, steps=steps, learning_rate=learning_rate),
    )
    if not (output / "start" / "drafts.json").exists():
        train_drafts(first, output / "start")
    return replace(job, draft_init=str(output / "start" / "draft-0"))


def remembered(path: Path, compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return what was computed in an earlier run, or compute it and keep it for a later one."""
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        np.savez(path, **compute())
    with np.load(path) as kept:
        return dict(kept)


def train_arms(job: DraftJob, output: Path) -> dict[tuple[str, str], Path]:
    """Train the drafts of every arm; all learn from the same responses."""
    folders: dict[tuple[str, str], Path] = {}
    for teacher, split in ARMS:
        folder = folders[teacher, split] = output / f"{teacher}-{split}"
        if (folder / "drafts.json").exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        for done in sorted({output / "start", *folders.values()} - {folder}):
            for file in done.glob("responses-*.jsonl"):
                shutil.copy(file, folder / file.name)
        arm = replace(job, split=split, teacher=replace(job.teacher, teacher=teacher))
        train_drafts(arm, folder)
    return folders


def row(
    name: tuple[str, ...],
    estimate: np.ndarray,
    held_out: np.ndarray,
    test: tuple[Responses, np.ndarray],
    held_out_reference: np.ndarray,
) -> dict[str, Any]:
    """Return one row of the table: how close an estimate is to the reference."""
    responses, reference = test
    interval = cluster_bootstrap(
        rmse,
        {"estimate": estimate, "reference": reference},
        clusters=responses.question,
    )
    return {
        "name": name,
        "mean": estimate.mean(),
        "rmse": [interval.estimate, interval.low, interval.high],
        "affine_rmse": affine_rmse(
            estimate, reference, fit=fit_affine(held_out, held_out_reference)
        ),
        "spearman": spearman(estimate, reference),
        "auroc": _auroc_with_interval(responses, estimate),
    }


def _auroc_with_interval(responses: Responses, estimate: np.ndarray) -> list[float]:
    data = {"correct": responses.correct, "uncertainty": responses.sums(estimate)}
    found = cluster_bootstrap(auroc, data)
    return [found.estimate, found.low, found.high]


def reduction(
    ours: np.ndarray, baseline: np.ndarray, test: tuple[Responses, np.ndarray]
) -> list[float]:
    """Return by what share the RMSE is lower than a baseline's, with its interval."""
    responses, reference = test

    def share(squared: np.ndarray, of: np.ndarray) -> float:
        return float(1 - np.sqrt(squared.sum() / of.sum()))

    sums = [responses.sums((estimate - reference) ** 2) for estimate in (ours, baseline)]
    found = cluster_bootstrap(share, dict(zip(("squared", "of"), sums, strict=True)))
    return [found.estimate, found.low, found.high]


def evaluate(lm: SampledLM, folders: dict[tuple[str, str], Path], args: Any) -> dict[str, Any]:
    """Score all arms on test questions; lines and the train mean come from validation questions."""
    perturbation = WeightPerturbation(lm.model)
    posterior = TokurReference(
        ForcedModel(lm.model), perturbation, samples=args.reference_samples, seed=args.seed
    )
    splits = [respond(lm, "validation", args.held_out), respond(lm, "test", args.questions)]
    kept = Path(args.output) / "scores"
    ending = f"{args.held_out}-{args.questions}"

    def scores_of(name: str, drafts: Path | None) -> list[dict[str, np.ndarray]]:
        by = posterior if drafts is None else None
        return [
            remembered(
                kept / f"{name}-{number}-{ending}.npz",
                lambda part=part: score(lm, part, drafts, by),  # type: ignore[misc]
            )
            for number, part in enumerate(splits)
        ]

    references = scores_of(f"reference-{args.reference_samples}-{args.seed}", None)
    held_out, eu = (found["reference_eu"] for found in references)
    test = (splits[1], eu)
    rows, sums = [], {}
    for arm, folder in folders.items():
        scores = scores_of("-".join(arm), folder)
        for key, label in ESTIMATES.items():
            rows.append(row((*arm, label), scores[1][key], scores[0][key], test, held_out))
        if arm == METHOD:
            single = [part["single_draft"] for part in scores]
        sums[arm] = scores[1]["eu"]
    constants = {"always 0": 0.0, "train mean": held_out.mean()}
    yardsticks = {
        name: [np.full_like(values, constant) for values in (held_out, eu)]
        for name, constant in constants.items()
    }
    yardsticks["target's entropy"] = [part.entropy for part in splits]
    yardsticks["target's -log p"] = [part.surprise for part in splits]
    yardsticks["KL of a single draft (osd, disjoint)"] = single
    yardsticks["reference itself"] = [held_out, eu]
    for name, (first, second) in yardsticks.items():
        rows.append(row(("", "", name), second, first, test, held_out))
    return {
        "rows": rows,
        "reduction": reduction(sums[METHOD], sums[BASELINE], test),
        "n_tokens": len(eu),
        "accuracy": splits[1].correct.mean(),
        "reference_mean": eu.mean(),
        "reference_rms": float(np.sqrt((eu**2).mean())),
        "reference_samples": args.reference_samples,
    }


def table(results: dict[str, Any]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        "| teacher | data | estimate | mean | RMSE ↓ | RMSE after a line ↓ | Spearman ↑ "
        "| AUROC of the sum ↑ |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for entry in results["rows"]:
        cells = [
            *entry["name"],
            f"{entry['mean']:.4f}",
            "{:.4f} ({:.4f}, {:.4f})".format(*entry["rmse"]),
            f"{entry['affine_rmse']:.4f}",
            f"{entry['spearman']:.3f}",
            "{:.3f} ({:.3f}, {:.3f})".format(*entry["auroc"]),
        ]
        lines.append("| " + " | ".join(cells).replace("nan", "n/a") + " |")
    share = "{:+.1%} ({:+.1%}, {:+.1%})".format(*results["reduction"])
    return "\n".join(
        [
            *lines,
            "",
            f"The sum's RMSE, OSD on disjoint data, is lower than clean on same data by {share}.",
            f"{results['n_tokens']} response tokens, accuracy {results['accuracy']:.1%}; reference "
            f"with M={results['reference_samples']}: mean {results['reference_mean']:.4f}, root "
            f"mean square {results['reference_rms']:.4f} nats.",
        ]
    )


TRAINING = "--problems tiny_gsm8k:train+tiny_gsm8k:train_hard --max-new-tokens 200"
"""Options of ``train drafts`` that differ from its own."""


def main() -> None:
    """Train, evaluate, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--questions", type=int, default=500, help="test questions (500)")
    parser.add_argument("--held-out", type=int, default=200, help="validation questions (200)")
    parser.add_argument("--reference-samples", type=int, default=10, help="M (10)")
    parser.add_argument("--start-steps", type=int, default=0, help="of a common start (0: none)")
    parser.add_argument("--start-learning-rate", type=float, default=5e-3, help="its rate (0.005)")
    args, others = parser.parse_known_args()
    # Options of `train drafts` follow: the last one counts.
    job = parse(DraftOptions, [*TRAINING.split(), *others])
    output = args.output = job.output
    if args.start_steps:
        job = common_start(job, output, args.start_steps, args.start_learning_rate)
    folders = train_arms(job, output)
    lm = SampledLM(job.pretrained, seed=job.seed, batch_size=64)
    args.seed = job.seed
    results = evaluate(lm, folders, args)
    text = table(results)
    (output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (output / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()

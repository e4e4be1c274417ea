"""Write output folders of lm_eval with made-up models, for tests and benchmarks of leaderboards.

    python benchmarks/synthetic_runs.py FOLDER [--runs 50] [--questions 1319] [--attempts 16]

Each run is a folder ``FOLDER/run_00`` with a results file and the samples of one task in lm_eval's
form, as ``--output_path ... --log_samples`` leaves them. All runs see the same questions, whose
difficulty they share; run i is as able as its place says. The attempts carry what the wrappers of
this package log, and the metrics are this package's own of these attempts. Without FOLDER, one
small run is written to a temporary folder and its size printed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import multiprocessing
import random
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lm_eval_ext.harness.attempt_settings import read_settings
from lm_eval_ext.scoring.metric_suites import suite
from lm_eval_ext.scoring.question import MetricSuite

WORDS = "the of so we add take apples boxes each price left then gives total twice half less more"
HOSTILE = (
    "<script>document.title='hacked'</script>",
    "<img src=x onerror=\"document.title='hacked'\">",
    "[click](javascript:document.title='hacked')",
    '=HYPERLINK("http://example.com","x")',
)
"""Texts that must stay texts wherever they are shown."""


class RunPlan(NamedTuple):
    """What a made-up run is like.

    Parameters
    ----------
    label
        Name of its folder; the model's name is ``model_`` and the label.
    n_questions, n_attempts
        Size.
    skill
        Log-odds of solving a question of average difficulty.
    seed
        Of this run's draws; those of the questions are the same for all runs.
    task
        Its one task, of the suite ``passn``.
    hostile
        Put `HOSTILE` into questions, answers and the model's name.
    n_token_scores
        Questions, the first ones, whose attempts have an uncertainty per token as well.
    weighted_votes
        Have the metrics of weighted votes too, which take most of the time.
    """

    label: str
    n_questions: int = 1319
    n_attempts: int = 16
    skill: float = 0.0
    seed: int = 0
    task: str = "synthetic_passn"
    hostile: bool = False
    n_token_scores: int = 0
    weighted_votes: bool = True


def write_run(folder: Path, plan: RunPlan) -> Path:
    """Write one run.

    Parameters
    ----------
    folder
        Where the folder of the run is made.
    plan
        What it is like.

    Returns
    -------
    Path
        The run's folder, which is what ``--output_path`` would have been.
    """
    model = f"model_{plan.label}" + (HOSTILE[0] if plan.hostile else "")
    stamp = f"2026-01-01T00-00-00.{plan.seed:06d}"
    target = folder / plan.label / "model"
    target.mkdir(parents=True, exist_ok=True)
    settings = read_settings({"attempts": plan.n_attempts})
    metrics = suite("passn", settings)
    rng = np.random.default_rng(plan.seed)
    words = random.Random(plan.seed)
    items: dict[str, list[Any]] = {}
    with (target / f"samples_{plan.task}_{stamp}.jsonl").open("w", encoding="utf-8") as lines:
        for number, difficulty in enumerate(_difficulties(plan.n_questions)):
            attempts = _attempts(plan, rng, number, plan.skill - difficulty)
            values = _values(metrics, attempts, plan.weighted_votes)
            for name, value in values.items():
                items.setdefault(name, []).append(value)
            line = _sample(plan, words, number, attempts, values)
            lines.write(json.dumps(line, ensure_ascii=False) + "\n")
    rows: dict[str, Any] = {"alias": plan.task, "sample_len": plan.n_questions}
    for name, values_of in items.items():
        aggregation = metrics[name].aggregation
        mean = not callable(aggregation)
        rows[f"{name},none"] = float(np.mean(values_of)) if mean else aggregation(values_of)
        error = float(np.std(values_of, ddof=1)) / math.sqrt(len(values_of)) if mean else "N/A"
        rows[f"{name}_stderr,none"] = error
    directions = {name: metrics[name].higher_is_better for name in items}
    results = _results(plan, model, rows, directions)
    (target / f"results_{stamp}.json").write_text(json.dumps(results, indent=2), encoding="utf-8")
    return folder / plan.label


def write_runs(folder: Path, plans: Sequence[RunPlan], *, processes: int = 2) -> list[Path]:
    """Write several runs at once and return their folders, in the order of the plans."""
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        return pool.map(partial(write_run, folder), plans, chunksize=1)


def plans_of(n_runs: int, n_questions: int = 1319, n_attempts: int = 16) -> list[RunPlan]:
    """Return plans of runs whose skill falls from 1 to -1."""
    skills = np.linspace(1, -1, n_runs)
    return [
        RunPlan(f"run_{i:02d}", n_questions, n_attempts, float(skill), i, weighted_votes=False)
        for i, skill in enumerate(skills)
    ]


def _values(metrics: MetricSuite, attempts: list[Any], weighted_votes: bool) -> dict[str, Any]:
    if weighted_votes:
        return metrics.values(attempts)
    values = {name: metric.value(attempts) for name, metric in metrics.metrics.items()}
    for source_name, source in metrics.sources(attempts).items():
        for name, metric in metrics.source_metrics.items():
            if "@" not in name:
                values[f"{name}:{source_name}"] = metric.value(attempts, source)
    return {name: value for name, value in values.items() if value is not None}


def _difficulties(n_questions: int) -> list[float]:
    return [float(x) for x in np.random.default_rng(99).normal(0, 2, n_questions)]


def _attempts(
    plan: RunPlan, rng: np.random.Generator, number: int, log_odds: float
) -> list[dict[str, Any]]:
    n = plan.n_attempts
    correct = rng.random(n) < 1 / (1 + math.exp(-log_odds))
    sure = 0.5 * log_odds + 1.5 * (2 * correct - 1) + rng.normal(0, 1, n)
    wrong, lengths = rng.integers(1, 5, n), rng.integers(40, 200, n)
    ending, noise = rng.random(n), rng.normal(0, 0.1, (n, 3))
    attempts = []
    for i in range(n):
        invalid = bool(ending[i] < 0.02)
        right = bool(correct[i]) and not invalid
        answer = str(100 + number if right else 100 + number + int(wrong[i]))
        logprob = -math.exp(-0.4 * sure[i] - 1.5 + noise[i, 0])
        details = {
            "attempt": i,
            "answer": None if invalid else answer,
            "correct": right,
            "finish_reason": "length" if ending[i] < 0.01 else "eos",
            "n_tokens": int(lengths[i]),
            "mean_logprob": logprob,
            "mean_entropy": -logprob * math.exp(noise[i, 1]),
            "mean_self_certainty": 12 + logprob + noise[i, 2],
            "mean_margin": math.exp(logprob),
            "probabilities": {"self_eval": 1 / (1 + math.exp(-sure[i]))},
        }
        if number < plan.n_token_scores:
            scores = rng.gamma(0.5, 0.1, size=int(lengths[i])).astype(np.float32)
            details["uncertainties"] = {"draft_eu": float(scores.sum())}
            details["token_scores"] = {"draft_eu": [round(float(s), 5) for s in scores]}
        attempts.append(details)
    return attempts


def _sample(
    plan: RunPlan,
    words: random.Random,
    number: int,
    attempts: list[dict[str, Any]],
    values: dict[str, Any],
) -> dict[str, Any]:
    vocabulary = WORDS.split()
    hostile = HOSTILE[number % len(HOSTILE)] + " " if plan.hostile and number < 20 else ""
    question = f"{hostile}Question {number}: what are {number} and 100?"
    texts = [
        hostile + " ".join(words.choices(vocabulary, k=a["n_tokens"] * 2 // 5)) + _end(a)
        for a in attempts
    ]
    if hostile:
        attempts[0]["answer"] = hostile.strip()
    single = {name: value for name, value in values.items() if not isinstance(value, list)}
    doc = {"question": question, "answer": f"{number}+100={number + 100}\n#### {number + 100}"}
    settings = {"until": ["Question:"], "do_sample": True, "temperature": 0.7}
    return {
        "doc_id": number,
        "doc": doc,
        "target": doc["answer"],
        "arguments": {"gen_args_0": {"arg_0": f"Question: {question}\nAnswer:", "arg_1": settings}},
        "resps": [texts],
        "filtered_resps": [texts],
        "filter": "none",
        "metrics": [*values, "attempts"],
        "doc_hash": hashlib.sha256(json.dumps(doc).encode()).hexdigest(),
        "prompt_hash": hashlib.sha256(question.encode()).hexdigest(),
        "target_hash": hashlib.sha256(doc["answer"].encode()).hexdigest(),
        **single,
        "attempts": attempts,
    }


def _end(attempt: dict[str, Any]) -> str:
    return "" if attempt["answer"] is None else f"\n#### {attempt['answer']}"


def _results(
    plan: RunPlan, model: str, rows: dict[str, Any], directions: dict[str, Any]
) -> dict[str, Any]:
    task = plan.task
    metadata = {"version": 1.0, **read_settings({"attempts": plan.n_attempts}).to_metadata()}
    return {
        "results": {task: rows},
        "group_subtasks": {},
        "configs": {
            task: {
                "task": task,
                "output_type": "generate_until",
                "num_fewshot": 0,
                "generation_kwargs": {"do_sample": True, "temperature": 0.7, "max_gen_toks": 200},
                "repeats": plan.n_attempts,
                "metadata": {**metadata, "grader": "gsm8k"},
            }
        },
        "versions": {task: 1.0},
        "n-shot": {task: 0},
        "higher_is_better": {task: directions},
        "n-samples": {task: {"original": plan.n_questions, "effective": plan.n_questions}},
        "config": {
            "model": "sampled",
            "model_args": {"pretrained": model},
            "batch_size": "auto",
            "limit": None,
            "gen_kwargs": {},
            "random_seed": 0,
            "numpy_seed": 1234,
            "torch_seed": 1234,
            "fewshot_seed": 1234,
        },
        "git_hash": None,
        "date": 1767225600.0 + plan.seed,
        "transformers_version": "5.23.0",
        "lm_eval_version": "0.4.13",
        "model_source": "sampled",
        "model_name": model,
        "model_name_sanitized": "model",
        "task_hashes": {},
        "chat_template": None,
        "total_evaluation_time_seconds": str(100.0 + plan.seed),
    }


def main() -> None:
    """Write the runs that the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--questions", type=int, default=1319)
    parser.add_argument("--attempts", type=int, default=16)
    parser.add_argument("--quick", action="store_true", help="nothing: it is quick without FOLDER")
    args = parser.parse_args()
    start = time.perf_counter()
    if args.folder is None:
        with tempfile.TemporaryDirectory() as scratch:
            path = write_run(Path(scratch), RunPlan("small", n_questions=50))
            size = sum(file.stat().st_size for file in path.rglob("*.json*"))
        print(f"one run of 50 questions x 16 attempts: {size:,} bytes")
        return
    write_runs(args.folder, plans_of(args.runs, args.questions, args.attempts))
    print(f"{args.runs} runs in {args.folder}, {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()

"""Time and memory of building a leaderboard from sample files, and a plain script as its peer.

    python benchmarks/leaderboard_build.py [--quick] [--runs FOLDER]

First the whole build: 50 runs x 1,319 questions x 16 attempts (20 MB of samples each) are read and
tested, and the board is written as JSON, Markdown, CSV and LaTeX, by two processes. The runs are
made up by synthetic_runs.py, which is not timed; --runs keeps and reuses them.

Then one run, in one process, against what people write: `json` lines into a pandas data frame,
`groupby` for the questions' values, `scipy.stats.bootstrap` for the interval of each mean, and for
one AUROC a loop that draws questions and calls scikit-learn. The peer computes less: one AUROC
where the build has one of each source, ECE, Brier score and the ranks. Both draw 1,000 resamples;
the AUROC of the peer is timed on 50 of them and multiplied. `--quick`: 4 runs of 200 questions.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from synthetic_runs import plans_of, write_runs

from lm_eval_ext.leaderboard.board import board_of
from lm_eval_ext.leaderboard.build import read_all, write_board
from lm_eval_ext.leaderboard.run_output import read_run
from lm_eval_ext.leaderboard.task_samples import HEADLINE

PROCESSES = 2
AUROC_RESAMPLES = 50
RESAMPLES = 1_000


def build(folders: list[Path], output: Path) -> dict:
    """Do what ``lm-eval-ext leaderboard build`` does."""
    names = [str(folder) for folder in folders]
    runs, problems = read_all(names, store=output, pooled=HEADLINE, processes=PROCESSES)
    assert not problems, problems
    board = board_of(runs)
    write_board(board, output, forms=("json", "md", "csv", "tex"))
    return board


def megabytes(who: int) -> float:
    """Return the largest resident memory so far, of this process or of any of its children."""
    return resource.getrusage(who).ru_maxrss / 1024


def cpu_seconds() -> float:
    """Return the processor time of this process and of its finished children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def peer(folder: Path) -> tuple[dict[str, tuple[float, float]], float]:
    """Return intervals of one run by pandas, SciPy and scikit-learn, and the seconds it took."""
    import pandas as pd
    from scipy.stats import bootstrap
    from sklearn.metrics import roc_auc_score

    start = time.perf_counter()
    (path,) = folder.rglob("samples_*.jsonl")
    rows, attempts = [], []
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            sample = json.loads(line)
            metrics = {m: sample[m] for m in sample["metrics"] if np.isscalar(sample.get(m))}
            rows.append({"question": sample["doc_id"], **metrics})
            for attempt in sample["attempts"]:
                confidence = attempt["probabilities"]["self_eval"]
                attempts.append((sample["doc_id"], confidence, attempt["correct"]))
    values = pd.DataFrame(rows).groupby("question").mean()
    intervals = {}
    for name in values:
        found = bootstrap(
            (values[name].to_numpy(),), np.mean, n_resamples=RESAMPLES, method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval  # fmt: skip
        intervals[name] = (float(found.low), float(found.high))
    frame = pd.DataFrame(attempts, columns=["question", "confidence", "correct"])
    groups = [group for _, group in frame.groupby("question")]
    rng = np.random.default_rng(0)
    before = time.perf_counter()
    for _ in range(AUROC_RESAMPLES):
        drawn = pd.concat([groups[i] for i in rng.integers(0, len(groups), len(groups))])
        roc_auc_score(drawn["correct"], drawn["confidence"])
    loop = (time.perf_counter() - before) * RESAMPLES / AUROC_RESAMPLES
    return intervals, before - start + loop


def main() -> None:
    """Time the build and one run against the peer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="4 runs of 200 questions")
    parser.add_argument("--runs", type=Path, help="folder of the made-up runs, kept and reused")
    args = parser.parse_args()
    n_runs, n_questions = (4, 200) if args.quick else (50, 1_319)
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.runs or Path(scratch) / "runs"
        plans = plans_of(n_runs, n_questions)
        folders = [folder / plan.label for plan in plans]
        if not all(path.is_dir() for path in folders):
            write_runs(folder, plans, processes=PROCESSES)
        start, before = time.perf_counter(), cpu_seconds()
        board = build(folders, Path(scratch) / "board")
        seconds, cpu = time.perf_counter() - start, cpu_seconds() - before
        own, child = megabytes(resource.RUSAGE_SELF), megabytes(resource.RUSAGE_CHILDREN)
        print(
            f"build of {n_runs} runs x {n_questions:,} questions x 16 attempts, {PROCESSES} "
            f"processes: {seconds:.1f} s ({cpu:.1f} s of processor time), "
            f"{len(board['cells']):,} cells, peak memory {own:.0f} MB + {PROCESSES} x "
            f"{child:.0f} MB"
        )
        start = time.perf_counter()
        run = read_run(folders[0], pooled=HEADLINE)
        ours = time.perf_counter() - start
        (task,) = run.tasks.values()
        intervals, theirs = peer(folders[0])
        score = task.metrics["pass@1"]
        assert abs(score.low - intervals["pass@1"][0]) < 0.01, (score, intervals["pass@1"])
        print(
            f"one run, one process: ours {ours:.2f} s, pandas + scipy + scikit-learn {theirs:.2f} s"
        )
        print(
            f"ratio: {theirs / ours:.1f} (pandas, scipy and scikit-learn / ours, seconds for one "
            f"run, n = {n_questions} questions x 16 attempts)"
        )


if __name__ == "__main__":
    main()

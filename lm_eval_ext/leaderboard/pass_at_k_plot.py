"""Draw pass@k over k, one curve per run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard.run_comparison import MetricComparison
from lm_eval_ext.leaderboard.run_data import RunOutput


def plot_pass_at_k(
    runs: Sequence[RunOutput], compared: Sequence[MetricComparison], path: Path
) -> None:
    """Draw the pass@k curves of the runs with 95% bands, one panel per task.

    Parameters
    ----------
    runs
        The runs.
    compared
        What `compare_runs` returned for them.
    path
        The picture; its suffix says in which format.

    Raises
    ------
    UserError
        If no task has pass@k.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    by_task: dict[str, list[tuple[int, MetricComparison]]] = {}
    for comparison in compared:
        matched = re.fullmatch(r"pass@(\d+)", comparison.metric)
        if matched:
            by_task.setdefault(comparison.task, []).append((int(matched[1]), comparison))
    if not by_task:
        raise UserError(f"--plot={path}: the runs have no pass@k; compare runs of a _passn task")
    figure, axes = plt.subplots(1, len(by_task), figsize=(5 * len(by_task), 3.6), squeeze=False)
    for axis, (task, rows) in zip(axes[0], by_task.items(), strict=True):
        for i, run in enumerate(runs):
            points = [
                (k, interval.value, interval.low, interval.high)
                for k, comparison in sorted(rows, key=lambda row: row[0])
                if (interval := comparison.values[i]) is not None
            ]
            if points:
                ks, estimates, low, high = zip(*points, strict=True)
                axis.plot(ks, estimates, marker="o", markersize=3, label=run.label)
                axis.fill_between(ks, low, high, alpha=0.2)
        n_questions = next(v.n_questions for v in rows[0][1].values if v is not None)
        axis.set(title=f"{task}, {n_questions} questions", xlabel="k", ylabel="pass@k")
        axis.set_xscale("log", base=2)
        axis.set_xticks([k for k, _ in rows], [str(k) for k, _ in rows])
        axis.set_ylim(0, 1)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)

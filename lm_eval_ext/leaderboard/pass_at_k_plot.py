"""Draw pass@k over k, one curve per run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard.run_data import RunOutput
from lm_eval_ext.scoring.scores import Score


def plot_pass_at_k(runs: Sequence[RunOutput], path: Path) -> None:
    """Draw the pass@k curves of the runs with 95% bands, one panel per task.

    Parameters
    ----------
    runs
        The runs.
    path
        The picture; its suffix says in which format.

    Raises
    ------
    UserError
        If no task that all have has pass@k.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    by_task = {task: [_curve(run, task) for run in runs] for task in runs[0].tasks}
    by_task = {task: curves for task, curves in by_task.items() if all(curves)}
    if not by_task:
        raise UserError(f"--plot={path}: the runs have no pass@k; compare runs of a _passn task")
    figure, axes = plt.subplots(1, len(by_task), figsize=(5 * len(by_task), 3.6), squeeze=False)
    for axis, (task, curves) in zip(axes[0], by_task.items(), strict=True):
        for run, curve in zip(runs, curves, strict=True):
            points, scores = list(curve), curve.values()
            axis.plot(points, [s.value for s in scores], marker="o", markersize=3, label=run.label)
            axis.fill_between(points, [s.low for s in scores], [s.high for s in scores], alpha=0.2)
        ks = sorted({k for curve in curves for k in curve})
        n_questions = next(iter(curves[0].values())).n_questions
        axis.set(title=f"{task}, {n_questions} questions", xlabel="k", ylabel="pass@k")
        axis.set_xscale("log", base=2)
        axis.set_xticks(ks, [str(k) for k in ks])
        axis.set_ylim(0, 1)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _curve(run: RunOutput, task: str) -> dict[int, Score]:
    """Return a run's pass@k by k, ascending; nothing where it has none."""
    metrics = run.tasks[task].metrics if task in run.tasks else {}
    found = {name: re.fullmatch(r"pass@(\d+)", name) for name in metrics}
    return dict(sorted((int(m[1]), metrics[name]) for name, m in found.items() if m))

"""Curves with their 95% bands as pictures: pass@k, votes, sweeps of pruning, first tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard.run_data import RunOutput

Point = tuple[float, float, float, float]
"""Where it is on the x axis, its value, and the ends of its interval."""

LARGEST_ATTEMPTS_SHOWN = 12


class Panel(NamedTuple):
    """One pair of axes.

    Parameters
    ----------
    limits
        Of the y axis; None for those of the values. Bands end there.
    attempts
        Whether x counts attempts: shown on a logarithmic scale, with each k marked.
    """

    title: str
    x: str
    y: str
    curves: Mapping[str, Sequence[Point]]
    limits: tuple[float, float] | None = None
    attempts: bool = False
    target: float | None = None


def draw(panels: Sequence[Panel], path: Path, *, title: str = "") -> None:
    """Draw panels in two columns into a picture."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = min(2, len(panels))
    n_rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        n_rows, columns, figsize=(5.4 * columns, 3.6 * n_rows), squeeze=False, layout="constrained"
    )
    for axis, panel in zip(axes.flat, panels, strict=False):
        for label, points in panel.curves.items():
            x, value, low, high = zip(*points, strict=True)
            axis.plot(x, value, marker="o", markersize=3, label=label)
            axis.fill_between(x, low, high, alpha=0.15)
        if panel.target is not None:
            axis.axhline(panel.target, color="black", linewidth=0.8, linestyle="--", label="target")
        axis.set_title(panel.title, fontsize=10)
        axis.set(xlabel=panel.x, ylabel=panel.y)
        if panel.limits is not None:
            axis.set_ylim(*panel.limits)
        if panel.attempts:
            ks = sorted({point[0] for points in panel.curves.values() for point in points})
            axis.set_xscale("log", base=2)
            if len(ks) <= LARGEST_ATTEMPTS_SHOWN:
                axis.set_xticks(ks, [f"{k:g}" for k in ks])
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    if title:
        figure.suptitle(title, fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def plot_pass_at_k(runs: Sequence[RunOutput], path: Path) -> None:
    """Draw the pass@k curves of the runs, one panel per task.

    Raises
    ------
    UserError
        If no task that all have has pass@k.
    """
    panels = []
    for task in runs[0].tasks:
        curves = {run.label: _pass_at_k(run, task) for run in runs}
        if all(curves.values()):
            n = len(runs[0].tasks[task].questions)
            title = f"{task}, {n} questions" if n else task
            panels.append(Panel(title, "k", "pass@k", curves, (0, 1), attempts=True))
    if not panels:
        raise UserError(f"--plot={path}: the runs have no pass@k; compare runs of a _passn task")
    draw(panels, path)


def _pass_at_k(run: RunOutput, task: str) -> list[Point]:
    """Return a run's pass@k, k ascending; nothing where it has none."""
    metrics = run.tasks[task].metrics if task in run.tasks else {}
    found = {name: re.fullmatch(r"pass@(\d+)", name) for name in metrics}
    scores = {int(matched[1]): metrics[name] for name, matched in found.items() if matched}
    return [(k, s.value, s.low, s.high) for k, s in sorted(scores.items())]

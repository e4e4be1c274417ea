"""The picture of ``lm-eval-ext prune analyse``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lm_eval_ext.commands.prune.plots import pyplot
from lm_eval_ext.methods.sinks.sink_scores import SinkScores

_SHOWN = 5


def plot_analysis(
    sinks: SinkScores,
    changes: dict[str, NDArray[np.float64]],
    report: dict[str, Any],
    path: Path,
    *,
    title: str,
) -> None:
    """Draw ablations against scores, the layer profile, and scores over length.

    `report` is that of `lm_eval_ext.commands.prune.analyse.analysis`. The picture has two columns.
    """
    plt = pyplot()
    n_rows = (len(changes) + 4) // 2
    figure, grid = plt.subplots(n_rows, 2, figsize=(11, 3.6 * n_rows), layout="constrained")
    for axis in grid.flat[len(changes) + 3 :]:
        axis.remove()
    axes = grid.flat[: len(changes) + 3]
    layers = np.repeat(np.arange(len(sinks.score)), sinks.score.shape[1])
    for axis, (name, values) in zip(axes, changes.items(), strict=False):
        points = axis.scatter(sinks.score, values, c=layers, s=14, cmap="viridis")
        value = report["correlations"][f"sink score and change of {name}"]
        axis.set(
            title=f"rank correlation {value['estimate']:+.2f} "
            f"[{value['low']:+.2f}, {value['high']:+.2f}]",
            xlabel="sink score",
            ylabel=f"change of {name} without the head",
        )
        axis.axhline(0, color="gray", linewidth=0.6)
        figure.colorbar(points, ax=axis, label="layer")
    _layers(axes[-3], report["layers"])
    _lengths(axes[-2], sinks)
    axes[-1].scatter(sinks.score, sinks.variation_over_length, c=layers, s=14, cmap="viridis")
    axes[-1].set(
        title="stability over length", xlabel="sink score", ylabel="coefficient of variation"
    )
    for axis in axes:
        axis.title.set_fontsize(9)
    figure.suptitle(title, fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _layers(axis: Any, layers: dict[str, list[float]]) -> None:
    axis.plot(layers["score"], marker="o", color="tab:blue")
    axis.set(title="layers", xlabel="layer")
    axis.set_ylabel("mean sink score", color="tab:blue")
    other = axis.twinx()
    other.plot(layers["loss_without_attention"], marker="s", markersize=4, color="tab:red")
    other.set_ylabel("change of loss without the attention, nats", color="tab:red")


def _lengths(axis: Any, sinks: SinkScores) -> None:
    n_heads = sinks.score.shape[1]
    order = np.argsort(-sinks.score, axis=None, kind="stable")
    groups = {"tab:red": order[:_SHOWN], "tab:gray": order[-_SHOWN:]}
    for color, indices in groups.items():
        for index in indices:
            layer, head = divmod(int(index), n_heads)
            axis.plot(sinks.lengths, sinks.by_length[:, layer, head], color=color, linewidth=0.9)
    axis.plot(sinks.lengths, sinks.by_length.mean(axis=(1, 2)), color="black", label="mean")
    axis.plot(
        sinks.lengths,
        [float((1 / np.arange(1, t + 1)).sum()) / t for t in sinks.lengths],
        color="black",
        linestyle=":",
        label="even attention",
    )
    axis.set(title=f"highest {_SHOWN} (red), lowest {_SHOWN} (gray)", xlabel="prompt length T")
    axis.set_ylabel("sink score")
    axis.set_xscale("log", base=2)
    axis.legend(fontsize=8)

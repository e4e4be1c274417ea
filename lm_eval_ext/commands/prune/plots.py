"""Pictures of scores over layers and heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lm_eval_ext.metrics.checks import FloatArray


def pyplot() -> Any:
    """Return matplotlib's pyplot, set to draw into files."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def plot_heatmap(scores: FloatArray, path: Path, *, title: str) -> None:
    """Draw scores of shape (n_layers, n_heads), with the mean of each layer beside them."""
    plt = pyplot()
    n_layers, n_heads = scores.shape
    figure, (axis, profile) = plt.subplots(
        1,
        2,
        figsize=(2.5 + max(3.0, 0.3 * n_heads), max(2.6, 0.22 * n_layers + 1)),
        width_ratios=(4, 1),
        sharey=True,
    )
    image = axis.imshow(scores, aspect="auto", cmap="viridis", vmin=0)
    axis.set(title=title, xlabel="head", ylabel="layer")
    axis.set_yticks(range(0, n_layers, max(1, n_layers // 16)))
    profile.barh(range(n_layers), scores.mean(axis=1), color="tab:gray")
    profile.set(xlabel="mean of layer")
    figure.colorbar(image, ax=profile)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)

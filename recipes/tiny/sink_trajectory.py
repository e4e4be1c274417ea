"""The sink scores of a model in training: measured on fixed problems, logged, and drawn."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval_ext.data.tiny import formats
from lm_eval_ext.data.tiny.problems import load_split

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    FloatArray = NDArray[np.float64]

TRAJECTORY = "trajectory.jsonl"
THRESHOLD = 0.3
"""Mean attention to BOS from which on a head is counted as a sink."""
_PROBLEMS = 8


@cache
def _texts() -> tuple[tuple[str, str], ...]:
    """Family and text, problem and solution, of the first validation problems."""
    return tuple(
        (family, formats.prompt(family, doc) + formats.TARGET_DELIMITER[family] + target)
        for family in formats.FAMILIES
        for doc in load_split(family, "validation", _PROBLEMS)
        for target in [formats.target(family, doc)]
    )


def measure_sinks(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> dict[str, list[list[float]]]:
    """Return the mean attention to BOS of every head, per family of problems.

    Returns
    -------
    dict
        Family -> scores of shape (n_layers, n_heads), in [0, 1]: the mean over all queries of a
        problem with its solution, BOS included, then over problems.
    """
    import torch

    from lm_eval_ext.engine.attention_override import attention_override

    sums: dict[str, torch.Tensor] = {}
    training = model.training
    model.eval()
    try:
        with attention_override(model, name="eager"), torch.no_grad():
            for family, text in _texts():
                ids = torch.tensor([tokenizer.encode(text)], device=model.device)
                layers = model(input_ids=ids, output_attentions=True).attentions
                scores = torch.stack([weights[0, :, :, 0].mean(-1) for weights in layers])
                sums[family] = sums.get(family, 0) + scores
    finally:
        model.train(training)
    return {family: (total / _PROBLEMS).tolist() for family, total in sums.items()}


def read_trajectory(file: str | Path) -> list[dict[str, Any]]:
    """Return the lines of a trajectory, in order of steps."""
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


def plot_trajectory(
    trajectory: str | Path, image: str | Path, *, control: str | Path | None = None
) -> None:
    """Draw how sinks emerged, averaged over families.

    Left, quantiles of the scores over heads, and the share of sinks; right, the mean over the
    heads of each layer, layer x step.

    Parameters
    ----------
    trajectory
        A file that `sink_recipe.SinkRun` wrote.
    image
        PNG file to write.
    control
        Trajectory of a run without the reading cost, whose share of sinks is drawn as well.
    """
    import matplotlib
    import numpy as np

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    steps, scores, weight = _arrays(trajectory)
    heads = scores.reshape(len(steps), -1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), constrained_layout=True)
    left.fill_between(steps, weight, color="0.85", label="weight of the reading cost")
    for name, value in {"maximum": 1.0, "90%": 0.9, "75%": 0.75, "median": 0.5}.items():
        left.plot(steps, np.quantile(heads, value, axis=1), label=name)
    left.plot(steps, (heads > THRESHOLD).mean(axis=1), "k--", label=f"share above {THRESHOLD}")
    if control is not None:
        others, plain, _ = _arrays(control)
        share = (plain > THRESHOLD).mean(axis=(1, 2))
        left.plot(others, share, "k:", label="the same without the cost")
    left.set(xlabel="step", ylabel="mean attention to BOS, over heads", ylim=(0, 1))
    left.set_xlim(0, max(steps[-1], 1))
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3, fontsize="small")
    edges = np.arange(scores.shape[1] + 1) - 0.5
    ends = [*steps, 2 * steps[-1] - steps[-2] if len(steps) > 1 else 1]
    mesh = right.pcolormesh(ends, edges, scores.mean(axis=2).T, vmin=0, vmax=1, cmap="magma")
    right.set(xlabel="step", ylabel="layer", yticks=range(scores.shape[1]))
    figure.colorbar(mesh, ax=right, label="mean over the heads of a layer")
    figure.savefig(image, dpi=110)
    plt.close(figure)


def _arrays(trajectory: str | Path) -> tuple[list[int], FloatArray, FloatArray]:
    """Return steps, scores of shape (n_steps, n_layers, n_heads), and weights of the cost."""
    import numpy as np

    records = read_trajectory(trajectory)
    scores = np.array([list(record["sink_scores"].values()) for record in records])
    weights = np.array([record["cost_weight"] for record in records], dtype=float)
    return [record["step"] for record in records], scores.mean(axis=1), weights

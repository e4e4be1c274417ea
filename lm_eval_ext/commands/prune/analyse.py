"""``lm-eval-ext prune analyse``: whether sink heads matter, where they are, how stable.

Three questions of the paper: each head is ablated alone, and the change in loss (and in a task's
metric) is set against its sink score; the profile over layers; and how a score depends on the
length of the prompt.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lm_eval_ext.commands.prune.analysis_plots import plot_analysis
from lm_eval_ext.commands.prune.options import AnalyseOptions
from lm_eval_ext.commands.prune.perplexity import token_nll
from lm_eval_ext.commands.prune.subject import Subject, load_subject, text_to_measure
from lm_eval_ext.commands.prune.task_values import TaskRunner
from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.sinks.block_layout import Layout
from lm_eval_ext.methods.sinks.masks import pruned
from lm_eval_ext.methods.sinks.plan import PruningPlan, PruningSettings
from lm_eval_ext.methods.sinks.selection import Removal
from lm_eval_ext.methods.sinks.sink_scores import SinkScores
from lm_eval_ext.methods.sinks.statistics import collect_statistics
from lm_eval_ext.metrics import cluster_bootstrap, spearman
from lm_eval_ext.metrics.checks import FloatArray

_LENGTHS = (8, 16, 32, 64, 128, 256, 512)


def run(options: AnalyseOptions) -> int:
    """Measure, print the correlations, and save the numbers and the plot."""
    subject = load_subject(options)
    lengths = options.lengths or _usual_lengths(subject)
    statistics = collect_statistics(
        subject.lm.model,
        subject.calibration.prompts,
        {"sinks"},
        convention=subject.convention,
        lengths=lengths,
    )
    assert statistics.sinks is not None
    text = text_to_measure(options, subject)
    loss = mean_loss(subject, text.prompts)
    changes = {"loss": head_changes(subject.layout, loss)}
    if options.tasks:
        metric = options.metrics
        measure = task_metric(subject, options.tasks, metric, options.limit)
        changes[metric] = head_changes(subject.layout, measure)
    report = analysis(statistics.sinks, changes)
    report |= {"settings": options.record(), "calibration": subject.calibration.record}
    without = layer_changes(subject.layout, loss)
    report["layers"]["loss_without_attention"] = without.tolist()
    options.output.mkdir(parents=True, exist_ok=True)
    file, picture = options.output / "analysis.json", options.output / "analysis.png"
    file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    record = subject.calibration.record
    title = f"{Path(subject.pretrained).name}, sink scores on {record['n_prompts']} prompts"
    plot_analysis(statistics.sinks, changes, report, picture, title=title)
    for name, value in report["correlations"].items():
        interval = f"[{value['low']:+.2f}, {value['high']:+.2f}]"
        print(f"{name}: {value['estimate']:+.2f} {interval}, {value['n']} heads")
    print(f"plot: {picture}\ndata: {file}")
    return 0


def head_changes(layout: Layout, measure: Callable[[Removal], float]) -> FloatArray:
    """Return the change of a measure without each head alone, shape (n_layers, n_heads)."""
    dense = measure(Removal())
    changes = np.empty((layout.n_layers, layout.n_heads))
    for head in tqdm(np.ndindex(changes.shape), desc="Ablating heads", total=changes.size):
        changes[head] = measure(Removal(heads=((head[0], head[1]),))) - dense
    return changes


def layer_changes(layout: Layout, measure: Callable[[Removal], float]) -> FloatArray:
    """Return the change of a measure without each layer's attention, shape (n_layers,)."""
    dense, every = measure(Removal()), range(layout.n_heads)
    removals = (Removal(tuple((layer, i) for i in every)) for layer in range(layout.n_layers))
    return np.array([measure(removal) - dense for removal in removals])


def mean_loss(
    subject: Subject, sequences: tuple[tuple[int, ...], ...]
) -> Callable[[Removal], float]:
    """Return what measures the mean loss per token, in nats."""

    def measure(removal: Removal) -> float:
        with pruned(subject.lm.model, removal):
            return float(np.concatenate(token_nll(subject.lm.model, sequences)).mean())

    return measure


def task_metric(
    subject: Subject, task: str, metric: str, limit: int | None
) -> Callable[[Removal], float]:
    """Return what measures a task's metric, on at most `limit` questions."""
    runner = TaskRunner(task, limit)
    settings = PruningSettings(ratio=0.0)

    def measure(removal: Removal) -> float:
        lm = subject.lm.with_plan(PruningPlan(settings, removal), subject.calibration.record)
        measured = runner.run(lm)
        if f"{task}/{metric}" not in measured:
            known = ", ".join(name.partition("/")[2] for name in measured)
            raise UserError(f"--metrics={metric} has no value per question in {task}; use {known}")
        return float(measured[f"{task}/{metric}"]["estimate"])

    return measure


def analysis(sinks: SinkScores, changes: dict[str, FloatArray]) -> dict[str, Any]:
    """Return correlations, layer profile and stability as plain values.

    Changes without each head, shape (n_layers, n_heads), are given by the name of their measure.
    """
    variation = sinks.variation_over_length
    inner = slice(1, -1)
    correlations = {}
    for name, values in changes.items():
        title = f"sink score and change of {name}"
        correlations[title] = _correlation(sinks.score, values)
        correlations[f"{title}, without first and last layer"] = _correlation(
            sinks.score[inner], values[inner]
        )
    if len(sinks.lengths) > 1:
        correlations["sink score and variation over length"] = _correlation(sinks.score, variation)
    return {
        "correlations": correlations,
        "heads": {
            "score": sinks.score.tolist(),
            "standard_error": sinks.standard_error.tolist(),
            "variation_over_length": variation.tolist(),
            **{f"change of {name}": values.tolist() for name, values in changes.items()},
        },
        "layers": {
            "score": sinks.by_layer.tolist(),
            **{f"mean change of {n}": v.mean(axis=1).tolist() for n, v in changes.items()},
        },
        "lengths": {
            "lengths": list(sinks.lengths),
            "n_prompts": sinks.n_prompts_by_length,
            "score": sinks.by_length.tolist(),
        },
    }


def _correlation(one: FloatArray, other: FloatArray) -> dict[str, Any]:
    """Return Spearman's rank correlation over heads with its bootstrap interval."""
    interval = cluster_bootstrap(spearman, {"estimate": one.ravel(), "reference": other.ravel()})
    bounds = {name: getattr(interval, name) for name in ("estimate", "low", "high")}
    return {**bounds, "n": one.size}


def _usual_lengths(subject: Subject) -> tuple[int, ...]:
    lengths = sorted(map(len, subject.calibration.prompts))
    enough = lengths[-max(1, len(lengths) // 4)]
    return tuple(length for length in _LENGTHS if length <= enough)

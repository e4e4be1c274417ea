"""Reading the study of BOS sinks: the choice of criteria, the pilot, verdicts and tables.

Needs only the files that the study wrote, not the model.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from plan import Measure, Plan, judge, judgement_records, judgement_table, keep_pilot, measure_of
from sink_parts import SCORES, cell_name

from lm_eval_ext.commands.prune.sweep_table import shown_metrics, tables
from lm_eval_ext.methods.sinks.plan import PruningSettings
from lm_eval_ext.metrics import cluster_bootstrap, spearman
from lm_eval_ext.training.run import write_json

FloatArray = NDArray[np.float64]
TASK_FOLDERS = {"piqa": "heads, loglikelihoods", "singleop": "heads, generations"}


def mean_loss(loss: FloatArray, tokens: FloatArray) -> float:
    """Return the log-perplexity, nats per token, from each text's sum and number of tokens."""
    return float(loss.sum() / tokens.sum())


def loss_data(folder: Path, part: str, cells: str, name: str) -> dict[str, FloatArray] | None:
    """Return a cell's sum of losses and number of tokens by text; None if it was not measured.

    Parameters
    ----------
    folder
        The study's.
    part
        Of the texts.
    cells
        Folder of the cell.
    name
        Of its file.
    """
    path = folder / cells / name
    if not path.exists():
        return None
    means = np.array(_read(path)["metrics"]["perplexity"]["values"])
    tokens = np.array(_read(folder / "texts" / f"{part}.json")["predicted_tokens"], dtype=float)
    return {"loss": means * tokens, "tokens": tokens}


def best_criteria(folder: Path, groups: Sequence[Sequence[str]], ratio: float) -> tuple[str, ...]:
    """Return the criterion of each group with the lowest loss on the texts of choice.

    Parameters
    ----------
    folder
        The study's, with the cells of ``choice``.
    groups
        Names of criteria.
    ratio
        Share removed.
    """
    losses: dict[str, float] = {}
    for name in (name for group in groups for name in group):
        data = loss_data(folder, "choice", "choice", _cell(name, ratio))
        losses[name] = np.inf if data is None else mean_loss(**data)
    return tuple(min(group, key=losses.__getitem__) for group in groups)


def compared(folder: Path, part: str, cells: str, ratio: float, baseline: str) -> Measure | None:
    """Return the difference in loss between the sink criterion and another, or None."""
    ours = loss_data(folder, part, cells, _cell("sink", ratio))
    theirs = loss_data(folder, part, cells, _cell(baseline, ratio))
    return None if ours is None or theirs is None else measure_of(mean_loss, ours, theirs)


def pilot(plan: Plan, folder: Path, best: tuple[str, ...], n_texts: int) -> None:
    """Write the pilot: the texts of choice, which the study does not report."""
    ratio = plan.settings["ratio"]
    found = {}
    for comparison, baseline in zip(plan.family, reversed(best), strict=False):
        measure = compared(folder, "choice", "choice", ratio, baseline)
        assert measure is not None
        found[comparison.claim] = measure(1 - plan.alpha)
    note = (
        f"The texts on which the criteria are chosen: {best[0]} (weight-based) and {best[1]} "
        "(activation-based)."
    )
    keep_pilot(plan, folder, found, n_questions=n_texts, note=note)


def rank_agreement(short: FloatArray, long: FloatArray) -> float:
    """Return the rank correlation over heads of two mean scores.

    Parameters
    ----------
    short, long
        Scores by segment, shape (n_segments, n_heads).
    """
    return float(spearman(short.mean(axis=0), long.mean(axis=0)))


def length_measure(folder: Path) -> Measure | None:
    """Return the rank correlation of the shortest length with the longest, less 1, or None."""
    path = folder / "lengths.json"
    if not path.exists():
        return None
    scores = _by_length(path)
    short, long = scores[:, 0], scores[:, -1]
    return measure_of(rank_agreement, {"short": short, "long": long}, {"short": long, "long": long})


def measures(plan: Plan, folder: Path, groups: Sequence[Sequence[str]]) -> dict[str, Measure]:
    """Return what was measured of the plan's claims."""
    ratio = plan.settings["ratio"]
    found: list[Measure | None] = [None, None]
    if (folder / "choice").exists():
        best = best_criteria(folder, groups, ratio)
        found = [compared(folder, "test", "heads", ratio, name) for name in reversed(best)]
    found.append(length_measure(folder))
    return {
        comparison.claim: measure
        for comparison, measure in zip(plan.family, found, strict=True)
        if measure is not None
    }


def single_heads(folder: Path) -> list[str]:
    """Return the lines on the loss without each head alone, set against its sink score."""
    paths = sorted((folder / "alone").glob("layer-*.json"))
    scores = np.array(_read(folder / SCORES)["heads"]["sink"]) if paths else np.empty((0, 0))
    if not paths or len(paths) < len(scores):
        return []
    dense = _read(folder / "alone" / "dense.json")
    tokens = np.array(dense["tokens"], dtype=float)
    losses = np.array([_read(path) for path in paths])  # (layers, heads, texts)
    added = losses - np.array(dense["loss"])
    change = added.sum(axis=2) / tokens.sum()
    halves = [added[..., i::2].sum(axis=2) / tokens[i::2].sum() for i in (0, 1)]
    lines = [
        "## Each head alone",
        "",
        f"Change in loss without one head, on {tokens.sum():.0f} tokens of {len(tokens)} texts. "
        "The paper expects a negative rank correlation: what attends to the first token does not "
        "matter. Intervals: 95%, bootstrap over heads.",
        "",
        "| rank correlation of sink score and change | n heads |",
        "|---|---|",
    ]
    for name, part in (("all layers", slice(None)), ("without first and last", slice(1, -1))):
        data = {"estimate": scores[part].ravel(), "reference": change[part].ravel()}
        found = cluster_bootstrap(spearman, data)
        lines.append(
            f"| {name}: {found.estimate:+.2f} ({found.low:+.2f}, {found.high:+.2f}) "
            f"| {found.n_questions} |"
        )
    order = np.argsort(-scores, axis=None)
    top = change.ravel()[order[: round(len(order) / 8)]]
    rest = change.ravel()[order[round(len(order) / 8) :]]
    return [
        *lines,
        "",
        f"Mean change of the eighth with the highest scores {top.mean():+.4f} nats, of the others "
        f"{rest.mean():+.4f}. The changes on two halves of the texts correlate by "
        f"{spearman(*(half.ravel() for half in halves)):+.2f}.",
        "",
    ]


def lengths_table(folder: Path) -> list[str]:
    """Return the table of rank correlations of each length with the longest."""
    path = folder / "lengths.json"
    if not path.exists():
        return []
    lengths, scores = _read(path)["lengths"], _by_length(path)
    mean = scores.mean(axis=0)
    n_top = round(mean.shape[1] / 8)
    top = [set(np.argsort(-row)[:n_top]) for row in mean]
    lines = [
        "## Prompt length",
        "",
        f"{len(scores)} segments; the same tokens at every length. Shared: of the eighth of heads "
        f"({n_top}) with the highest scores at {lengths[-1]} tokens.",
        "",
        "| tokens | mean score | rank correlation | shared |",
        "|---|---|---|---|",
    ]
    for i, length in enumerate(lengths):
        rank, shared = float(spearman(mean[i], mean[-1])), len(top[i] & top[-1]) / n_top
        lines.append(f"| {length} | {mean[i].mean():.3f} | {rank:.3f} | {shared:.0%} |")
    return [*lines, ""]


def export_table(folder: Path) -> list[str]:
    """Return the table of speed and size of models with parts cut out."""
    paths = sorted((folder / "export").glob("*_*.json"))
    if not paths:
        return []
    lines = [
        "## Structural export",
        "",
        "| unit | ratio | removed | reading | writing | parameters | size |",
        "|---|---|---|---|---|---|---|",
    ]
    whole = _read(folder / "export" / "dense.json")
    for row in (whole, *map(_read, paths)):
        cells = [row["unit"], f"{row['ratio']:.1%}"]
        if "refused" in row:
            lines.append(f"| {' | '.join([*cells, row['refused'], *'----'])} |")
            continue
        removed = row.get("removed_blocks") or row.get("removed_heads") or 0
        cells += [f"{removed}"]
        for what in ("reading", "writing"):
            ratio = f" ({row[f'{what}_ratio']:.2f}x)" if f"{what}_ratio" in row else ""
            cells.append(f"{row[what]:.0f} tokens/s{ratio}")
        cells += [f"{row['parameters'] / 1e6:.1f} M", f"{row['bytes'] / 1e6:.0f} MB"]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def cell_tables(folder: Path) -> list[str]:
    """Return the tables of all cells: perplexity and tasks, by criterion and ratio."""
    parts = []
    heads = _cells(folder / "heads")
    for cell in _cells(folder / "spared"):
        if cell["ratio"]:
            criterion = f"sink, first {cell['skip_first'] + 1} blocks spared"
            heads.append({**cell, "criterion": criterion})
    found = {"heads": heads, "blocks": _cells(folder / "blocks")}
    found |= {title: _cells(folder / name) for name, title in TASK_FOLDERS.items()}
    for title, cells in found.items():
        if len(cells) > 1:
            shown = shown_metrics(cells[0]["metrics"], None)
            page = tables(cells, shown, title=title)
            parts.append(page.replace("\n## ", "\n### ").replace("# P", "## P", 1))
    return parts


def report(
    plan: Plan,
    folder: Path,
    work: Sequence[str],
    groups: Sequence[Sequence[str]],
    usual: Any,
) -> str:
    """Judge the claims, write ``verdicts.json`` and ``report.md``, and return the latter.

    Parameters
    ----------
    plan
        The study's.
    folder
        Its output.
    work
        Names of its parts.
    groups
        The weight-based and the activation-based criteria.
    usual
        The default settings, to say what was cut.
    """
    judged = judge(plan, measures(plan, folder, groups))
    write_json(folder / "verdicts.json", judgement_records(judged))
    lines = [f"# BOS sinks on {plan.settings['pretrained']}", "", *judgement_table(judged), ""]
    if (folder / "choice").exists():
        weight, activation = best_criteria(folder, groups, plan.settings["ratio"])
        lines += [
            f"Chosen on other texts: {weight} (weight-based) and {activation} (activation-based). "
            "That sink scores find what can go better than either holds only if both of the first "
            "two rows do.",
            "",
        ]
    missing = [part for part in work if not (folder / "done" / part).exists()]
    other = {
        name: value
        for name, value in dataclasses.asdict(usual).items()
        if json.loads(json.dumps(value)) != json.loads(json.dumps(plan.settings[name]))
    }
    lines.append(f"Cut, or not finished: {', '.join(missing) or 'nothing'}.")
    lines += [f"`{name}`: {plan.settings[name]} instead of {of}." for name, of in other.items()]
    lines += ["", *lengths_table(folder), *single_heads(folder), *export_table(folder)]
    text = "\n".join([*lines, *cell_tables(folder)])
    (folder / "report.md").write_text(text + "\n", encoding="utf-8")
    return text


def _cell(criterion: str, ratio: float) -> str:
    return cell_name(PruningSettings(ratio=ratio, criterion=criterion))


def _by_length(path: Path) -> FloatArray:
    """Return the scores over lengths, shape (n_segments, n_lengths, n_heads of all layers)."""
    scores = np.array(_read(path)["by_segment"])
    return scores.reshape(*scores.shape[:2], -1)


def _cells(folder: Path) -> list[dict[str, Any]]:
    """Return the cells of a folder, the dense model's first and the sink criterion's second."""
    cells = [_read(path) for path in sorted(folder.glob("*.json"))]
    return sorted(cells, key=lambda cell: (cell["ratio"] > 0, cell["criterion"] != "sink"))


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))

"""``lm-eval-ext prune score``: score every head and block, and save the scores with a heatmap."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lm_eval_ext.commands.prune.options import ScoreOptions
from lm_eval_ext.commands.prune.plots import plot_heatmap
from lm_eval_ext.commands.prune.subject import Subject, load_subject
from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.sinks.criteria import BLOCK_CRITERIA, HEAD_CRITERIA
from lm_eval_ext.methods.sinks.scores_file import scores_report
from lm_eval_ext.methods.sinks.sink_scores import SinkScores
from lm_eval_ext.methods.sinks.statistics import CalibrationStatistics, collect_statistics

_LISTED = 10


def run(options: ScoreOptions) -> int:
    """Score, print the highest heads, and save everything."""
    subject = load_subject(options)
    statistics = collect_statistics(
        subject.lm.model,
        subject.calibration.prompts,
        {"sinks", "outputs", "blocks"},
        convention=subject.convention,
        lengths=options.lengths,
    )
    assert statistics.sinks is not None
    report = scores_report(
        subject.layout,
        all_scores(subject, statistics, options.seed),
        pretrained=subject.pretrained,
        calibration=subject.calibration.record,
        sinks=statistics.sinks,
        convention=subject.convention,
    )
    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / "sink_scores.json"
    file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    picture = options.output / "sink_scores.png"
    plot_heatmap(
        statistics.sinks.score, picture, title=f"sink score, {Path(subject.pretrained).name}"
    )
    _print(statistics.sinks, subject.calibration.record)
    print(f"scores: {file}\nheatmap: {picture}")
    return 0


def all_scores(
    subject: Subject, statistics: CalibrationStatistics, seed: int
) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Return the scores of every criterion, for heads and for blocks."""
    return {
        kind: {
            name: criterion.score(subject.layout, statistics, seed)
            for name, criterion in criteria.items()
        }
        for kind, criteria in (("heads", HEAD_CRITERIA), ("blocks", BLOCK_CRITERIA))
    }


def _print(sinks: SinkScores, record: dict[str, Any]) -> None:
    n_layers, n_heads = sinks.score.shape
    print(
        f"{n_layers} layers x {n_heads} heads on {record['n_prompts']} prompts of "
        f"{record['n_tokens'] / record['n_prompts']:.0f} tokens on average; first token "
        f"{record['token_0']!r} in {record['token_0_share']:.0%}"
    )
    if np.isnan(sinks.score).any():
        raise UserError("a head has no query that qualifies: calibrate with longer prompts")
    print(f"{'layer':>5} {'head':>4} {'sink score':>10} {'s.e.':>7}")
    for index in np.argsort(-sinks.score, axis=None, kind="stable")[:_LISTED]:
        layer, head = divmod(int(index), n_heads)
        error = sinks.standard_error[layer, head]
        print(f"{layer:5d} {head:4d} {sinks.score[layer, head]:10.4f} {error:7.4f}")

"""Scores of a model's heads and blocks, saved so that they need not be computed again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.sinks.block_layout import Layout
from lm_eval_ext.methods.sinks.sink_scores import SinkConvention, SinkScores

FORMAT = 1


def scores_report(
    layout: Layout,
    scores: dict[str, dict[str, NDArray[np.float64]]],
    *,
    pretrained: str,
    calibration: dict[str, Any],
    sinks: SinkScores,
    convention: SinkConvention,
) -> dict[str, Any]:
    """Return the content of a scores file.

    `scores` are ``{"heads": {criterion: scores}, "blocks": {criterion: scores}}``.
    """
    return {
        "format": FORMAT,
        "pretrained": pretrained,
        "n_layers": layout.n_layers,
        "n_heads": layout.n_heads,
        "n_kv_heads": layout.n_kv_heads,
        "calibration": calibration,
        "sink": {
            **convention._asdict(),
            "n_prompts": sinks.n_prompts,
            "by_layer": _plain(sinks.by_layer),
            "standard_error": _plain(sinks.standard_error),
            "lengths": list(sinks.lengths),
            "n_prompts_by_length": sinks.n_prompts_by_length,
            "by_length": _plain(sinks.by_length),
            "variation_over_length": _plain(sinks.variation_over_length),
        },
        **{
            kind: {name: _plain(values) for name, values in by_name.items()}
            for kind, by_name in scores.items()
        },
    }


def read_scores(path: Path, criterion: str, unit: str) -> tuple[NDArray[np.float64], Any]:
    """Return the scores of a criterion and the record of their calibration data.

    Raises
    ------
    UserError
        If the file is not there, is another kind of file, or lacks the criterion.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"scores={path} cannot be read ({error}); make it with lm-eval-ext prune score"
        ) from error
    kind = "blocks" if unit == "block" else "heads"
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise UserError(f"scores={path} is not a file of lm-eval-ext prune score")
    known = report[kind]
    if criterion not in known:
        raise UserError(
            f"scores={path} has no {kind} scored by {criterion!r}, only by {', '.join(known)}"
        )
    return np.array(known[criterion], dtype=np.float64), report["calibration"]


def _plain(values: NDArray[np.float64]) -> Any:
    """Return an array as nested lists, with None for NaN."""
    plain = values.astype(object)
    plain[np.isnan(values)] = None
    return plain.tolist()

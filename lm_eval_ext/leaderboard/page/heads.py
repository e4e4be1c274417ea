"""Scores of a model's heads for the heatmap: from a pruned run's record, or from a scores file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm_eval_ext.errors import UserError


def scored_heads(results: Mapping[str, Any], scores_file: Path | None) -> dict[str, Any] | None:
    """Return scores of shape (n_layers, n_heads) and the removed heads, or None without scores.

    Parameters
    ----------
    results
        The results file of a run; a run of ``--model sink-pruned`` has its scores there.

    Raises
    ------
    UserError
        If the scores file is none.
    """
    config = results.get("config")
    ours = config.get("lm_eval_ext") if isinstance(config, dict) else None
    pruning = (ours.get("pruning") if isinstance(ours, dict) else None) or {}
    removed = [list(place) for place in pruning.get("removed_heads") or ()]
    if scores_file is not None:
        return {
            "criterion": "sink",
            "scores": _scores_in(scores_file),
            "removed": removed,
        }
    scores = pruning.get("scores")
    if not _is_matrix(scores):
        return None  # blocks have one score per layer, a dense run none
    return {"criterion": pruning.get("criterion", ""), "scores": scores, "removed": removed}


def _scores_in(path: Path) -> list[list[float | None]]:
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))["heads"]["sink"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a file of lm-eval-ext prune score ({error})") from error
    if not _is_matrix(scores):
        raise UserError(f"{path}: its sink scores are not layers of heads")
    return scores


def _is_matrix(scores: Any) -> bool:
    return (
        isinstance(scores, list)
        and len(scores) > 0
        and all(isinstance(row, list) and len(row) == len(scores[0]) > 0 for row in scores)
    )

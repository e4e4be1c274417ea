"""What the commands take as a run: an output folder of lm_eval, or a stored entry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard.entry import read_entry
from lm_eval_ext.leaderboard.options import RESULTS
from lm_eval_ext.leaderboard.run_data import RunOutput
from lm_eval_ext.leaderboard.run_output import read_run
from lm_eval_ext.leaderboard.task_samples import HEADLINE


def pooled_patterns(metrics: Sequence[str] | None) -> Sequence[str]:
    """Return which metrics that pool attempts have to be computed from samples."""
    return HEADLINE if metrics is None else metrics


def resolve(
    name: str,
    *,
    results: Path = RESULTS,
    pooled: Sequence[str] = HEADLINE,
    label: str | None = None,
) -> RunOutput:
    """Read a run named on the command line.

    Parameters
    ----------
    name
        A folder, the file of an entry, or the name of an entry in the folder of entries.
    results
        Folder of stored entries.
    pooled
        Patterns of the metrics that pool attempts to compute from samples.
    label
        Name in tables.

    Raises
    ------
    UserError
        If it is none of these, or damaged.
    """
    path = Path(name)
    if path.is_dir():
        return read_run(path, label=label, pooled=pooled)
    for candidate in (path, results / name, results / f"{name}.json"):
        if candidate.is_file():
            return read_entry(candidate)
    where = f"and {results} has no such entry" if results.is_dir() else f"nor is there {results}"
    raise UserError(
        f"{name}: no such folder or file, {where}; give the --output_path of an lm_eval run or an "
        "entry that lm-eval-ext leaderboard add has written"
    )

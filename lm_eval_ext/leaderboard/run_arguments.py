"""What the commands take as a run: an output folder of lm_eval, or a stored entry."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard.entry import read_entry
from lm_eval_ext.leaderboard.run_data import RunOutput
from lm_eval_ext.leaderboard.run_output import read_run
from lm_eval_ext.leaderboard.task_samples import HEADLINE

STORE = Path("leaderboards/results")


def add_store_argument(parser: argparse.ArgumentParser) -> None:
    """Declare where stored entries are."""
    parser.add_argument(
        "--store",
        type=Path,
        default=STORE,
        metavar="FOLDER",
        help="folder of stored entries (default: %(default)s)",
    )


def add_metrics_argument(
    parser: argparse.ArgumentParser,
    more: str = "all are tested together",
    default: str = "few, by name: pass@1, pass@ and maj@ of the most attempts, accuracy and such, "
    "debiased_ece and hallucination_auroc of the method's own confidence",
) -> None:
    """Declare which metrics to look at."""
    parser.add_argument(
        "--metrics",
        type=lambda text: [name.strip() for name in text.split(",") if name.strip()],
        metavar="NAMES",
        help="these, separated by commas, with * for anything: 'pass@*,maj@*'; "
        f"{more} (default: {default})",
    )


def add_format_argument(parser: argparse.ArgumentParser) -> None:
    """Declare how tables are printed."""
    parser.add_argument(
        "--format",
        choices=("text", "markdown"),
        default="text",
        help="form of the table (default: %(default)s)",
    )


def pooled_patterns(metrics: Sequence[str] | None) -> Sequence[str]:
    """Return which metrics that pool attempts have to be computed from samples."""
    return HEADLINE if metrics is None else metrics


def resolve(
    name: str, *, store: Path = STORE, pooled: Sequence[str] = HEADLINE, label: str | None = None
) -> RunOutput:
    """Read a run named on the command line.

    Parameters
    ----------
    name
        A folder, the file of an entry, or the name of an entry in the store.
    store
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
    for candidate in (path, store / name, store / f"{name}.json"):
        if candidate.is_file():
            return read_entry(candidate)
    where = f"and {store} has no entry {name}" if store.is_dir() else f"there is no store {store}"
    raise UserError(
        f"{name}: no such folder or file, {where}; give the --output_path of an lm_eval run or an "
        "entry that lm-eval-ext leaderboard add has written"
    )

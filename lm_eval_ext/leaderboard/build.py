"""``lm-eval-ext leaderboard build``: the board of many runs as Markdown, CSV, JSON, LaTeX, HTML."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import webbrowser
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard.board import board_of
from lm_eval_ext.leaderboard.entry import write_whole
from lm_eval_ext.leaderboard.options import FORMS, BuildOptions
from lm_eval_ext.leaderboard.page.size_limits import PageLimits
from lm_eval_ext.leaderboard.run_arguments import pooled_patterns, resolve
from lm_eval_ext.leaderboard.run_data import RunOutput
from lm_eval_ext.leaderboard.run_files import run_folders
from lm_eval_ext.leaderboard.tables import COLUMNS, as_csv, as_latex, as_markdown
from lm_eval_ext.leaderboard.worker_processes import in_processes


def run(options: BuildOptions) -> int:
    """Read the runs, write the board, say what could not be read, and return 1 if anything."""
    forms = options.formats or available_forms()
    names = options.runs or [str(path) for path in sorted(options.results.glob("*.json"))]
    if not names:
        raise UserError(
            f"{options.results}: holds no entries; give lm_eval output folders, or store some with "
            "lm-eval-ext leaderboard add"
        )
    runs, problems = read_all(
        [one for name in names for one in _runs_below(name)],
        results=options.results,
        pooled=pooled_patterns(options.metrics),
        processes=options.processes,
    )
    for problem in problems:
        print(f"lm-eval-ext: {problem}", file=sys.stderr)
    if not runs:
        raise UserError("no run could be read")
    board = board_of(runs, metrics=options.metrics or ["*"])
    if not board["cells"]:
        raise UserError(
            f"--metrics={','.join(options.metrics or ())}: no such metric in these runs"
        )
    written = write_board(
        board,
        options.output,
        forms=forms,
        columns=options.columns,
        processes=options.processes or cores(),
        limits=options.page,
    )
    for path in written:
        print(path)
    if options.open and "html" in forms:
        webbrowser.open(written[-1].resolve().as_uri())
    return 1 if problems else 0


def read_all(
    names: Sequence[str], *, results: Path, pooled: Sequence[str], processes: int | None = None
) -> tuple[list[RunOutput], list[str]]:
    """Read runs, several at once.

    Parameters
    ----------
    names
        As on the command line.
    results, pooled
        As in `resolve`.
    processes
        How many at once; by default one per core where there are several folders.

    Returns
    -------
    tuple
        The runs that could be read, in order and each once, and a line for each of the others.
    """
    read = partial(_read, results=results, pooled=tuple(pooled))
    folders = sum(Path(name).is_dir() for name in names)
    processes = min(processes or cores(), folders)
    found = list(
        tqdm(
            in_processes(read, names, processes),
            total=len(names),
            desc="Reading",
            unit="run",
            disable=None,
        )
    )
    runs, problems, seen = [], [], set()
    for name, result in zip(names, found, strict=True):
        if isinstance(result, str):
            problems.append(result)
        elif (key := _identity(result)) in seen:
            problems.append(f"{name}: is the same run as another one given; left out")
        else:
            seen.add(key)
            runs.append(result)
    return runs, problems


def write_board(
    board: dict[str, Any],
    folder: Path,
    *,
    forms: Sequence[str] = FORMS,
    columns: Sequence[str] = COLUMNS,
    processes: int = 1,
    limits: PageLimits | None = None,
) -> list[Path]:
    """Write a board in several forms, each file completely or not at all.

    Returns
    -------
    list of Path
        The files.
    """
    texts = {
        "json": lambda: json.dumps(board, ensure_ascii=False, indent=1, allow_nan=False) + "\n",
        "md": lambda: as_markdown(board, columns=columns),
        "csv": lambda: as_csv(board),
        "tex": lambda: as_latex(board, columns=columns),
    }
    written = []
    for form, text in texts.items():
        if form in forms:
            written.append(folder / f"board.{form}")
            write_whole(written[-1], text())
    if "html" in forms:
        written.append(_write_page(board, folder, processes, limits))
    return written


def available_forms() -> list[str]:
    """Return the forms that can be written; where the page cannot, say what it needs."""
    missing = [name for name in ("jinja2", "plotly") if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"lm-eval-ext: no page: it needs {' and '.join(missing)}; pip install "
            "'lm-eval-ext[report]'",
            file=sys.stderr,
        )
    return [form for form in FORMS if form != "html" or not missing]


def _runs_below(name: str) -> list[str]:
    """Return the runs of a folder of such; anything else as it is, for whoever reads it."""
    try:
        return [str(folder) for folder in run_folders(Path(name))]
    except UserError:
        return [name]


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _write_page(
    board: dict[str, Any], folder: Path, processes: int, limits: PageLimits | None
) -> Path:
    from lm_eval_ext.leaderboard.page.build import build_page

    folders = {run["id"]: Path(run["folder"]) for run in board["runs"] if run["folder"]}
    output = folder / "index.html"
    return build_page(board, folders, output, processes=processes, limits=limits)


def _read(name: str, *, results: Path, pooled: Sequence[str]) -> RunOutput | str:
    """Return a run, or the line that says why it cannot be read."""
    try:
        return resolve(name, results=results, pooled=pooled)
    except UserError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename or name}: {error.strerror}; left out"


def _identity(run: RunOutput) -> tuple[Any, ...]:
    hashes = tuple(sorted((t, o.details.samples_sha256) for t, o in run.tasks.items()))
    return (str(run.results.get("date")), run.model, hashes)

"""Build the page from a board and the output folders of its runs."""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard.page.document import render_document
from lm_eval_ext.leaderboard.page.embedding import ChunkWriter, pack
from lm_eval_ext.leaderboard.page.heads import scored_heads
from lm_eval_ext.leaderboard.page.size_limits import PageLimits
from lm_eval_ext.leaderboard.page.task_data import PAGE_SIZE, TaskData, read_task
from lm_eval_ext.leaderboard.run_files import newest_run
from lm_eval_ext.leaderboard.worker_processes import in_processes

SCHEMA = "lm_eval_ext.board/1"

logger = logging.getLogger(__name__)


def build_page(
    board: Mapping[str, Any],
    folders: Mapping[str, Path],
    output: Path,
    *,
    limits: PageLimits | None = None,
    sink_scores: Mapping[str, Path] | None = None,
    title: str = "Leaderboard",
    processes: int = 1,
) -> Path:
    """Write the leaderboard as one self-contained HTML file.

    Parameters
    ----------
    board
        The tables, a document of the schema ``lm_eval_ext.board/1``. Its printed values are shown
        as they are.
    folders
        lm_eval output folders by the id of their run: where charts and questions come from. A run
        without a folder has its row in the table only, and so has one whose files are damaged,
        which is logged.
    limits
        How much of the texts is kept; by default all but the middle of very long ones.
    sink_scores
        Files of ``lm-eval-ext prune score`` by the id of a run, for heatmaps of runs that were not
        pruned.
    processes
        Processes that read runs. More than one needs a program that other processes can import.

    Returns
    -------
    Path
        `output`.

    Raises
    ------
    UserError
        If the board is of another schema, a run is unknown, or a limit is impossible.
    """
    limits = limits or PageLimits()
    if board.get("schema") != SCHEMA:
        raise UserError(f"board: schema {board.get('schema')!r} is not {SCHEMA!r}; build it again")
    _check_ids(board, folders, "folders")
    _check_ids(board, sink_scores or {}, "sink_scores")
    output.parent.mkdir(parents=True, exist_ok=True)
    runs = _read_runs(folders, limits, sink_scores or {}, processes)
    with tempfile.TemporaryFile() as stream:
        chunks = ChunkWriter(stream)
        plotly = _plotly() if folders else None
        page = {
            "board": _without_folders(board),
            "page_size": PAGE_SIZE,
            "plotly": None if plotly is None else _library(chunks, plotly),
            "runs": {run_id: _added(chunks, run) for run_id, run in runs},
        }
        document = render_document(
            page, title=title, further_scripts=[] if plotly is None else [plotly]
        )
        stream.seek(0)
        # A page that is being served is replaced as a whole.
        unfinished = output.with_name(f"{output.name}.unfinished")
        try:
            with unfinished.open("wb") as file:
                file.write(document.before.encode("utf-8", errors="replace"))
                shutil.copyfileobj(stream, file)
                file.write(document.after.encode("utf-8", errors="replace"))
            unfinished.replace(output)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
    return output


class _RunData(NamedTuple):
    tasks: dict[str, TaskData]
    heads: bytes | None


def _read_runs(
    folders: Mapping[str, Path],
    limits: PageLimits,
    sink_scores: Mapping[str, Path],
    processes: int,
) -> Iterator[tuple[str, _RunData]]:
    """Yield the runs that can be read, in order; the others are logged."""
    jobs = [(folder, limits, sink_scores.get(run_id)) for run_id, folder in folders.items()]
    found = in_processes(_read_run, jobs, processes)
    progress = tqdm(found, total=len(jobs), desc="Reading runs", unit="run", disable=None)
    for run_id, data in zip(folders, progress, strict=True):
        if isinstance(data, str):
            logger.warning("%s; the page has only the run's table", data)
        else:
            yield run_id, data


def _read_run(job: tuple[Path, PageLimits, Path | None]) -> _RunData | str:
    """Return a run's data, or why they cannot be read."""
    folder, limits, scores_file = job
    try:
        files = newest_run(folder)
        configs = files.results.get("configs")
        tasks = {}
        for task, path in files.samples.items():
            config = configs.get(task) if isinstance(configs, dict) else None
            tasks[task] = read_task(path, (config or {}).get("metadata") or {}, limits)
        heads = scored_heads(files.results, scores_file)
    except UserError as error:
        return str(error)
    except (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        return f"{folder}: its samples cannot be shown ({error!r})"
    return _RunData(tasks, None if heads is None else pack(heads))


def _added(chunks: ChunkWriter, run: _RunData) -> dict[str, Any]:
    """Write the chunks of a run and return their numbers."""
    tasks = {
        task: {
            "index": chunks.add_packed(data.overview),
            "excerpts": chunks.add_packed(data.excerpts),
            "prompts": [chunks.add_packed(page) for page in data.prompts],
            "attempts": [chunks.add_packed(page) for page in data.attempts],
        }
        for task, data in run.tasks.items()
    }
    return {"tasks": tasks, "heads": None if run.heads is None else chunks.add_packed(run.heads)}


def _check_ids(board: Mapping[str, Any], named: Mapping[str, Any], argument: str) -> None:
    known = [run["id"] for run in board.get("runs", ())]
    for run_id in named:
        if run_id not in known:
            raise UserError(f"{argument}: no run {run_id!r} on the board, only {', '.join(known)}")


def _without_folders(board: Mapping[str, Any]) -> dict[str, Any]:
    """Return the board without the places of folders on this machine."""
    runs = [{k: v for k, v in run.items() if k != "folder"} for run in board["runs"]]
    return {**board, "runs": runs}


def _library(chunks: ChunkWriter, plotly: str) -> dict[str, Any]:
    """Write the library as a chunk and return what the page needs to start it.

    When it starts, Plotly adds a style sheet of its maps, which the page's policy forbids and
    nothing here needs. It does not where an element with the sheet's id is there already.
    """
    styles = re.findall(r'document\.getElementById\("([0-9a-f]{32,})"\)', plotly)
    return {"chunk": chunks.add_text(plotly), "styles": sorted(set(styles))}


def _plotly() -> str:
    """Return the source of the library that draws the charts."""
    try:
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError as error:
        raise UserError(
            "the page needs Plotly, which draws its charts; pip install 'lm-eval-ext[report]', or "
            "leave html out of --formats"
        ) from error

    # A script is compared with its hash after the browser has made all line ends alike.
    return get_plotlyjs().replace("\r\n", "\n").replace("\r", "\n")

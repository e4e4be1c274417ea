"""``lm-eval-ext leaderboard add``: store finished runs as small JSON files."""

from __future__ import annotations

import sys
from pathlib import Path

from tqdm import tqdm

from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard.entry import write_entry
from lm_eval_ext.leaderboard.options import AddOptions
from lm_eval_ext.leaderboard.run_data import RunOutput
from lm_eval_ext.leaderboard.run_files import files_of, output_folder, results_files
from lm_eval_ext.leaderboard.run_output import run_of


def run(options: AddOptions) -> int:
    """Add the runs, say what could not be added, and return 1 if there was any such."""
    found: list[Path] = []
    problems: list[str] = []
    for folder in options.folders:
        try:
            found += results_files(folder)
        except UserError as error:
            problems.append(str(error))
        problems += orphans(folder)
    if options.label is not None and len(found) > 1:
        raise UserError(
            f"--label={options.label}: names one run, and {len(found)} were found; give the folder "
            "of one"
        )
    added: dict[Path, Path | None] = {}
    for path in tqdm(found, desc="Adding", unit="run", disable=None if len(found) > 1 else True):
        try:
            output = read_whole(path, label=options.label)
            # Runs of several folders that are called alike do not replace each other.
            spare = [entry for entry, folder in added.items() if folder != output.folder]
            stored = write_entry(output, options.results, replace=options.replace, spare=spare)
            added[stored] = output.folder
        except UserError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"{error.filename or path}: {error.strerror}; left out")
        else:
            without = [task for task, o in output.tasks.items() if not o.questions]
            note = f" (no samples of {', '.join(without)}: no paired tests)" if without else ""
            print(f"added {stored}{note}")
    for problem in problems:
        print(f"lm-eval-ext: {problem}", file=sys.stderr)
    return 1 if problems else 0


def read_whole(path: Path, *, label: str | None = None) -> RunOutput:
    """Read the run of a results file with all its metrics.

    Parameters
    ----------
    label
        Name of the run; by default that of the folder given to lm_eval.

    Raises
    ------
    UserError
        If a file is damaged, or samples and results are not of one run.
    """
    files = files_of(path)
    folder = output_folder(files)
    return run_of(files, label=label or folder.resolve().name, pooled=("*",), folder=folder)


def orphans(folder: Path) -> list[str]:
    """Return a line for each sample file without the results of its run."""
    lines = []
    for path in sorted(folder.rglob("samples_*.jsonl")) if folder.is_dir() else ():
        stamp = path.stem.rpartition("_")[2]
        if not path.with_name(f"results_{stamp}.json").is_file():
            lines.append(
                f"{path}: no results_{stamp}.json beside it (interrupted, or a part of a run); "
                "left out"
            )
    return lines

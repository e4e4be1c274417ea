"""Find and read the files of ``lm_eval --output_path FOLDER --log_samples``."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval_ext.data.question_text import question_text
from lm_eval_ext.errors import UserError


class RunFiles(NamedTuple):
    """The files of one run."""

    path: Path
    results: dict[str, Any]
    samples: dict[str, Path]


def newest_run(folder: Path) -> RunFiles:
    """Find the newest run below a folder.

    Raises
    ------
    UserError
        If there is no run, its results file is damaged, or a task has no sample file.
    """
    newest = results_files(folder)[-1]
    files = files_of(newest)
    for task in files.results["n-samples"]:
        if task not in files.samples:
            missing = _sample_file(newest, task)
            raise UserError(
                f"{newest.parent}: no {missing.name} beside {newest.name}; run lm_eval with "
                "--log_samples"
            )
    return files


def results_files(folder: Path) -> list[Path]:
    """Find the results files below a folder, the newest last.

    Parameters
    ----------
    folder
        What was given to lm_eval as ``--output_path``, or a folder of such.

    Raises
    ------
    UserError
        If there is none.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the --output_path of an lm_eval run")
    found = sorted(folder.rglob("results_*.json"), key=lambda path: path.name)
    if not found:
        raise UserError(
            f"{folder}: holds no results_*.json; run lm_eval with --output_path {folder} "
            "--log_samples"
        )
    return found


def chosen_tasks(files: RunFiles, asked: Collection[str] | None) -> list[str]:
    """Return the tasks with samples, or those of them that are asked for.

    Raises
    ------
    UserError
        For one that the run does not have.
    """
    unknown = set(asked or ()) - files.samples.keys()
    if unknown:
        raise UserError(
            f"--tasks={','.join(sorted(unknown))}: the run has {', '.join(files.samples)}"
        )
    return list(asked or files.samples)


def run_folders(folder: Path) -> list[Path]:
    """Return the folders below one that hold runs: itself, where it is that of a single run.

    Parameters
    ----------
    folder
        What was given to lm_eval as ``--output_path``, or a folder of such.

    Raises
    ------
    UserError
        If there is no run.
    """
    holding = sorted({path.parent for path in results_files(folder)})
    return holding if len(holding) > 1 else [folder]


def output_folder(files: RunFiles) -> Path:
    """Return what was given to lm_eval as ``--output_path``: it adds a folder for the model."""
    folder = files.path.parent
    model = files.results.get("model_name_sanitized") or files.results.get("model_name")
    return folder.parent if folder.name == model else folder


def files_of(results_file: Path) -> RunFiles:
    """Read a results file, and find the sample files beside it that there are.

    Raises
    ------
    UserError
        If it is damaged or names no tasks.
    """
    results = _read_json(results_file)
    tasks = results.get("n-samples")
    if not isinstance(tasks, dict) or not tasks:
        raise UserError(f"{results_file}: names no tasks (n-samples); run lm_eval again")
    samples = {task: _sample_file(results_file, task) for task in tasks}
    return RunFiles(results_file, results, {t: p for t, p in samples.items() if p.is_file()})


def _sample_file(results_file: Path, task: str) -> Path:
    stamp = results_file.stem.removeprefix("results_")
    return results_file.with_name(f"samples_{task}_{stamp}.jsonl")


def read_samples(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the samples of a task, one per question and filter.

    Raises
    ------
    UserError
        For a line that is cut off or is not a sample; the message names the line.
    """
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                sample = json.loads(line)
                missing = {"doc_id", "doc_hash", "filter", "metrics"} - sample.keys()
            except (json.JSONDecodeError, AttributeError) as error:
                raise UserError(
                    f"{path}, line {number}: not a complete sample (cut off?); run lm_eval again"
                ) from error
            if missing:
                raise UserError(f"{path}, line {number}: no {sorted(missing)[0]} in this sample")
            if "attempts" in sample and not _are_attempts(sample["attempts"]):
                raise UserError(f"{path}, line {number}: damaged attempts; run lm_eval again")
            yield sample


def asked(sample: Mapping[str, Any]) -> tuple[str, str]:
    """Return the text of a sample's question, and its prompt.

    Parameters
    ----------
    sample
        As `read_samples` yields it. Where lm-eval logged neither its record nor its prompt, the
        hash of the record stands for both.
    """
    arguments = sample.get("arguments") or {}
    prompt = str(arguments.get("gen_args_0", {}).get("arg_0", sample["doc_hash"]))
    return question_text(sample.get("doc") or {}, otherwise=prompt), prompt


def attempt_texts(sample: Mapping[str, Any]) -> list[str]:
    """Return the texts of a sample's attempts, in the order of its ``attempts``."""
    responses = sample["resps"]
    return list(responses[0]) if len(responses) == 1 else [one[0] for one in responses]


def _are_attempts(value: Any) -> bool:
    """Tell whether a sample's attempts are the objects that `attempt_details` makes."""
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(attempt, dict) and "attempt" in attempt for attempt in value)
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); run lm_eval again") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: not a results file of lm_eval; run lm_eval again")
    return value

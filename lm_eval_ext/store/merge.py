"""``lm-eval-ext store merge``: put the attempts of several stores, or many files, into one file."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from lm_eval_ext.errors import UserError
from lm_eval_ext.store.appending import PATTERN, new_file_name, sync_folder
from lm_eval_ext.store.inspection import UNDESCRIBED, checked, store_files
from lm_eval_ext.store.lines import encode_line, read_lines

_CONTEXT = b'{"context":"'


@dataclass
class Merged:
    """What became of the lines of some stores.

    Parameters
    ----------
    n_attempts
        Attempts written.
    n_undescribed
        Those of them whose settings no sound line of any store describes.
    n_repeated
        Lines left out because an earlier one has the attempt.
    damaged
        Lines left out because they are not sound, as ``"file, line 3: why"``.
    cut_off
        Files whose last line was left out because it has no end.
    """

    n_attempts: int = 0
    n_undescribed: int = 0
    n_repeated: int = 0
    damaged: list[str] = field(default_factory=list)
    cut_off: list[Path] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("stores", nargs="+", type=Path, metavar="store", help="folders to read")
    parser.add_argument("--output", type=Path, required=True, help="a new folder for the attempts")


def run(args: argparse.Namespace) -> int:
    """Merge; return the exit status."""
    done = merge(args.stores, args.output)
    for line in done.damaged:
        print(f"left out: {line}")
    for path in done.cut_off:
        print(f"left out: {path}, the last line: cut off")
    if done.n_undescribed:
        print(UNDESCRIBED.format(done.n_undescribed))
    print(
        f"{args.output}: {done.n_attempts} attempts; left out: {done.n_repeated} repeated, "
        f"{len(done.damaged)} damaged and {len(done.cut_off)} cut-off lines"
    )
    return 0


def merge(stores: list[Path], output: Path) -> Merged:
    """Write every sound attempt of some stores once; where several lines have it, the first.

    Parameters
    ----------
    stores
        Folders to read.
    output
        Folder to write; there whole or not at all.

    Returns
    -------
    Merged
        What was written and what was left out.

    Raises
    ------
    UserError
        If a folder is not a store, the output holds one already, or it cannot be written.
    """
    files = [path for store in stores for path in store_files(store)]
    if output.is_dir() and any(output.glob(PATTERN)):
        raise UserError(f"--output={output} holds a store already; give a new folder")
    name = new_file_name()
    scratch = output / f".writing-{name}"
    contexts = _contexts(files)
    try:
        output.mkdir(parents=True, exist_ok=True)
        with scratch.open("xb") as file:
            done = _write(files, contexts, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, output / name)
        sync_folder(output)
    except OSError as error:
        where = error.filename or scratch
        raise UserError(
            f"--output={output}: {where}: {error.strerror}; nothing was merged: make room, or give "
            "another folder"
        ) from error
    finally:
        if output.is_dir():
            scratch.unlink(missing_ok=True)
    return done


def _contexts(files: list[Path]) -> dict[str, Any]:
    """Return every context that a sound line describes, wherever it stands."""
    found: dict[str, Any] = {}
    for path in tqdm(files, desc="Reading settings", unit="file", disable=None):
        for line in read_lines(path):
            if line.complete and line.data.startswith(_CONTEXT):
                try:
                    _, name, value = checked(line.data)
                except (ValueError, KeyError, TypeError):
                    continue  # counted where all lines are read
                found.setdefault(name, value)
    return found


def _write(files: list[Path], contexts: dict[str, Any], output: BinaryIO) -> Merged:
    """Write what is sound, and each context before its first attempt."""
    done = Merged()
    seen: set[str] = set()
    for path in tqdm(files, desc="Merging", unit="file", disable=None):
        for line in read_lines(path):
            if not line.complete:
                done.cut_off.append(path)
                continue
            try:
                kind, name, value = checked(line.data)
            except (ValueError, KeyError, TypeError) as error:
                done.damaged.append(f"{path}, line {line.number}: {error or type(error).__name__}")
                continue
            if kind != "key":
                continue  # a context is written with its first attempt
            if name in seen:
                done.n_repeated += 1
                continue
            seen.add(name)
            context = value["context"]
            done.n_attempts += 1
            done.n_undescribed += context not in contexts
            if context in contexts and context not in seen:
                seen.add(context)
                output.write(encode_line("context", context, contexts[context]))
            output.write(encode_line(kind, name, value))
    return done

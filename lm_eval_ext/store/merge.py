"""``lm-eval-ext store merge``: put the attempts of several stores, or many files, into one file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from lm_eval_ext.errors import UserError
from lm_eval_ext.store.appending import PATTERN, new_file_name, sync_folder
from lm_eval_ext.store.inspection import UNDESCRIBED, StoreContents, store_files
from lm_eval_ext.store.lines import encode_line
from lm_eval_ext.store.options import MergeOptions


def run(options: MergeOptions) -> int:
    """Merge; return the exit status."""
    done = merge(options.stores, options.output)
    for line in done.damaged:
        print(f"left out: {line}")
    for path in done.cut_off:
        print(f"left out: {path}, the last line: cut off")
    n_undescribed = sum(done.undescribed.values())
    if n_undescribed:
        print(UNDESCRIBED.format(n_undescribed))
    print(
        f"{options.output}: {done.n_attempts} attempts; left out: {done.n_repeated} repeated, "
        f"{len(done.damaged)} damaged and {len(done.cut_off)} cut-off lines"
    )
    return 0


def merge(stores: Sequence[Path], output: Path) -> StoreContents:
    """Write every sound attempt of some stores once; where several lines have it, the first.

    The file in the folder `output` is there whole or not at all.

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
    """Return every context that a sound line describes, wherever it is."""
    found = StoreContents()  # faults are told where all lines are read again
    for path in tqdm(files, desc="Reading settings", unit="file", disable=None):
        for _, name, value in found.sound_lines(path, shown=path, kind="context"):
            found.contexts.setdefault(name, value)
    return dict(found.contexts)


def _write(files: list[Path], contexts: dict[str, Any], output: BinaryIO) -> StoreContents:
    """Write what is sound, and each context before its first attempt."""
    done = StoreContents(contexts=dict(contexts))
    for path in tqdm(files, desc="Merging", unit="file", disable=None):
        for kind, name, value in done.sound_lines(path, shown=path):
            if kind != "key" or not done.add(value):
                continue
            context = contexts.pop(value["context"], None)
            if context is not None:
                output.write(encode_line("context", value["context"], context))
            output.write(encode_line(kind, name, value))
    return done

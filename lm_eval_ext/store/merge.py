"""``lm-eval-ext store merge``: put the attempts of several stores, or many files, into one file."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import jsonlines
from tqdm import tqdm

from lm_eval_ext.errors import UserError
from lm_eval_ext.store.appending import PATTERN, new_file_name
from lm_eval_ext.store.inspection import store_files
from lm_eval_ext.store.lines import dumps, opened, read_lines, sealed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("stores", nargs="+", type=Path, metavar="store", help="folders to read")
    parser.add_argument("--output", type=Path, required=True, help="a new folder for the attempts")


def run(args: argparse.Namespace) -> int:
    """Merge; return the exit status."""
    n_attempts, n_left_out = merge(args.stores, args.output)
    print(
        f"{args.output}: {n_attempts} attempts; {n_left_out} repeated, damaged or cut-off lines "
        "left out"
    )
    return 0


def merge(stores: list[Path], output: Path) -> tuple[int, int]:
    """Write every sound attempt of some stores once; where several lines have it, the first.

    Parameters
    ----------
    stores
        Folders to read.
    output
        Folder to write; there whole or not at all.

    Returns
    -------
    tuple of int
        Attempts written, lines left out.

    Raises
    ------
    UserError
        If a folder is no store, or the output holds one already.
    """
    files = [path for store in stores for path in store_files(store)]
    if output.is_dir() and any(output.glob(PATTERN)):
        raise UserError(f"--output={output} holds a store already; give a new folder")
    output.mkdir(parents=True, exist_ok=True)
    name = new_file_name()
    scratch = output / f".writing-{name}"
    seen: set[tuple[str, str]] = set()
    n_attempts = n_left_out = 0
    with scratch.open("w", encoding="ascii") as file:
        writer = jsonlines.Writer(file, dumps=dumps)
        for path in tqdm(files, desc="Merging", unit="file"):
            for line in read_lines(path):
                try:
                    kind, key, value = opened(line.data if line.complete else b"")
                except ValueError:
                    n_left_out += 1
                    continue
                if (kind, key) not in seen:
                    seen.add((kind, key))
                    writer.write(sealed(kind, key, value))
                    n_attempts += kind == "key"
                else:
                    n_left_out += kind == "key"
        file.flush()
        os.fsync(file.fileno())
    os.replace(scratch, output / name)
    return n_attempts, n_left_out

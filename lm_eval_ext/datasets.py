"""The published data sets, from the Hugging Face Hub or from a folder of the same files.

A task YAML names a loader as ``custom_dataset: !function lm_eval_ext.datasets.gsm8k``; lm-eval
calls it with the task's metadata. With the environment variable ``LM_EVAL_EXT_DATA``, or with
``--metadata '{"data_folder": "..."}'``, the records are read from that folder and no network is
used; the two ways give equal records.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lm_eval_ext.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

DATA_VARIABLE = "LM_EVAL_EXT_DATA"
"""Environment variable that names the folder of local data."""


class Published(NamedTuple):
    """Where a data set is published and what its local copy is called.

    Parameters
    ----------
    hub_id
        Name on the Hugging Face Hub.
    configuration
        Its configuration there.
    files
        Split -> name of the JSON Lines file in a local folder.
    fields
        Fields that every record has.
    """

    hub_id: str
    configuration: str
    files: Mapping[str, str]
    fields: tuple[str, ...]


PUBLISHED = {
    "gsm8k": Published(
        hub_id="openai/gsm8k",
        configuration="main",
        files={"train": "gsm8k_train.jsonl", "test": "gsm8k_test.jsonl"},
        fields=("question", "answer"),
    ),
}
"""Data sets by name."""


def gsm8k(**metadata: Any) -> dict[str, Dataset]:
    """Return the test split of GSM8K; a ``custom_dataset`` of an lm-eval task.

    lm-eval passes the whole task metadata; only ``data_folder`` is read.
    """
    return {"test": load_split("gsm8k", "test", data_folder=metadata.get("data_folder"))}


def load_split(name: str, split: str, *, data_folder: str | None = None) -> Dataset:
    """Return one split of a published data set.

    Parameters
    ----------
    name
        One of `PUBLISHED`.
    split
        One of its splits.
    data_folder
        Folder of local files; by default the one ``LM_EVAL_EXT_DATA`` names, and without either
        the Hub.

    Returns
    -------
    datasets.Dataset
        The records as published, in order.

    Raises
    ------
    UserError
        For an unknown name or split, a missing or damaged file, or a Hub that cannot be reached.
    """
    published = _lookup(name, split)
    source = f"data_folder={data_folder}"
    if data_folder is None:
        data_folder = os.environ.get(DATA_VARIABLE)
        source = f"{DATA_VARIABLE}={data_folder}"
    if not data_folder:
        return _from_hub(published, split)

    from datasets import Dataset

    path = Path(data_folder).expanduser() / published.files[split]
    if not path.is_file():
        raise UserError(
            f"{source} has no file {path.name}: put it there (the {split} split of "
            f"{published.hub_id} as JSON Lines) or unset {DATA_VARIABLE} to use the Hub"
        )
    return Dataset.from_list(read_json_lines(path, fields=published.fields))


def read_json_lines(path: str | Path, *, fields: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Read a JSON Lines file of records and check every line.

    Parameters
    ----------
    path
        UTF-8 file with one JSON object per line; empty lines are skipped.
    fields
        Fields that every record must have.

    Raises
    ------
    UserError
        For a file without records or a line that is no such record; the message names the line.
    """
    records = []
    with Path(path).open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                records.append(_record(line, f"{path}, line {number}", fields))
    if not records:
        raise UserError(f"{path} has no records: replace it by the complete file")
    return records


def gsm8k_exemplars() -> list[dict[str, str]]:
    """Return the eight chain-of-thought exemplars of GSM8K, as ``question`` and ``target``.

    They are read from the task ``gsm8k_cot`` of the installed lm-eval, so that the prompt of
    ``gsm8k_passn`` cannot drift from the one the literature and lm-eval use.

    Raises
    ------
    UserError
        If that task has moved or holds no exemplars.

    References
    ----------
    Wei et al. 2022, Chain-of-Thought Prompting, arXiv:2201.11903, appendix G, table 20.
    """
    import lm_eval.tasks
    import yaml

    path = Path(next(iter(lm_eval.tasks.__path__)), "gsm8k", "gsm8k-cot.yaml")
    try:
        task = yaml.safe_load(path.read_text(encoding="utf-8"))
        samples: list[dict[str, str]] = task["fewshot_config"]["samples"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError(
            f"the installed lm-eval has no chain-of-thought exemplars in {path} "
            f"({type(error).__name__}): use the task gsm8k_passn_chat or lm-eval 0.4.13"
        ) from error
    return samples


def _lookup(name: str, split: str) -> Published:
    if name not in PUBLISHED:
        raise UserError(f"name={name!r} is unknown: use one of {', '.join(sorted(PUBLISHED))}")
    published = PUBLISHED[name]
    if split not in published.files:
        raise UserError(f"split={split!r} is unknown: use one of {', '.join(published.files)}")
    return published


def _from_hub(published: Published, split: str) -> Dataset:
    from datasets import Dataset, load_dataset

    try:
        dataset = load_dataset(published.hub_id, published.configuration, split=split)
    # Connection errors, "offline mode" and "not found" are all OSErrors.
    except OSError as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"cannot load {published.hub_id} from the Hugging Face Hub ({reason}): connect, or set "
            f"{DATA_VARIABLE} to a folder with {published.files[split]}"
        ) from error
    assert isinstance(dataset, Dataset)
    return dataset


def _record(line: bytes, place: str, fields: tuple[str, ...]) -> dict[str, Any]:
    """Parse one line of a JSON Lines file."""
    try:
        record = json.loads(line)
    except ValueError as error:  # bad JSON and bad UTF-8
        cut = "" if line.endswith(b"\n") else " (the file may be cut off)"
        raise UserError(f"{place}: not valid JSON{cut}: {error}; fetch the file again") from error
    missing = [field for field in fields if not isinstance(record, dict) or field not in record]
    if missing or not isinstance(record, dict):
        raise UserError(f"{place}: a record with {', '.join(fields)} is expected; fetch it again")
    return record

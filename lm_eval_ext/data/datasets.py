"""The published data sets, from the Hugging Face Hub or from a folder of the same files.

A task YAML names a loader as ``custom_dataset: !function lm_eval_ext.data.datasets.gsm8k``; lm-eval
calls it with the task's metadata. With the environment variable ``LM_EVAL_EXT_DATA``, or with
``--metadata '{"data_folder": "..."}'``, the records are read from that folder and no network is
used; the two ways give equal records, in the published order.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lm_eval_ext.checks import check_choice
from lm_eval_ext.data import word_problems
from lm_eval_ext.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

DATA_VARIABLE = "LM_EVAL_EXT_DATA"  # environment variable that names the folder of local data


Record = Mapping[str, Any]


class Published(NamedTuple):
    """Where a data set is published and what its local copy is called."""

    hub_id: str
    configuration: str
    files: Mapping[str, str]  # split -> name of the JSON Lines file in a local folder
    fields: tuple[str, ...]  # that every record has; others are left out
    # Whether a local record is in a split, where the file holds more than one, or configurations.
    belongs: Callable[[Record, str], bool] | None = None
    hub_split: str | None = None  # to load there, where its splits are not those of ``files``
    hub_fields: tuple[str, ...] | None = None  # where those on the Hub are others
    # Makes the questions of a split from all records, local or of the Hub.
    select: Callable[[Sequence[Record], str], list[dict[str, Any]]] | None = None


MATH_SUBJECTS = {
    "algebra": "Algebra",
    "counting_and_probability": "Counting & Probability",
    "geometry": "Geometry",
    "intermediate_algebra": "Intermediate Algebra",
    "number_theory": "Number Theory",
    "prealgebra": "Prealgebra",
    "precalculus": "Precalculus",
}
"""The subjects of MATH: configuration on the Hub -> ``type`` of its records."""

MBPP_SPLITS = {
    "prompt": range(1, 11),
    "test": range(11, 511),
    "validation": range(511, 601),
    "train": range(601, 975),
}
"""The splits of MBPP, of the sanitized version too: the ``task_id`` of their records."""


def _is_of_subject(record: Record, split: str, *, subject: str) -> bool:
    return bool(record["type"] == subject)


def _is_of_mbpp_split(record: Record, split: str) -> bool:
    return record["task_id"] in MBPP_SPLITS[split]


PUBLISHED = {
    "gsm8k": Published(
        hub_id="openai/gsm8k",
        configuration="main",
        files={"train": "gsm8k_train.jsonl", "test": "gsm8k_test.jsonl"},
        fields=("question", "answer"),
    ),
    "math500": Published(
        hub_id="HuggingFaceH4/MATH-500",
        configuration="default",
        files={"test": "math500.jsonl"},
        fields=("problem", "solution", "answer", "subject", "level", "unique_id"),
    ),
    **{
        f"math_{configuration}": Published(
            hub_id="EleutherAI/hendrycks_math",
            configuration=configuration,
            files={"train": "math_train.jsonl", "test": "math_test.jsonl"},
            fields=("problem", "level", "type", "solution"),
            belongs=partial(_is_of_subject, subject=subject),
        )
        for configuration, subject in MATH_SUBJECTS.items()
    },
    "mbpp": Published(
        hub_id="google-research-datasets/mbpp",
        configuration="full",
        files=dict.fromkeys(MBPP_SPLITS, "mbpp.jsonl"),
        fields=("task_id", "text", "code", "test_list", "test_setup_code", "challenge_test_list"),
        belongs=_is_of_mbpp_split,
    ),
    "mbpp_sanitized": Published(
        hub_id="google-research-datasets/mbpp",
        configuration="sanitized",
        files=dict.fromkeys(MBPP_SPLITS, "mbpp_sanitized.jsonl"),
        fields=("task_id", "prompt", "code", "test_imports", "test_list"),
        belongs=_is_of_mbpp_split,
    ),
    **{
        name: Published(
            hub_id="MU-NLPC/Calc-mawps",
            configuration="original-splits",
            files=dict.fromkeys(("train", "test"), "mawps.jsonl"),
            fields=("subset", "question", "answer"),
            hub_split="train+validation+test",
            hub_fields=("question", "result", "equation"),
            select=partial(word_problems.mawps, single_step=single_step),
        )
        for name, single_step in (("mawps", False), ("mawps_singleop", True))
    },
    **{
        name: Published(
            hub_id="ChilleD/SVAMP",
            configuration="default",
            files={"test": "svamp.jsonl"},
            fields=("ID", "Body", "Question", "Answer"),
            hub_split="train+test",
            select=partial(word_problems.svamp, untwinned=untwinned),
        )
        for name, untwinned in (("svamp", False), ("svamp_untwinned", True))
    },
    "aime24": Published(
        hub_id="HuggingFaceH4/aime_2024",
        configuration="default",
        files={"test": "aime24.jsonl"},
        fields=("id", "problem", "solution", "answer"),
        hub_split="train",
    ),
}
"""Data sets by name."""


def _loader(name: str, *splits: str) -> Callable[..., dict[str, Dataset]]:
    """Return a ``custom_dataset`` for the YAML file of a task.

    lm-eval passes it the whole task metadata; only ``data_folder`` is read.
    """

    def load(*, data_folder: str | None = None, **_metadata: Any) -> dict[str, Dataset]:
        return {split: load_split(name, split, data_folder=data_folder) for split in splits}

    return load


gsm8k = _loader("gsm8k", "test")
gsm8k_train = _loader("gsm8k", "train")
math500 = _loader("math500", "test")
mbpp = _loader("mbpp", "test", "prompt")  # the exemplars are the split ``prompt``
mbpp_train = _loader("mbpp", "train", "prompt")
mbpp_sanitized = _loader("mbpp_sanitized", "test", "prompt")
mawps = _loader("mawps", "train", "test")
mawps_singleop = _loader("mawps_singleop", "train", "test")
svamp = _loader("svamp", "test")
svamp_untwinned = _loader("svamp_untwinned", "test")
aime24 = _loader("aime24", "test")


def math(**metadata: Any) -> dict[str, Dataset]:
    """Return the test split of one subject of MATH; see `gsm8k`.

    The subject is the key ``subject`` of the task's ``dataset_kwargs``, one of `MATH_SUBJECTS`.

    Raises
    ------
    UserError
        For a missing or unknown subject, and as `load_split`.
    """
    subject = metadata.get("subject")
    check_choice("subject", subject, MATH_SUBJECTS)
    return _loader(f"math_{subject}", "test")(**metadata)


def math_train(**metadata: Any) -> dict[str, Dataset]:
    """Return the training split of all subjects of MATH, without the exemplars.

    The usual four-shot prompt shows training problems: asked with it, they would hold their answer.
    """
    from datasets import concatenate_datasets

    from lm_eval_ext.data.exemplars import math_exemplars

    whole = concatenate_datasets(
        [_loader(f"math_{name}", "train")(**metadata)["train"] for name in MATH_SUBJECTS]
    )
    shown = {" ".join(exemplar["problem"].split()) for exemplar in math_exemplars()}
    asked = [i for i, text in enumerate(whole["problem"]) if " ".join(text.split()) not in shown]
    return {"train": whole.select(asked)}


def load_split(name: str, split: str, *, data_folder: str | None = None) -> Dataset:
    """Return one split of a data set of `PUBLISHED`.

    Parameters
    ----------
    data_folder
        Folder of local files; by default the one ``LM_EVAL_EXT_DATA`` names, and without either
        the Hub.

    Returns
    -------
    datasets.Dataset
        The records as published, in order, with the fields of `PUBLISHED`; for MAWPS and SVAMP,
        what `lm_eval_ext.data.word_problems` makes of them.

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
        records = _from_hub(published, split)
        return _selected(records.to_list(), name, split, source) if published.select else records

    from datasets import Dataset

    path = Path(data_folder).expanduser() / published.files[split]
    if not path.is_file():
        raise UserError(
            f"{source} has no file {path.name}: put it there (the {split} split of "
            f"{published.hub_id} as JSON Lines) or unset {DATA_VARIABLE} to use the Hub"
        )
    local = read_json_lines(path, fields=published.fields)
    if published.select:
        return _selected(local, name, split, str(path))
    if published.belongs is not None:
        local = [record for record in local if published.belongs(record, split)]
    _check_found(local, name, split, str(path))
    return Dataset.from_list([{f: record[f] for f in published.fields} for record in local])


def _selected(records: list[dict[str, Any]], name: str, split: str, source: str) -> Dataset:
    from datasets import Dataset

    select = PUBLISHED[name].select
    assert select is not None
    questions = select(records, split)
    _check_found(questions, name, split, source)
    return Dataset.from_list(questions)


def _check_found(records: Sequence[Record], name: str, split: str, source: str) -> None:
    if not records:
        raise UserError(
            f"{source} has no records of the {split} split of {name}: replace it by the complete "
            "file"
        )


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
        For a file without records or a line that is not such a record; the message names the line.
    """
    records = []
    with Path(path).open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                records.append(_record(line, f"{path}, line {number}", fields))
    if not records:
        raise UserError(f"{path} has no records: replace it by the complete file")
    return records


def _lookup(name: str, split: str) -> Published:
    check_choice("name", name, sorted(PUBLISHED))
    published = PUBLISHED[name]
    check_choice("split", split, published.files)
    return published


def _from_hub(published: Published, split: str) -> Dataset:
    from datasets import Dataset, load_dataset

    try:
        dataset = load_dataset(
            published.hub_id, published.configuration, split=published.hub_split or split
        )
    # Connection errors, "offline mode" and "not found" are all OSErrors.
    except OSError as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"cannot load {published.hub_id} from the Hugging Face Hub ({reason}): connect, or set "
            f"{DATA_VARIABLE} to a folder with {published.files[split]}"
        ) from error
    assert isinstance(dataset, Dataset)
    fields = published.hub_fields or published.fields
    missing = sorted(set(fields) - set(dataset.column_names))
    if missing:
        raise UserError(
            f"{published.hub_id} on the Hugging Face Hub has no {', '.join(missing)} any more: set "
            f"{DATA_VARIABLE} to a folder with {published.files[split]}"
        )
    return dataset.select_columns(list(fields))


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

"""The validation split of PIQA from a local file, for `piqa_published.yaml`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from datasets import Dataset

from lm_eval_ext.data.datasets import DATA_VARIABLE, read_json_lines


def validation(**metadata: Any) -> dict[str, Dataset]:
    """Return the split, as a ``custom_dataset`` of an lm-eval task."""
    path = Path(os.environ[DATA_VARIABLE]).expanduser() / "piqa_validation.jsonl"
    rows = read_json_lines(path, fields=("goal", "sol1", "sol2", "label"))
    return {"validation": Dataset.from_list(rows)}

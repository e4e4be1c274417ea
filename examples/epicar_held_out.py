"""How training settings compare on the problems that `train epicar` and `train star` held out.

For choosing settings without a look at test questions. Reads the folders of finished trainings that
held out the same problems; the first is the baseline of the differences.

python examples/epicar_held_out.py runs/star runs/epicar runs/epicar-other
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from lm_eval_ext.metrics import auroc, cluster_bootstrap, mean_over_questions, paired_bootstrap

SOURCE = "self_eval"


def read_lines(path: Path) -> list[dict]:
    """Return the records of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read(folder: Path) -> dict[str, np.ndarray]:
    """Return what is known of the held-out attempts of a training, in a fixed order."""
    family = {i: record["family"] for i, record in enumerate(read_lines(folder / "problems.jsonl"))}
    rows = read_lines(folder / "held-out" / "labelled.jsonl")
    rows.sort(key=lambda row: (row["problem"], row["attempt"]))
    return {
        "problem": np.array([row["problem"] for row in rows]),
        "family": np.array([family[row["problem"]] for row in rows]),
        "correct": np.array([row["correct"] for row in rows], dtype=float),
        "confidence": np.array([row["probabilities"][SOURCE] for row in rows]),
    }


def shown(found: object, sign: str = "") -> str:
    """Return an estimate with its interval."""
    values = (
        getattr(found, "difference", None) if sign else found.estimate,  # type: ignore[attr-defined]
        found.low,  # type: ignore[attr-defined]
        found.high,  # type: ignore[attr-defined]
    )
    first, low, high = (f"{value:{sign}.3f}" for value in values)
    return f"{first} ({low}, {high})"


def row(name: str, own: dict[str, np.ndarray], base: dict[str, np.ndarray], family: str) -> str:
    """Return one line of the table."""
    mine = own["family"] == family
    if not np.array_equal(own["problem"], base["problem"]):
        raise SystemExit(f"{name}: held out other problems than the baseline")
    problems = own["problem"][mine]
    accuracy = cluster_bootstrap(
        mean_over_questions, {"values": own["correct"][mine]}, clusters=problems
    )
    ranking = cluster_bootstrap(
        auroc,
        {"correct": own["correct"][mine] > 0, "confidence": own["confidence"][mine]},
        clusters=problems,
    )
    difference = paired_bootstrap(
        mean_over_questions,
        {"values": own["correct"][mine]},
        {"values": base["correct"][mine]},
        clusters=(problems, problems),
    )
    cells = [family, name, shown(accuracy), shown(difference, "+"), shown(ranking)]
    return f"| {' | '.join(cells)} | {len(np.unique(problems))} |"


def main() -> None:
    """Read, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path, help="output folders; first the baseline")
    args = parser.parse_args()
    runs = {str(folder): read(folder) for folder in args.folders}
    base = next(iter(runs.values()))
    print("| problems | training | accuracy | difference | AUROC of self_eval | n |")
    print("|---|---|---|---|---|---|")
    for family in dict.fromkeys(base["family"]):
        for name, own in runs.items():
            print(row(name, own, base, str(family)))


if __name__ == "__main__":
    main()

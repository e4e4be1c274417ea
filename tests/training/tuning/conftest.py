"""Fixtures for self-evaluation."""

import json

import pytest


@pytest.fixture
def write_run(tmp_path):
    """Return a function that writes an lm_eval output folder with the given attempts."""

    def write(questions, *, test_split="train"):
        folder = tmp_path / "run" / "model"
        folder.mkdir(parents=True)
        stamp = "2026-01-01T00-00-00.000000"
        results = {
            "n-samples": {"task": {"original": len(questions)}},
            "configs": {"task": {"test_split": test_split}},
            "model_name": "m",
        }
        (folder / f"results_{stamp}.json").write_text(json.dumps(results))
        rows = [
            {"doc_id": i, "doc_hash": str(i), "filter": "none", "metrics": [], "attempts": attempts}
            for i, attempts in enumerate(questions)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"samples_task_{stamp}.jsonl").write_text(text)
        return folder.parent

    return write

"""Stores that an earlier release wrote are continued: nothing is drawn again.

The files in ``golden`` were written by release 0.1.0, whose keys held its version.
"""

import shutil
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"
PROMPTS = [
    "Question: Ann has 3 apples and buys 4 more. How many has she?\nAnswer:",
    "Problem: Compute 2+3.\nSolution:",
]
PRUNED = {"ratio": 0.25, "calibration": "tiny", "calibration_size": 4}
# By file: wrapper, its arguments, generation settings beside the common ones.
RUNS = {
    "sampled": ("sampled", {}, {}),
    "greedy": ("sampled", {"max_length": 256, "seed": 3}, {"do_sample": False}),
    "judged": (
        "sampled",
        {"self_eval": True, "self_eval_labels": " B+ A", "box_completion": True},
        {"top_p": 0.9},
    ),
    "rsp": ("rsp", {"length": 4, "scale": 0.5, "position": "prefix"}, {}),
    "rsp-shared": ("rsp", {"control": "shared", "distribution": "per_dim"}, {}),
    "epicar": ("epicar", {"calibration_temperature": 2.0}, {}),
    "sink-pruned": ("sink-pruned", PRUNED, {}),
    "draft-eu": ("draft-eu", {"aggregate": "max"}, {}),
    "tokur": (
        "draft-eu",
        {"drafts": "tiny", "reference": "tokur", "reference_samples": 2, "rank": 2},
        {},
    ),
}
# Neutral settings, and other names of the same: answered from the file of another run.
ALIKE = {
    "rsp without vectors": ("rsp", {"length": 0, "scale": 3.0}, {}),
    "nothing pruned": ("sink-pruned", {"ratio": 0}, {}),
    "not judged": ("epicar", {"self_eval": False}, {}),
    "the same heads": ("sink-pruned", {**PRUNED, "pruning_seed": 7}, {}),
    "another speed": ("sampled", {"batch_size": 1, "softmax_dtype": "float64"}, {}),
}


@pytest.fixture
def golden_store(tmp_path):
    """Return a copy of the stored attempts."""
    for path in GOLDEN.glob("*.jsonl"):
        shutil.copy(path, tmp_path)
    return tmp_path


def test_every_wrapper_and_every_file_is_asked_for(wrappers):
    assert {name for name, _, _ in RUNS.values()} == set(wrappers)
    assert {path.stem.removeprefix("attempts-") for path in GOLDEN.iterdir()} == set(RUNS)


@pytest.mark.parametrize("run", RUNS | ALIKE)
def test_a_store_of_the_release_before_is_continued(run, wrappers, complete, golden_store):
    name, arguments, asked = (RUNS | ALIKE)[run]
    lm = wrappers[name]("tiny", **{"seed": 0, "batch_size": 4, **arguments, "store": golden_store})
    lm._sample = lm.annotate = None  # would fail
    n_attempts = 1 if asked.get("do_sample") is False else 2
    answers = complete(
        lm, n_attempts, PROMPTS, **{"max_gen_toks": 6, "until": ["Question"], **asked}
    )
    assert lm.store.n_appended == 0
    assert len(answers) == 2 * n_attempts
    assert all(answer.record.token_ids for answer in answers)


def test_other_settings_are_not_answered_from_it(wrappers, complete, golden_store):
    for name, arguments in (
        ("sampled", {"seed": 1}),
        ("rsp", {"length": 4, "scale": 0.6, "position": "prefix"}),
        ("sink-pruned", {**PRUNED, "ratio": 0.5}),
    ):
        lm = wrappers[name]("tiny", **{"seed": 0, "batch_size": 4, **arguments}, store=golden_store)
        complete(lm, 2, PROMPTS, max_gen_toks=6, until=["Question"])
        assert lm.store.n_appended == 4, name

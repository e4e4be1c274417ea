"""The study of drafts: what it reads from its files, and a run of it on the shipped model."""

import json

import numpy as np
import pytest

from lm_eval_ext.engine.packed import ForcedAttempt
from lm_eval_ext.methods.epistemic.reference import AttemptKey
from lm_eval_ext.methods.epistemic.response_scoring import FinishedAttempt


@pytest.fixture
def parts(study_module):
    return study_module("draft_parts")


@pytest.fixture
def reading(study_module):
    return study_module("draft_reading")


@pytest.fixture
def study(study_module):
    return study_module("draft_eu")


def responses(parts, lengths, correct=None):
    attempts = [
        FinishedAttempt(ForcedAttempt((1,), tuple(range(n))), AttemptKey("p", i))
        for i, n in enumerate(lengths)
    ]
    n_tokens = sum(lengths)
    return parts.Sampled(
        attempts,
        np.arange(len(lengths)),
        np.array(correct or [True] * len(lengths)),
        np.linspace(0.1, 0.2, n_tokens),
        np.linspace(0.3, 0.1, n_tokens),
    )


def test_the_first_responses_keep_their_tokens(parts):
    sampled = responses(parts, [2, 3, 4])
    first = sampled.first(2)
    assert len(first.attempts) == 2
    assert first.entropy.tolist() == sampled.entropy[:5].tolist()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_reference_says_how_many_responses_have_it(parts, reading, n):
    sampled = responses(parts, [2, 3, 4])
    n_tokens = sum([2, 3, 4][:n])
    scored = reading.scored_part(sampled, np.ones(n_tokens))
    assert len(scored.sampled.attempts) == n
    assert scored.sums(np.ones(n_tokens)).tolist() == [2, 3, 4][:n]


def write_scores(folder, name, **arrays):
    (folder / "scores" / name).mkdir(parents=True)
    np.savez(folder / "scores" / name / "00000.npz", **arrays)


def scores_of_arms(folder, reference, errors):
    write_scores(folder, "test-reference", reference_eu=reference)
    for phase, (arm, error) in enumerate(errors.items()):
        # Differences that are the same everywhere would decide nothing.
        one = reference + error * (1 + 0.01 * np.sin(np.arange(len(reference)) + phase))
        write_scores(folder, f"test-{arm}", eu=one, jsd=one / 2, kl=one / 2, single_draft=one)


def verdicts(study, reading, parts, folder, sampled):
    plan = study.plan_of(study.Settings())
    kept = reading.Kept(sampled, responses(parts, [1]))
    text = reading.report(plan, folder, study.WORK, tuple(study.ARMS), kept, {})
    records = json.loads((folder / "verdicts.json").read_text())
    return {row["claim"]: row for row in records}, text


LENGTHS = [3] * 12
CORRECT = [True, False] * 6


def test_half_the_error_is_more_than_a_tenth_less(study, reading, parts, tmp_path):
    sampled = responses(parts, LENGTHS, CORRECT)
    wrong = np.repeat(~sampled.correct, 3)
    reference = 0.1 + 0.1 * wrong  # finds every wrong answer
    scores_of_arms(tmp_path, reference, {"osd-disjoint": 0.1, "clean-same": 0.2})
    found, text = verdicts(study, reading, parts, tmp_path, sampled)
    assert found[study.LOWER_RMSE]["verdict"] == "holds"
    assert found[study.LOWER_RMSE]["found"]["difference"] == pytest.approx(np.log(0.5), rel=0.02)
    # Both have AUROC 1 in every resample: no spread, no verdict.
    assert found[study.MATCHES_TOKUR]["found"]["difference"] == 0
    assert found[study.BEATS_ENTROPY]["found"]["estimate_a"] == 1
    assert "6 of 12 responses are right" in text


def test_nearly_equal_errors_are_not_a_tenth_less(study, reading, parts, tmp_path):
    sampled = responses(parts, LENGTHS, CORRECT)
    errors = {"osd-disjoint": 0.099, "clean-same": 0.1}
    scores_of_arms(tmp_path, np.linspace(0, 1, 36), errors)
    found, _ = verdicts(study, reading, parts, tmp_path, sampled)
    assert found[study.LOWER_RMSE]["verdict"] == "does not hold"


@pytest.mark.parametrize(("kl", "too_weak"), [(0.49, False), (0.51, True)])
def test_weak_drafts_decide_nothing(study, reading, parts, tmp_path, kl, too_weak):
    sampled = responses(parts, LENGTHS, CORRECT)
    scores_of_arms(tmp_path, np.linspace(0, 1, 36), {"osd-disjoint": 0.1, "clean-same": 0.2})
    (tmp_path / "kl-clean-same.json").write_text(json.dumps([[0.1, 0.2], [kl, kl]]))
    found, text = verdicts(study, reading, parts, tmp_path, sampled)
    assert ("Drafts too weak to decide" in text) is too_weak
    assert (found[study.LOWER_RMSE]["verdict"] == "not decidable here") is too_weak


def test_arms_scored_on_some_responses_say_nothing_about_all(study, reading, parts, tmp_path):
    sampled = responses(parts, LENGTHS, CORRECT)
    scores_of_arms(tmp_path, np.linspace(0, 1, 18), {"osd-disjoint": 0.1, "clean-same": 0.2})
    found, _ = verdicts(study, reading, parts, tmp_path, sampled)
    assert found[study.LOWER_RMSE]["found"]["n_questions"] == 6
    assert found[study.BEATS_ENTROPY]["found"] is None


def test_the_heads_of_a_large_model_are_a_small_part(study_module):
    cost = study_module("draft_cost")
    one = cost.large_model_cost(n_drafts=1, n_prompt=450, n_response=30, attempts=16)
    three = cost.large_model_cost(n_drafts=3, n_prompt=450, n_response=30, attempts=16)
    assert three["layers"] == pytest.approx(3 * one["layers"])
    assert sum(three.values()) < 0.6  # the aim of 1.6 times
    assert three["heads"] < three["layers"]


def test_a_run_on_the_shipped_model_is_not_repeated(study, tmp_path, capsys):
    arguments = ["--output", str(tmp_path), "--smoke", "--questions", "2", "--drafts", "1"]
    arguments += ["--train_questions", "6", "--held_out", "4", "--max_gen_toks", "16"]
    arguments += ["--reference_samples", "2"]
    arguments += ["--parts", "responses,depth,start,arms,pilot,primary"]
    study.main(arguments)
    files = [path for path in tmp_path.rglob("*") if path.suffix in (".json", ".npz")]
    first = {path: path.read_bytes() for path in files}
    report = capsys.readouterr().out.partition("# Drafts of tiny")[2]
    study.main(arguments)
    assert {path: path.read_bytes() for path in files} == first
    assert capsys.readouterr().out.partition("# Drafts of tiny")[2] == report
    assert "Cut, or not finished: auroc, cost." in report
    assert (tmp_path / "pilot.md").is_file()

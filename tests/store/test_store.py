"""What is kept is given back exactly, and only what is missing is generated."""

import numpy as np
import pytest

from lm_eval_ext.errors import UserError
from lm_eval_ext.generation import Generation, GenerationRecord, TokenStatistics
from lm_eval_ext.store.encoding import decode_generation, encode_generation
from lm_eval_ext.store.lines import dumps, opened, sealed

ARGUMENTS = {
    "sampled": {"box_completion": True},
    "rsp": {"length": 2, "self_eval": True},
    "draft-eu": {},
    "epicar": {"calibration_temperature": 2.0, "box_completion": True},
    "sink-pruned": {"ratio": 0.25},
}


@pytest.fixture
def sampled_places(monkeypatch):
    """Return the list of the attempts that are sampled from now on."""
    from lm_eval_ext.model_wrappers.sampled import SampledLM

    places, sample = [], SampledLM._sample

    def counted(self, group):
        places.extend((request.prompt, request.attempt) for request in group.requests)
        return sample(self, group)

    monkeypatch.setattr(SampledLM, "_sample", counted)
    return places


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_rerun_generates_nothing_and_equals(
    name, make_lm, complete, encoded, tmp_path, sampled_places
):
    runs = []
    for _ in range(2):
        lm = make_lm(name, store=tmp_path, **ARGUMENTS[name])
        runs.append((encoded(complete(lm)), lm.run_record()))
        lengths = len(sampled_places)
    assert lengths == 12  # four prompts, three attempts, once
    assert runs[0] == runs[1]


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_store_changes_no_text(name, make_lm, complete, tmp_path):
    plain = complete(make_lm(name, **ARGUMENTS[name]))
    kept = complete(make_lm(name, store=tmp_path, **ARGUMENTS[name]))
    assert kept == plain
    for one, other in zip(kept, plain, strict=True):
        assert one.record.token_ids == other.record.token_ids
        assert one.record.probabilities == pytest.approx(other.record.probabilities, abs=1e-4)
        assert one.record.uncertainties == pytest.approx(other.record.uncertainties, abs=1e-2)


@pytest.mark.parametrize("name", ["sampled", "draft-eu"])
def test_more_attempts_generate_the_difference(name, make_lm, complete, tmp_path, sampled_places):
    few = complete(make_lm(name, store=tmp_path), 2)
    assert len(sampled_places) == 8
    many = complete(make_lm(name, store=tmp_path), 5)
    assert len(sampled_places) == 20
    assert [one for one in many if one.record.attempt < 2] == few
    assert many == complete(make_lm(name), 5)
    del sampled_places[:]
    fewer = complete(make_lm(name, store=tmp_path), 1)
    assert not sampled_places
    assert fewer == few[::2]


def test_drafts_score_what_sampled_has_sampled(
    make_lm, complete, encoded, tmp_path, sampled_places
):
    texts = complete(make_lm(store=tmp_path))
    del sampled_places[:]
    scored = complete(make_lm("draft-eu", store=tmp_path))
    assert scored == texts
    assert all(one.record.uncertainties for one in scored)
    other = complete(make_lm("draft-eu", store=tmp_path, aggregate="max"))
    assert [o.record.uncertainties for o in other] != [o.record.uncertainties for o in scored]
    assert not sampled_places


def test_equal_requests_are_one_attempt(make_lm, complete, tmp_path, sampled_places):
    lm = make_lm(store=tmp_path)
    generations = complete(lm, 2, prompts=["x", "y", "x"])
    assert len(sampled_places) == 4
    assert generations[:2] == generations[4:]
    assert complete(lm, 2, prompts=["y"]) == generations[2:4]  # in the same process too
    assert len(sampled_places) == 4


def test_another_division_into_batches_keeps_what_is_there(
    make_lm, complete, tmp_path, sampled_places
):
    expected = complete(make_lm())
    complete(make_lm(store=tmp_path), 3, prompts=["x"])
    del sampled_places[:]
    assert complete(make_lm(store=tmp_path, batch_size=5)) == expected
    assert len(sampled_places) == 9


@pytest.fixture
def refilled(monkeypatch):
    """Let a CPU go about it as a GPU does: batches that are refilled, only missing attempts."""
    from lm_eval_ext.store.stored_sampling import StoredSampling

    run = StoredSampling.run
    monkeypatch.setattr(
        StoredSampling, "run", lambda self, rows, whole: run(self, rows, whole=False)
    )


@pytest.mark.parametrize("batches", ["whole", "refilled"])
def test_a_failure_of_the_drafts_loses_no_text(
    batches, request, make_lm, complete, tmp_path, sampled_places, monkeypatch
):
    if batches == "refilled":
        request.getfixturevalue("refilled")
    expected = complete(make_lm("draft-eu"))
    del sampled_places[:]
    lm = make_lm("draft-eu", store=tmp_path)
    monkeypatch.setattr(lm._scorer, "score", lambda attempts: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        complete(lm)
    n_first = len(sampled_places)
    # A batch of four on a CPU, all twelve in a refilled one.
    assert (n_first, lm.store.n_appended) == ((4, 4) if batches == "whole" else (12, 12))
    again = make_lm("draft-eu", store=tmp_path)
    found = complete(again)
    assert found == expected
    assert all(one.record.uncertainties for one in found)
    # The batch in flight is repeated on a CPU, for its last digits; texts stay as they were.
    assert len(sampled_places) - n_first == (12 if batches == "whole" else 0)
    assert again.store.n_appended == (8 + 12 if batches == "whole" else 12)


def test_refilled_batches_generate_only_what_is_missing(
    refilled, make_lm, complete, encoded, tmp_path, sampled_places
):
    whole = encoded(complete(make_lm(store=tmp_path)))
    (path,) = tmp_path.glob("*.jsonl")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:8]))
    del sampled_places[:]
    again = complete(make_lm(store=tmp_path))
    assert len(sampled_places) == 5
    assert [one["text"] for one in encoded(again)] == [one["text"] for one in whole]


def test_records_survive_bit_for_bit():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((6, 7)).astype(np.float32)
    values[0, 0], values[1, 1], values[2, 2] = np.nan, np.inf, -0.0
    values[3, 3] = np.float32(1e-45)
    record = GenerationRecord(
        attempt=3,
        token_ids=(1, 2**40, 0, 5, 6, 7, 8),
        finish_reason="stop",
        n_prompt_tokens=11,
        n_truncated_prompt_tokens=2,
        statistics=TokenStatistics(*values[:4]),
        probabilities={"self_eval": 0.1 + 0.2},
        uncertainties={"b": float(np.float32(0.1)), "a": -1e-310},
        token_scores={"eu": values[4], "double": values[5].astype(np.float64)},
        extra={"nested": {"list": [1, None, "\ud800é\n"], "x": 1 / 3}},
    )
    generation = Generation("lone \udc80, \x00 and ü\r\n", record)
    line = dumps(sealed("key", "k", encode_generation(generation)))
    assert "\n" not in line
    kind, name, value = opened(line.encode("ascii"))
    restored = decode_generation(value)
    assert (kind, name) == ("key", "k")
    assert restored == generation
    assert type(restored) is Generation
    for found, expected in (
        (restored.record.statistics._asdict(), record.statistics._asdict()),
        (restored.record.token_scores, record.token_scores),
    ):
        assert list(found) == list(expected)
        for name in expected:
            assert found[name].dtype == expected[name].dtype
            assert found[name].tobytes() == expected[name].tobytes()
    for field in ("attempt", "token_ids", "finish_reason", "probabilities", "extra"):
        assert getattr(restored.record, field) == getattr(record, field)
    assert list(restored.record.uncertainties.items()) == list(record.uncertainties.items())


def test_a_file_is_no_store(make_lm, tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UserError, match=r"store=.*file: .*give a folder"):
        make_lm(store=file)

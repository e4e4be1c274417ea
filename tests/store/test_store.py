"""What is kept is given back exactly, and only what is missing is generated."""

import errno
import os
import stat

import numpy as np
import pytest

from lm_eval_ext.errors import UserError
from lm_eval_ext.models.generation import Generation, GenerationRecord, TokenStatistics
from lm_eval_ext.store.encoding import decode_generation, encode_generation
from lm_eval_ext.store.lines import decode_line, encode_line

# Where more is to be kept than the arguments that make a method a wrapper bring about.
MORE = {
    "sampled": {"box_completion": True},
    "rsp": {"length": 2, "self_eval": True},
    "epicar": {"calibration_temperature": 2.0, "box_completion": True},
}


@pytest.fixture
def settings(wrapper_name, arguments):
    """Return the arguments of a wrapper for these tests."""
    return {**arguments, **MORE.get(wrapper_name, {})}


@pytest.fixture
def sampled_places(monkeypatch):
    """Return the list of the attempts that are sampled from now on."""
    from lm_eval_ext.model_wrappers.attempt_sampling import AttemptSampling

    places, sample = [], AttemptSampling._sample

    def counted(self, group):
        places.extend((request.prompt, request.attempt) for request in group.requests)
        return sample(self, group)

    monkeypatch.setattr(AttemptSampling, "_sample", counted)
    return places


def test_a_rerun_generates_nothing_and_equals(
    wrapper_name, settings, make_lm, complete, encoded, tmp_path, sampled_places
):
    runs = []
    for _ in range(2):
        lm = make_lm(wrapper_name, store=tmp_path, **settings)
        runs.append((encoded(complete(lm)), lm.run_record()))
        lengths = len(sampled_places)
    assert lengths == 12  # four prompts, three attempts, once
    assert runs[0] == runs[1]


def test_a_store_changes_no_text(wrapper_name, settings, make_lm, complete, tmp_path):
    plain = complete(make_lm(wrapper_name, **settings))
    kept = complete(make_lm(wrapper_name, store=tmp_path, **settings))
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


def test_a_failure_of_the_drafts_loses_no_text(
    make_lm, complete, tmp_path, sampled_places, monkeypatch
):
    expected = complete(make_lm("draft-eu"))
    del sampled_places[:]
    lm = make_lm("draft-eu", store=tmp_path)
    monkeypatch.setattr(lm._scorer, "score", lambda attempts: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        complete(lm)
    assert len(sampled_places) == lm.store.n_appended == 12
    again = make_lm("draft-eu", store=tmp_path)
    found = complete(again)
    assert found == expected
    assert all(one.record.uncertainties for one in found)
    assert len(sampled_places) == again.store.n_appended == 12


def test_only_what_is_missing_is_generated(
    make_lm, complete, encoded, tmp_path, sampled_places, store_lines
):
    whole = encoded(complete(make_lm(store=tmp_path)))
    cut(tmp_path, 7)
    kept = store_lines(tmp_path)
    del sampled_places[:]
    again = encoded(complete(make_lm(store=tmp_path)))
    assert len(sampled_places) == 5
    assert [one["text"] for one in again] == [one["text"] for one in whole]
    stayed = [one for one, before in zip(again, whole, strict=True) if one == before]
    records = [decode_line(line)[2]["record"] for line in kept if line.startswith(b'{"key"')]
    assert len(records) == 7
    assert all(record in stayed for record in records)


def test_batches_lose_nothing_and_draw_nothing_twice(
    make_lm, complete, tmp_path, sampled_places, monkeypatch
):
    monkeypatch.setattr("lm_eval_ext.store.stored_sampling._ROWS_PER_BATCH", 1)
    expected = complete(make_lm("draft-eu"))
    del sampled_places[:]
    lm = make_lm("draft-eu", store=tmp_path, batch_size=5)
    assert complete(lm) == expected
    assert len(sampled_places) == 12
    assert lm.store.n_appended == 24


def cut(folder, n_kept):
    """Leave so many attempts of a store's file."""
    (path,) = folder.glob("*.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    places = [i for i, line in enumerate(lines) if line.startswith(b'{"key"')]
    path.write_bytes(b"".join(lines[: places[n_kept]]))


@pytest.fixture
def syncs(monkeypatch):
    """Return a list that grows by what is synced: ``"file"`` or ``"folder"``."""
    found, fsync = [], os.fsync

    def counted(fd):
        found.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", counted)
    return found


def test_a_batch_is_synced_on_the_way(syncs, make_lm, complete, tmp_path):
    lm = make_lm(store=tmp_path, batch_size=4)
    complete(lm, 30, max_gen_toks=2)
    assert lm.store.n_appended == 120  # less than one batch
    assert syncs.count("file") == 30
    assert syncs.count("folder") == 1


def test_slow_attempts_are_synced_by_time(syncs, make_lm, complete, tmp_path, monkeypatch):
    import lm_eval_ext.store.attempt_store as module

    monkeypatch.setattr(module, "_SYNC_SECONDS", 0.0)
    complete(make_lm(store=tmp_path, batch_size=64), 2)
    assert syncs.count("file") == 8


@pytest.mark.parametrize("name", ["", "  ", True])
def test_a_store_needs_a_name(name, make_lm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="give a folder for the attempts"):
        make_lm(store=name)
    assert not list(tmp_path.iterdir())


def test_a_name_may_be_a_number(make_lm, complete, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # lm-eval reads `store=2026` as a number
    lm = make_lm(store=2026)
    complete(lm, 1)
    assert list((tmp_path / "2026").glob("*.jsonl"))


@pytest.mark.parametrize("place", ["under a file", "/proc"])
def test_a_folder_that_cannot_be_made(place, make_lm, tmp_path):
    if place == "/proc" and not os.path.isdir(place):
        pytest.skip("no /proc on this system")
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "store" if place == "under a file" else "/proc/store"
    with pytest.raises(UserError, match="store=.*store: .*; give a folder"):
        make_lm(store=folder)


@pytest.fixture
def refuse_to_open(monkeypatch):
    """Return a function that makes new files fail in a folder, as a file system that is full."""
    opened_before = os.open

    def refuse(folder, number):
        def limited(path, flags, *others, **named):
            if flags & os.O_CREAT and str(path).startswith(str(folder)):
                raise OSError(number, os.strerror(number))
            return opened_before(path, flags, *others, **named)

        monkeypatch.setattr(os, "open", limited)

    return refuse


@pytest.mark.parametrize(
    ("number", "empty", "kept"),
    [
        (errno.EROFS, "give a folder that can be written", "copy them to a folder"),
        (errno.EACCES, "give a folder that can be written", "copy them to a folder"),
        (errno.ENOSPC, "make room", "make room, and the same command resumes there"),
    ],
    ids=["EROFS", "EACCES", "ENOSPC"],
)
def test_a_folder_that_cannot_be_written_is_found_at_once(
    number, empty, kept, make_lm, complete, tmp_path, refuse_to_open, sampled_places
):
    full, nothing = tmp_path / "full", tmp_path / "nothing"
    expected = complete(make_lm(store=full), 1)
    del sampled_places[:]
    refuse_to_open(tmp_path, number)
    with pytest.raises(UserError, match=f"store=.*nothing: {os.strerror(number)}; {empty}"):
        make_lm(store=nothing)
    lm = make_lm(store=full)
    assert complete(lm, 1) == expected  # what is there can be read
    with pytest.raises(UserError, match=f"the 4 attempts written before are kept: {kept}"):
        complete(lm)
    assert not sampled_places  # nothing was decoded in vain


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
    line = encode_line("key", "k", encode_generation(generation))
    assert line.index(b"\n") == len(line) - 1
    kind, name, value = decode_line(line)
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

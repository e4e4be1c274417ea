"""SIGKILL at random moments: every resume goes on, and what comes out is the unbroken run's."""

import json
import multiprocessing
import os
import random
import signal
import time

import pytest
import torch

KILLS = 20
ROWS = 4
N_ATTEMPTS = 6  # at each of four prompts
SETTINGS = {"max_gen_toks": 24}


@pytest.fixture
def single_thread():
    """Compute with one thread, so that a forked process can compute too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["epicar", "draft-eu"])
def run(request, single_thread, make_lm, complete, encoded, tmp_path):
    """Return a function that runs with a store, in a child process forked from this one."""
    from lm_eval_ext.store.attempt_store import AttemptStore
    from lm_eval_ext.store.fingerprint import fingerprints

    lm = make_lm(request.param, batch_size=ROWS)
    lm.fingerprints = fingerprints(lm.model, lm.tokenizer)
    complete(lm, 1)  # warm: what is loaded lazily is loaded
    finished = tmp_path / "finished"  # a byte for each attempt that was sampled
    finished.touch()

    def work(store, output):
        lm.store = AttemptStore(store)
        sample, file = lm._sample, os.open(finished, os.O_WRONLY | os.O_APPEND)

        def counted(group):
            for one in sample(group):
                os.write(file, b".")
                yield one

        lm._sample = counted
        for part in (lm._conclusion.evaluation,):
            if part is not None:
                part.counts.clear()
        attempts = encoded(complete(lm, N_ATTEMPTS, **SETTINGS))
        output.write_text(json.dumps({"attempts": attempts, "record": lm.run_record()}))

    def start(store, output):
        child = multiprocessing.get_context("fork").Process(target=work, args=(store, output))
        child.start()
        return child

    start.finished = lambda: finished.stat().st_size
    return start


def test_twenty_kills(run, tmp_path, store_lines):
    draws = random.Random(0)
    started = time.monotonic()
    whole = run(tmp_path / "whole", tmp_path / "whole.json")
    whole.join()
    duration = time.monotonic() - started
    expected = (tmp_path / "whole.json").read_text()
    n = run.finished()
    assert n == 4 * N_ATTEMPTS
    n_kills = n_rounds = n_cut = 0
    while n_kills < KILLS:
        n_rounds += 1
        store, output = tmp_path / f"store-{n_rounds}", tmp_path / f"{n_rounds}.json"
        before, kills = run.finished(), 0
        while not output.exists():
            child = run(store, output)
            child.join(draws.uniform(0, duration * 0.6) if n_kills < KILLS else None)
            if child.is_alive():
                os.kill(child.pid, signal.SIGKILL)
                child.join()
                n_kills, kills = n_kills + 1, kills + 1
            else:
                assert child.exitcode == 0
        assert output.read_text() == expected
        # Each kill costs at most the batch in flight.
        assert run.finished() - before <= n + kills * ROWS
        n_cut += kills
    assert n_cut == KILLS


def test_a_line_cut_anywhere_is_dropped_and_made_again(
    make_lm, complete, encoded, tmp_path, store_lines, caplog
):
    folder = tmp_path / "store"
    expected = encoded(complete(make_lm("epicar", store=folder)))
    (path,) = folder.glob("*.jsonl")
    content = path.read_bytes()
    last = content.rstrip(b"\n").rfind(b"\n") + 1
    for end in (last + 1, last + 40, len(content) - 100, len(content) - 1):
        for other in folder.glob("*.jsonl"):
            other.unlink()
        path.write_bytes(content[:end])
        caplog.clear()
        lm = make_lm("epicar", store=folder)
        assert "the last line was cut off" in caplog.text
        assert encoded(complete(lm)) == expected
        assert lm.store.n_appended == 1
        assert len(store_lines(folder)) == content.count(b"\n") + 2  # the rest of it, and a context


def test_a_damaged_line_is_made_again(make_lm, complete, encoded, tmp_path, caplog):
    expected = encoded(complete(make_lm(store=tmp_path)))
    (path,) = tmp_path.glob("*.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b'"attempt":', b'"attemqt":', 1)
    lines[5] = b"\0" * (len(lines[5]) - 1) + b"\n"  # what a power cut leaves
    path.write_bytes(b"".join(lines))
    lm = make_lm(store=tmp_path)
    assert encoded(complete(lm)) == expected
    assert lm.store.n_appended == 2
    assert "is damaged; its attempt is generated again" in caplog.text

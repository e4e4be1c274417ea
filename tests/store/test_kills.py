"""SIGKILL at random moments: every run resumes and gives what the unbroken run gives.

What was kept stays, byte for byte. What was in flight is drawn again from the same streams, in
batches of other shapes: texts and tokens are equal, log-probs and confidences to rounding.
"""

import base64
import json
import multiprocessing
import os
import random
import signal
import sys
import threading
import time

import numpy as np
import pytest
import torch
from tqdm import tqdm

from lm_eval_ext.store.lines import decode_line

KILLS = 20
ROWS = 4
N_ATTEMPTS = 6  # at each of four prompts
SETTINGS = {"max_gen_toks": 24}
TIMES = ("date", "start_time", "end_time", "total_evaluation_time_seconds", "timing")
"""Fields of a results file that are times."""


def equal_but_for_rounding(found, expected):
    """Compare what JSON holds: numbers with a fraction to five digits, all else exactly."""
    if isinstance(expected, float) and isinstance(found, float):
        return found == pytest.approx(expected, rel=1e-5, abs=1e-5, nan_ok=True)
    if isinstance(expected, dict) and isinstance(found, dict):
        return list(found) == list(expected) and all(
            equal_but_for_rounding(found[name], expected[name]) for name in expected
        )
    if isinstance(expected, list) and isinstance(found, list):
        return len(found) == len(expected) and all(map(equal_but_for_rounding, found, expected))
    return type(found) is type(expected) and found == expected


def test_rounding_is_told_from_a_difference():
    one = {"text": "a", "n": 1, "log_probs": [-0.5, 2.0]}
    assert equal_but_for_rounding({**one, "log_probs": [-0.500001, 2.00001]}, one)
    for other in ({"text": "b"}, {"n": 2}, {"log_probs": [-0.5]}, {"log_probs": [-0.501, 2.0]}):
        assert not equal_but_for_rounding({**one, **other}, one)
    assert not equal_but_for_rounding({**one, "more": 1}, one)


@pytest.fixture
def single_thread():
    """Compute with one thread, so that a forked process can compute too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def read_once(monkeypatch):
    """Read what every run reads, and none changes, before runs are forked: tasks and problems."""
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._index import TaskIndex

    from lm_eval_ext.data.tiny import problems

    build, found = TaskIndex.build, {}

    def build_once(paths, **options):
        key = (*map(str, paths := list(paths)), repr(options))
        if key not in found:
            found[key] = build(paths, **options)
        return found[key]

    monkeypatch.setattr(TaskIndex, "build", staticmethod(build_once))
    data = problems.gsm8k_dataset()
    monkeypatch.setattr(problems, "_dataset", lambda family, metadata: data)
    TaskManager()


@pytest.fixture
def moments(monkeypatch, tmp_path):
    """Return a function that returns when batches were begun and attempts ended, in all runs."""
    from lm_eval_ext.model_wrappers.attempt_sampling import AttemptSampling

    sample = AttemptSampling._sample
    files = {name: tmp_path / name for name in ("begun", "ended")}

    def note(name):
        with files[name].open("a") as file:
            file.write(f"{time.monotonic()}\n")

    def noted(self, group):
        note("begun")
        for one in sample(self, group):
            note("ended")
            yield one

    monkeypatch.setattr(AttemptSampling, "_sample", noted)

    def read(name):
        return list(map(float, files[name].read_text().split())) if files[name].exists() else []

    return read


@pytest.fixture
def lm_eval_command(single_thread, read_once, moments, monkeypatch, tmp_path):
    """Return a function that starts lm-eval's command with a store, in a forked process."""
    import lm_eval.__main__
    import lm_eval.evaluator

    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    metadata = json.dumps({"attempts": N_ATTEMPTS})

    def work(folder, output):
        os.chdir(folder)  # the store's name stands in the results: it is the same for all
        sys.argv = [
            "lm_eval", "--model", "epicar", "--model_args", "pretrained=tiny,seed=3,store=store",
            "--tasks", "tiny_gsm8k_passn", "--limit", "4", "--metadata", metadata,
            "--gen_kwargs", "max_gen_toks=16", "--batch_size", str(ROWS), "--log_samples",
            "--output_path", output,
        ]  # fmt: skip
        # tqdm's own lock is shared with forked processes: one that is killed while it holds it
        # would stop all others.
        tqdm.set_lock(threading.RLock())
        # Not to pytest's streams: a failure shows what its own run said, with the traceback.
        log = open("log", "a", buffering=1)  # noqa: SIM115 (until the process ends)
        sys.stdout = sys.stderr = log
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        lm_eval.__main__.cli_evaluate()

    def start(folder, output="output"):
        folder.mkdir(exist_ok=True)
        child = multiprocessing.get_context("fork").Process(target=work, args=(folder, output))
        child.start()
        child.log = folder / "log"
        return child

    return start


def outcome(folder):
    """Return lm-eval's results and samples, without times and metrics of confidences.

    A confidence's last digit may order two attempts otherwise, and so change its metrics.
    """
    (results,) = folder.rglob("results_*.json")
    (samples,) = folder.rglob("samples_*.jsonl")

    def without_times(pairs):
        return {name: value for name, value in pairs if name not in TIMES}

    found = json.loads(results.read_text(), object_pairs_hook=without_times)
    del found["pretty_env_info"]  # the frequency of the CPU at the moment
    rows = found["results"]["tiny_gsm8k_passn"]
    of_texts = {name: value for name, value in rows.items() if "self_eval" not in name}
    assert 0 < len(of_texts) < len(rows)
    found["results"] = of_texts
    return found, [json.loads(line) for line in samples.read_text().splitlines()]


def kill_at_random(child, draws, moments, *, after_begin, within):
    """Kill a run, or let it end; return whether it was killed."""
    n_begun = len(moments("begun"))
    while after_begin and child.is_alive() and len(moments("begun")) == n_begun:
        time.sleep(0.002)
    child.join(draws.uniform(0, within))
    if not child.is_alive():
        assert child.exitcode == 0, child.log.read_text()[-3000:]
        return False
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    return True


def test_twenty_kills_of_the_command(lm_eval_command, moments, tmp_path):
    """Three of four kills come while attempts are sampled, the others at any time."""
    draws = random.Random(0)
    started = time.monotonic()
    whole = lm_eval_command(tmp_path / "whole")
    whole.join()
    assert whole.exitcode == 0, whole.log.read_text()[-3000:]
    everything = time.monotonic() - started
    sampling = moments("ended")[-1] - moments("begun")[0]
    expected = outcome(tmp_path / "whole" / "output")
    n = len(moments("ended"))
    assert n == 4 * N_ATTEMPTS
    n_kills = n_rounds = n_begun_kills = 0
    while n_kills < KILLS:
        n_rounds += 1
        folder, before, kills = tmp_path / str(n_rounds), len(moments("ended")), 0
        while True:
            output = f"output-{kills}"
            child = lm_eval_command(folder, output)
            if n_kills < KILLS:
                inside = n_kills % 4 != 3
                within = sampling * 0.6 if inside else everything
                if kill_at_random(child, draws, moments, after_begin=inside, within=within):
                    n_kills, kills = n_kills + 1, kills + 1
                    n_begun_kills += inside
                    continue
            child.join()
            assert child.exitcode == 0, child.log.read_text()[-3000:]
            break
        for found, unbroken in zip(outcome(folder / output), expected, strict=True):
            assert equal_but_for_rounding(found, unbroken)
        # What had ended is kept, but for an attempt whose line a kill prevented.
        assert len(moments("ended")) - before <= n + kills
    assert n_begun_kills >= KILLS // 2


@pytest.fixture
def run(single_thread, make_lm, complete, encoded, tmp_path):
    """Return a function that runs with a store, in a child process forked from this one."""
    from lm_eval_ext.models.fingerprint import fingerprints
    from lm_eval_ext.store.attempt_store import AttemptStore

    lm = make_lm("draft-eu", batch_size=ROWS)
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
        for part in (lm._finisher.evaluation,):
            if part is not None:
                part.counts.clear()
        attempts = encoded(complete(lm, N_ATTEMPTS, **SETTINGS))
        # A kill while this is written must not leave half of it to compare.
        unfinished = output.with_suffix(".unfinished")
        unfinished.write_text(json.dumps({"attempts": attempts, "record": lm.run_record()}))
        unfinished.replace(output)

    def start(store, output):
        child = multiprocessing.get_context("fork").Process(target=work, args=(store, output))
        child.start()
        return child

    start.finished = lambda: finished.stat().st_size
    return start


def records(lines):
    """Return what whole lines of a store hold of attempts."""
    whole = (line for line in lines if line.startswith(b'{"key"') and line.endswith(b"\n"))
    return [decode_line(line[:-1])[2]["record"] for line in whole]


def with_numbers(text):
    """Read JSON, and the arrays in it, which stores keep as their bytes."""

    def read(value):
        if "base64" not in value:
            return value
        return np.frombuffer(base64.b64decode(value["base64"]), value["dtype"]).tolist()

    return json.loads(text, object_hook=read)


def test_kills_between_texts_and_scores(run, tmp_path, store_lines, monkeypatch):
    monkeypatch.setattr("lm_eval_ext.store.stored_sampling._ROWS_PER_BATCH", 1)  # many batches
    draws = random.Random(0)
    started = time.monotonic()
    whole = run(tmp_path / "whole", tmp_path / "whole.json")
    whole.join()
    duration = time.monotonic() - started
    expected = (tmp_path / "whole.json").read_text()
    n = run.finished()
    assert n == 4 * N_ATTEMPTS
    n_kills = n_rounds = n_scored = 0
    while n_kills < KILLS:
        n_rounds += 1
        store, output = tmp_path / f"store-{n_rounds}", tmp_path / f"{n_rounds}.json"
        before, kills = run.finished(), 0
        while not output.exists():
            kept = records(store_lines(store))
            child = run(store, output)
            child.join(draws.uniform(0, duration * 0.6) if n_kills < KILLS else None)
            if child.is_alive():
                os.kill(child.pid, signal.SIGKILL)
                child.join()
                n_kills, kills = n_kills + 1, kills + 1
            else:
                assert child.exitcode == 0
        found = json.loads(output.read_text())
        assert equal_but_for_rounding(with_numbers(output.read_text()), with_numbers(expected))
        scored = [record for record in kept if record["uncertainties"]]
        n_scored += len(scored)
        assert all(record in found["attempts"] for record in scored)
        tokens = [one["token_ids"] for one in found["attempts"]]
        assert all(record["token_ids"] in tokens for record in kept)
        # What had ended is kept, but for an attempt whose line a kill prevented.
        assert run.finished() - before <= n + kills
    assert n_scored


def check_kept(found, expected, *, n_new):
    """Check that all but a few attempts are equal bit for bit, and those but for rounding."""
    equal = [one == other for one, other in zip(found, expected, strict=True)]
    assert sum(equal) >= len(expected) - n_new
    found, expected = (with_numbers(json.dumps(one)) for one in (found, expected))
    assert equal_but_for_rounding(found, expected)


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
        check_kept(encoded(complete(lm)), expected, n_new=1)
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
    check_kept(encoded(complete(lm)), expected, n_new=2)
    assert lm.store.n_appended == 2
    assert "is damaged; its attempt is generated again" in caplog.text

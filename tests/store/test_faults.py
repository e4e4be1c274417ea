"""A full disk, a limit on file sizes, a reader that has gone: what was kept is whole."""

import errno
import os
import subprocess
import sys
import time

import pytest

from lm_eval_ext.errors import UserError
from lm_eval_ext.store.inspection import inspect

DRIVER = """
import resource, sys
from lm_eval_ext.models.shipped import model_path
from lm_eval_ext.harness import requests as harness
from lm_eval_ext.model_wrappers.sampled import SampledLM
lm = SampledLM("tiny", seed=0, batch_size=4, store=sys.argv[1])
if sys.argv[2] != "none":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
prompts = [p for p in ("x", "y", "z") for _ in range(4)]
print(harness.complete(lm, prompts, do_sample=True, temperature=0.8, max_gen_toks=12), flush=True)
"""

# As lm-eval's command, which shows a bar of progress: here it moves with every attempt.
TALKING_DRIVER = """
import os, sys
os.environ["TQDM_MININTERVAL"] = "0"
from lm_eval.api.instance import Instance
from lm_eval_ext.model_wrappers.sampled import SampledLM
lm = SampledLM("tiny", seed=0, batch_size=4, store=sys.argv[1])
asked = {"do_sample": True, "temperature": 0.8, "max_gen_toks": 12}
requests = [Instance("generate_until", {}, (str(i), asked), 0) for i in range(int(sys.argv[2]))]
print(lm.generate_until(requests), flush=True)
"""


def drive(store, limit="none", **streams):
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    return subprocess.run(
        [sys.executable, "-c", DRIVER, str(store), str(limit)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        text=True, timeout=200, check=False, **streams,
    )  # fmt: skip


def n_kept(store):
    return sum(path.read_bytes().count(b'{"key"') for path in store.glob("*.jsonl"))


def test_a_limit_on_file_sizes(tmp_path):
    limited = drive(tmp_path / "store", limit=8000)
    assert limited.returncode != 0
    assert "File too large" in limited.stderr
    found = inspect(tmp_path / "store")
    assert 2 < found.n_attempts < 12
    assert not found.damaged
    assert not found.cut_off
    last = [line for line in limited.stderr.splitlines() if "error" in line.lower()][-1]
    assert f"the {found.n_attempts} attempts written before are kept" in last
    assert "make room, and the same command resumes there" in last
    again, plain = drive(tmp_path / "store"), drive(tmp_path / "other")
    assert f"{12 - found.n_attempts} of 12 attempts are to be generated" in again.stderr
    assert again.stdout == plain.stdout != ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_a_full_disk_is_one_line(make_lm, complete, tmp_path, monkeypatch):
    write, calls = os.write, []

    def full(fd, data):
        calls.append(len(data))
        if len(calls) < 6:
            return write(fd, data)
        if len(calls) == 6:  # as a disk that fills up does: a part is written, then nothing
            return write(fd, bytes(data)[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(UserError, match=r"store=.*: No space left on device; the 4 attempts"):
        complete(make_lm(store=tmp_path))
    monkeypatch.undo()
    found = inspect(tmp_path)
    assert (found.n_attempts, found.damaged, found.cut_off) == (4, [], [])
    lm = make_lm(store=tmp_path)
    assert complete(lm) == complete(make_lm())
    assert lm.store.n_appended == 8


def test_a_reader_that_has_gone(tmp_path):
    """The reader of the progress goes away in the middle; the run ends and keeps what it had."""
    store, n = tmp_path / "store", 60
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", TALKING_DRIVER, str(store), str(n)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdout=writer, stderr=writer,
    )  # fmt: skip
    os.close(writer)
    try:
        deadline = time.monotonic() + 240
        while process.poll() is None and n_kept(store) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.close(reader)
        assert process.wait(timeout=240) not in (0, -9)
    finally:
        process.kill()
        process.wait()
    found = inspect(store)
    assert 2 <= found.n_attempts < n
    assert not found.damaged
    assert not found.cut_off
    again, plain = (
        subprocess.run(
            [sys.executable, "-c", TALKING_DRIVER, str(folder), str(n)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            text=True, capture_output=True, timeout=240, check=True,
        )
        for folder in (store, tmp_path / "other")
    )  # fmt: skip
    assert f"{n - found.n_attempts} of {n} attempts are to be generated" in again.stderr
    assert again.stdout == plain.stdout != ""


def test_a_full_pipe_waits(tmp_path):
    """A reader that does not read holds the run up; what was kept until then stays."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while os.write(writer, b"x" * 4096):
            pass
    except BlockingIOError:
        os.set_blocking(writer, True)
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path / "store"), "none"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdout=writer, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while process.poll() is None and n_kept(tmp_path / "store") < 12:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.5)
        assert process.poll() is None  # it waits for the reader
    finally:
        process.kill()
        process.wait()
        os.close(reader)
        os.close(writer)
    assert inspect(tmp_path / "store").n_attempts == 12
    assert "0 of 12 attempts are to be generated" in drive(tmp_path / "store").stderr

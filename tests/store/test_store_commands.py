"""``lm-eval-ext store info``, ``verify`` and ``merge``."""

import errno
import json
import os

import pytest

from lm_eval_ext.commands.options import parse
from lm_eval_ext.errors import UserError
from lm_eval_ext.store import info, merge, verify
from lm_eval_ext.store.options import InfoOptions, MergeOptions, VerifyOptions


def run(module, *arguments):
    options = {info: InfoOptions, merge: MergeOptions, verify: VerifyOptions}[module]
    return module.run(parse(options, [str(one) for one in arguments]))


@pytest.fixture
def two_stores(make_lm, complete, tmp_path):
    """Return the folders of two stores: 12 attempts, and 8 others with 4 of the first."""
    complete(make_lm(store=tmp_path / "a"))
    complete(make_lm(store=tmp_path / "b"), 2, prompts=["x", "y"])
    complete(make_lm(store=tmp_path / "b", seed=1), 2, prompts=["x", "y"])
    return tmp_path / "a", tmp_path / "b"


def test_info_counts_by_settings(two_stores, capsys):
    assert run(info, two_stores[1]) == 0
    said = capsys.readouterr().out
    assert "8 attempts in 2 files" in said
    assert said.count("4 attempts at 2 prompts, 2 to 2 each") == 2
    assert "seed=1" in said
    assert run(info, two_stores[1], "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["attempts"] == 8
    settings = [context["settings"] for context in found["contexts"].values()]
    assert sorted(one["seed"] for one in settings) == [0, 1]
    assert all(one["sampling"]["max_new_tokens"] == 12 for one in settings)


def test_verify_names_every_line_that_is_not_sound(two_stores, capsys):
    folder = two_stores[0]
    assert run(verify, folder) == 0
    assert capsys.readouterr().out == "12 attempts, all sound\n"
    (path,) = folder.glob("*.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    # A digit of a number, a line of something else, another key, and a cut at the end.
    lines[2] = lines[2].replace(b'"n_prompt_tokens":', b'"n_prompt_tokens":1', 1)
    lines[4] = b'{"some":"thing"}\n'
    lines[6] = b'{"key":"' + b"0" * 32 + lines[6][40:]
    lines[-1] = lines[-1][:-9]
    path.write_bytes(b"".join(lines))
    assert run(verify, folder) == 1
    said = capsys.readouterr().out
    for number in (3, 5, 7):
        assert f"line {number}: " in said
    assert said.count("line ") >= 4
    assert "the last line is cut off" in said
    assert "8 attempts, not all lines are sound" in said


def test_merge_keeps_every_attempt_once(two_stores, make_lm, complete, encoded, tmp_path, capsys):
    a, b = two_stores
    with next(b.glob("*.jsonl")).open("ab") as file:
        file.write(b'{"key":"cut')
    assert run(merge, a, b, "--output", tmp_path / "c") == 0
    # `x` is asked for in both: its two attempts are repeated.
    said = capsys.readouterr().out
    assert "18 attempts; left out: 2 repeated, 0 damaged and 1 cut-off lines" in said
    assert run(verify, tmp_path / "c") == 0
    assert len(list((tmp_path / "c").iterdir())) == 1
    lm = make_lm(store=tmp_path / "c")
    assert encoded(complete(lm)) == encoded(complete(make_lm(store=a)))
    assert lm.store.n_appended == 0
    with pytest.raises(UserError, match=r"--output=.*c holds a store already"):
        run(merge, a, "--output", tmp_path / "c")


@pytest.fixture
def damaged_context(two_stores):
    """Return a store of 12 attempts whose first line, which describes them, is damaged."""
    (path,) = two_stores[0].glob("*.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    assert lines[0].startswith(b'{"context"')
    lines[0] = lines[0].replace(b'"seed":0', b'"seed":7')
    path.write_bytes(b"".join(lines))
    return two_stores[0]


def test_a_damaged_context_leaves_its_attempts_sound(damaged_context, make_lm, complete, capsys):
    assert run(verify, damaged_context) == 1
    said = capsys.readouterr().out
    assert said.count(", line ") == 1
    assert "line 1: damaged" in said
    assert "12 attempts have settings that no sound line describes; runs use them" in said
    assert "12 attempts, not all lines are sound" in said
    assert run(info, damaged_context, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["attempts"], len(found["damaged"])) == (12, 1)
    assert list(found["undescribed"].values()) == [12]
    lm = make_lm(store=damaged_context)
    complete(lm)
    assert lm.store.n_appended == 0
    complete(lm, 4)  # what is new describes what is there
    assert run(info, damaged_context, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["attempts"], found["undescribed"]) == (16, {})


def test_merge_heals_a_damaged_context(
    damaged_context, make_lm, complete, tmp_path, capsys, store_lines
):
    good = tmp_path / "good"
    complete(make_lm(store=good), 1)
    capsys.readouterr()
    assert run(merge, damaged_context, good, "--output", tmp_path / "both") == 0
    said = capsys.readouterr().out
    assert "12 attempts; left out: 4 repeated, 1 damaged and 0 cut-off lines" in said
    assert "left out: " + str(damaged_context) in said
    assert store_lines(tmp_path / "both")[0].startswith(b'{"context"')
    assert run(verify, tmp_path / "both") == 0
    assert capsys.readouterr().out == "12 attempts, all sound\n"


def test_merge_keeps_and_names_attempts_nobody_describes(
    damaged_context, make_lm, complete, tmp_path, capsys
):
    assert run(merge, damaged_context, "--output", tmp_path / "alone") == 0
    said = capsys.readouterr().out
    assert "12 attempts have settings that no sound line describes; runs use them" in said
    assert "12 attempts; left out: 0 repeated, 1 damaged and 0 cut-off lines" in said
    assert run(verify, tmp_path / "alone") == 0
    lm = make_lm(store=tmp_path / "alone")
    complete(lm)
    assert lm.store.n_appended == 0


def test_merge_counts_what_is_damaged(two_stores, tmp_path, capsys):
    (path,) = two_stores[0].glob("*.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b'"n_prompt_tokens":', b'"n_prompt_tokens":1', 1)
    path.write_bytes(b"".join(lines))
    assert run(merge, two_stores[0], "--output", tmp_path / "c") == 0
    said = capsys.readouterr().out
    assert f"left out: {path}, line 4: damaged" in said
    assert "11 attempts; left out: 0 repeated, 1 damaged and 0 cut-off lines" in said


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_merge_on_a_full_disk_leaves_nothing(two_stores, tmp_path, monkeypatch, failing):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(
        UserError, match=r"--output=.*\.writing-attempts-.*: No space left on device"
    ):
        run(merge, *two_stores, "--output", tmp_path / "c")
    assert not list((tmp_path / "c").iterdir())


def test_a_folder_without_attempts_is_no_store(tmp_path):
    for module in (info, verify):
        with pytest.raises(UserError, match="is not a store: .*give the folder of store="):
            run(module, tmp_path)

"""The folder of a run: settings, lock, manifest, and what an interruption says."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lm_eval_ext.commands.options import parse
from lm_eval_ext.errors import UserError
from lm_eval_ext.training.dapo.settings import DapoJob, DapoOptions
from lm_eval_ext.training.drafts.settings import DraftJob, DraftOptions
from lm_eval_ext.training.drafts.shards import prompt_hash
from lm_eval_ext.training.prompts import load_problems, stop_strings
from lm_eval_ext.training.run import RunFolder, flat, last_step
from lm_eval_ext.training.self_training.problems import load_training_problems, problems_hash
from lm_eval_ext.training.self_training.settings import EpicarOptions, SelfTraining

SETTINGS = {"steps": 7, "stop": ("a",), "system_instruction": None, "merge": False}


def folder_of(path, **changes):
    return RunFolder(path, {**SETTINGS, **changes}, manifest="run.json")


def begin(path):
    with folder_of(path).work(lambda: "nowhere"):
        pass


def test_nothing_is_written_before_the_work(tmp_path):
    folder = folder_of(tmp_path / "run")
    assert not folder.begun
    assert not folder.finished
    assert not (tmp_path / "run").exists()


def test_the_same_settings_resume_and_others_are_refused(tmp_path):
    begin(tmp_path)
    assert folder_of(tmp_path).begun
    with pytest.raises(UserError, match="holds a run with steps=7, not 9: repeat its command"):
        folder_of(tmp_path, steps=9)
    with pytest.raises(UserError, match="holds a run with merge=False, not True"):
        folder_of(tmp_path, merge=True)
    with pytest.raises(UserError, match=r"stop=\['a'\], not \['a', 'b'\]"):
        folder_of(tmp_path, stop=("a", "b"))


def test_an_option_that_an_older_release_lacked_was_off(tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps({"steps": 7, "stop": ["a"]}))
    assert folder_of(tmp_path).begun
    with pytest.raises(UserError, match="system_instruction=None, not 'Be brief.'"):
        folder_of(tmp_path, system_instruction="Be brief.")


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(UserError, match="settings.json is damaged"):
        folder_of(tmp_path)


def test_an_interruption_says_where_the_same_command_resumes(tmp_path, caplog):
    with pytest.raises(KeyboardInterrupt), folder_of(tmp_path).work(lambda: "step 40"):
        raise KeyboardInterrupt
    assert caplog.messages == ["the same command resumes from step 40"]
    begin(tmp_path)  # and the lock is free again


def test_a_second_command_is_kept_out_and_another_process_is_not(tmp_path):
    with folder_of(tmp_path).work(lambda: ""):
        with (
            pytest.raises(UserError, match="another command is at work"),
            folder_of(tmp_path).work(lambda: ""),
        ):
            pass
        with folder_of(tmp_path).work(lambda: "", is_main=False):
            pass


def test_the_manifest_ends_the_run(tmp_path):
    begin(tmp_path)
    folder_of(tmp_path).finish({"rounds": [1]})
    assert folder_of(tmp_path).finished
    written = json.loads((tmp_path / "run.json").read_text())
    assert written["rounds"] == [1]
    assert {"python", "lm_eval_ext"} <= written["versions"].keys()
    assert "commit" in written


def test_unfinished_checkpoints_do_not_count(tmp_path):
    assert last_step(tmp_path) is None
    for step in (3, 20, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
    (tmp_path / "checkpoint-20" / "state.json").touch()
    assert (last_step(tmp_path), last_step(tmp_path, "state.json")) == (100, 20)


GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", ["drafts", "epicar", "dapo"])
def test_the_last_release_s_folders_are_resumed(name, tmp_path):
    """The settings were written by the commands of before, with their old names."""
    kept = {"drafts": drafts, "epicar": epicar, "dapo": dapo}[name]()
    shutil.copy(GOLDEN / f"{name}.json", tmp_path / "settings.json")
    assert RunFolder(tmp_path, kept, manifest="x.json").begun


def drafts():
    words = "--output x --target tiny --prompts tiny_gsm8k:train+tiny_math:train --num-prompts 6"
    job = parse(DraftOptions, [*words.split(), "--split", "same", "--modules", "q_proj+k_proj"])
    problems = load_problems(job.problems, limit=job.num_problems, graded=False)
    read = "\0".join([*(problem.prompt for problem in problems), *stop_strings(problems)])
    return {**flat(job, DraftJob), "prompts_sha256": prompt_hash(read)}


def epicar():
    words = "--output x --problems tiny_gsm8k:train+tiny_math:train --num-problems 20 --no-dedup"
    more = ["--stop", "a,b", "--self-eval-labels", " yes+ no", "--lora-rank", "0"]
    run = parse(EpicarOptions, [*words.split(), *more])
    found = problems_hash(load_training_problems(run))
    return {"method": run.method, **flat(run, SelfTraining), "problems_sha256": found}


def dapo():
    words = "--output x --problems tiny_gsm8k:train_hard --num-problems 6 --rsp-length 2"
    job = parse(DapoOptions, [*words.split(), "--no-dynamic-sampling"])
    problems = load_problems(job.problems, limit=job.num_problems)
    job = replace(job, rollouts=job.rollouts.completed(problems))
    read = json.dumps([[problem.prompt, problem.record] for problem in problems])
    return {**flat(job, DapoJob), "prompts_sha256": prompt_hash(read)}


OPTIONS = (
    "drafts.settings.DraftOptions self_training.settings.EpicarOptions dapo.settings.DapoOptions"
)


def test_options_are_declared_without_heavy_imports():
    """Or `--help` would take seconds."""
    modules = {name.rpartition(".")[0] for name in OPTIONS.split()}
    script = "".join(f"import lm_eval_ext.training.{module}\n" for module in sorted(modules))
    script += "import sys\nprint(*{'torch', 'transformers', 'lm_eval', 'numpy'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "\n"

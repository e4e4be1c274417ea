"""The command as a whole: resuming, adapters, several processes, refusals."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from transformers.integrations import integration_utils

from lm_eval_ext.commands.options import parse
from lm_eval_ext.errors import UserError
from lm_eval_ext.grading import Attempt
from lm_eval_ext.models.embedding_statistics import embedding_statistics
from lm_eval_ext.training.dapo import train
from lm_eval_ext.training.dapo.checkpoints import STATE, latest_checkpoint
from lm_eval_ext.training.dapo.settings import DapoOptions
from lm_eval_ext.training.dapo.trainer import DAPOTrainer

# The same grader in this process and in those that are killed.
COMMAND = """
import sys, torch
from lm_eval_ext.commands.options import parse
from lm_eval_ext.training.dapo import rewards, train
from lm_eval_ext.training.dapo.settings import DapoOptions
from lm_eval_ext.grading import Attempt
torch.set_num_threads(1)
rewards.grade_questions = lambda family, asked: (
    [Attempt(None, len(text) % 2 == 0) for text in texts] for texts, *_ in asked
)
sys.exit(train.run(parse(DapoOptions, sys.argv[1:])))
"""
# Each process writes down what it asks, draws and divides by.
SPY = """
import json, os, sys
from pathlib import Path
from lm_eval_ext.training.dapo.rollouts import RolloutLM
from lm_eval_ext.training.dapo.trainer import DAPOTrainer
seen = {"numbers": [], "virtual": [], "refills": [], "own_tokens": [], "tokens": []}
roll_out, further = RolloutLM.roll_out, DAPOTrainer._further
generate = DAPOTrainer._generate_and_score_completions

def spy_roll_out(self, prompts, numbers):
    rollouts = roll_out(self, prompts, numbers)
    seen["numbers"] += numbers
    seen["virtual"] += [i for rollout in rollouts for i in rollout.prompt_ids if i >= 768]
    return rollouts

def spy_further(self, n):
    order, places = self._questions, set()

    class Noted:
        questions = order.questions
        def index(self, place):
            places.add(place)
            return order.index(place)
        def __getitem__(self, place):
            places.add(place)
            return order[place]

    self._questions = Noted()
    found = further(self, n)
    self._questions = order
    seen["refills"] += sorted(places)
    return found

def spy_generate(self, rows):
    output = generate(self, rows)
    seen["own_tokens"].append(int(output["completion_mask"].sum()))
    seen["tokens"].append(int(output["num_items_in_batch"]))
    return output

RolloutLM.roll_out, DAPOTrainer._further = spy_roll_out, spy_further
DAPOTrainer._generate_and_score_completions = spy_generate
"""
WRITE_SEEN = """
folder = Path(sys.argv[sys.argv.index("--output") + 1])
(folder / f"seen-{os.environ['RANK']}.json").write_text(json.dumps(seen))
"""
ENVIRONMENT = {
    **os.environ,
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "ACCELERATE_USE_CPU": "true",
}


@pytest.fixture(scope="module")
def model_folder(random_model, tiny_tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    model = random_model("llama")
    eos = model.generation_config.eos_token_id
    model.generation_config.eos_token_id = [model.config.eos_token_id, *range(16, 768, 8)]
    model.save_pretrained(folder)
    model.generation_config.eos_token_id = eos
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    path = tmp_path_factory.mktemp("records") / "records.jsonl"
    lines = [{"question": "x" * (1 + i % 4) + f" {i}?", "answer": "#### 1"} for i in range(10)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def words(model_folder, records):
    """Return a function that gives the words of the command."""

    def make(output, *more):
        small = {
            "pretrained": model_folder, "problems": records, "grader": "gsm8k", "steps": 6,
            "groups-per-step": 4, "group-size": 2, "micro-batch-size": 4, "max-new-tokens": 8,
            "learning-rate": 1e-3, "warmup-steps": 0, "rsp-length": 2, "checkpoint-steps": 2,
            "max-refills": 30, "updates-per-rollout": 2, "output": output,
        }  # fmt: skip
        options = [str(word) for name, value in small.items() for word in (f"--{name}", value)]
        return [*options, *map(str, more)]

    return make


@pytest.fixture
def run(words, graded):
    def run(output, *more):
        return train.run(parse(DapoOptions, words(output, *more)))

    return run


def start(words, tmp_path, *launcher, command=COMMAND):
    script = tmp_path / "train_dapo.py"
    script.write_text(command)
    return subprocess.Popen(
        [sys.executable, *launcher, str(script), *words],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def result(folder):
    manifest = json.loads((folder / "dapo.json").read_text())
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    timeless = [{k: v for k, v in line.items() if "time" not in k} for line in log]
    return manifest, timeless, load_file(folder / "model" / "model.safetensors")


def assert_same(one, other):
    (manifest, log, weights), (its_manifest, its_log, its_weights) = result(one), result(other)
    assert manifest == its_manifest
    assert log == its_log
    assert weights.keys() == its_weights.keys()
    assert all(torch.equal(weights[name], its_weights[name]) for name in weights)


def test_killed_run_continues_to_the_same_result(run, words, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(whole)
    manifest, log, _ = result(whole)
    assert [line["step"] for line in log] == [1, 2, 3, 4, 5, 6]
    # Groups were dropped and refilled, before and after the kill: their state is part of the run.
    (state,) = manifest["groups"]
    assert state["counts"]["refills"] > 2
    assert state["refilled"] > 0

    process = start(words(killed), tmp_path)
    deadline = time.monotonic() + 200
    while not (killed / "checkpoints" / "checkpoint-2" / STATE).exists():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "dapo.json").exists()
    # And a checkpoint that a kill left half written.
    half = killed / "checkpoints" / "checkpoint-5"
    half.mkdir(exist_ok=True)
    (half / "model.safetensors").write_bytes(b"half")
    run(killed)
    assert_same(whole, killed)

    before = {p: p.stat().st_mtime_ns for p in killed.rglob("*")}
    run(killed)  # a finished run does nothing
    assert {p: p.stat().st_mtime_ns for p in killed.rglob("*")} == before


@pytest.mark.parametrize("adapters", [(), ("--lora-rank", 2)])
def test_run_killed_behind_its_last_step_takes_no_further_one(run, tmp_path, adapters):
    # The third step is in the middle of a generation batch.
    whole, killed, more = tmp_path / "whole", tmp_path / "killed", ("--steps", 3, *adapters)
    run(whole, *more)
    assert [line["step"] for line in result(whole)[1]] == [1, 2, 3]
    shutil.copytree(whole, killed)
    shutil.rmtree(killed / "model")
    (killed / "dapo.json").unlink()
    run(killed, *more)
    assert_same(whole, killed)


def test_exported_model_uses_its_cache_and_no_card_is_written(run, tmp_path, model_folder):
    run(tmp_path, "--steps", 2)
    before, after = (
        json.loads((folder / "config.json").read_text())
        for folder in (model_folder, tmp_path / "model")
    )
    assert after["use_cache"] is before["use_cache"] is True
    assert not list(tmp_path.rglob("README.md"))


def test_trl_and_transformers_warn_of_no_renaming(run, tmp_path, recwarn):
    run(tmp_path, "--steps", 2)
    assert not [w for w in recwarn if "gradient_checkpointing" in str(w.message)]


def test_update_and_rollouts_get_the_same_settings(run, tmp_path, monkeypatch):
    trainers, train = [], DAPOTrainer.train
    monkeypatch.setattr(DAPOTrainer, "train", lambda self: trainers.append(self) or train(self))
    run(tmp_path, "--steps", 2, "--temperature", 0.7, "--seed", 5)
    (trainer,) = trainers
    settings = trainer.policy.settings
    assert trainer.temperature == settings.temperature == 0.7
    assert trainer.max_completion_length == settings.max_new_tokens == 8
    assert trainer.args.seed == trainer.policy.seed == trainer.vocabulary.seed == 5


def test_moments_are_frozen_and_in_every_checkpoint(run, tmp_path, model_folder):
    run(tmp_path, "--steps", 2)
    statistics = embedding_statistics(AutoModelForCausalLM.from_pretrained(model_folder))
    (folder, state) = latest_checkpoint(tmp_path / "checkpoints")
    assert folder.name == "checkpoint-2"
    for frozen in (state["soft_prompt"], json.loads((tmp_path / "soft_prompt.json").read_text())):
        assert (frozen["mean"], frozen["std"]) == (statistics.mean, statistics.std)
    manifest, _, weights = result(tmp_path)
    assert manifest["soft_prompt"] == state["soft_prompt"]
    trained = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert embedding_statistics(trained).std != statistics.std
    # Nothing virtual in what is exported.
    assert weights["model.embed_tokens.weight"].shape[0] == 768
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert len(tokenizer) == len(AutoTokenizer.from_pretrained(model_folder))


def test_bound_may_be_raised_to_go_on(run, tmp_path, graded):
    graded(lambda family, asked: ([Attempt(None, True)] * len(texts) for texts, *_ in asked))
    with pytest.raises(UserError, match="max_refills=1 reached"):
        run(tmp_path, "--max-refills", 1, "--steps", 2)
    graded(lambda family, asked: ([Attempt(None, len(t) % 2 == 0) for t in ts] for ts, *_ in asked))
    run(tmp_path, "--max-refills", 30, "--steps", 2)
    assert (tmp_path / "dapo.json").exists()


def test_adapters_are_trained_exported_and_merged(run, tmp_path, model_folder):
    run(tmp_path, "--steps", 2, "--lora-rank", 2, "--lora-modules", "q_proj+v_proj")
    adapter = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert all("lora" in name for name in adapter)
    merged = load_file(tmp_path / "model" / "model.safetensors")
    before = load_file(model_folder / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], merged[name])}
    assert changed == {name for name in before if "q_proj" in name or "v_proj" in name}


def test_some_parameters_are_trained_and_the_others_stay(run, tmp_path, model_folder):
    run(tmp_path, "--steps", 2, "--trainable", "norm")
    trained = load_file(tmp_path / "model" / "model.safetensors")
    before = load_file(model_folder / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], trained[name])}
    assert changed == {name for name in before if "norm" in name}


def test_two_processes_share_the_groups(words, tmp_path):
    output = tmp_path / "two"
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    head, last = COMMAND.rsplit("\nsys.exit", 1)
    command = f"{SPY}{head}\nstatus = {last.strip()[1:-1]}{WRITE_SEEN}sys.exit(status)\n"
    process = start(words(output, "--steps", 2), tmp_path, *launcher, command=command)
    printed, _ = process.communicate(timeout=500)
    assert process.returncode == 0, printed
    manifest, log, _ = result(output)
    assert len(manifest["groups"]) == 2
    seen = [json.loads((output / f"seen-{rank}.json").read_text()) for rank in range(2)]
    for name in ("numbers", "virtual", "refills"):
        drawn = [set(process[name]) for process in seen]
        assert all(drawn)
        assert not drawn[0] & drawn[1]
        assert len(drawn[0]) + len(drawn[1]) == sum(len(process[name]) for process in seen)
    # Two vectors for each rollout, two rollouts for each group.
    for process, state in zip(seen, manifest["groups"], strict=True):
        assert len(process["virtual"]) == 2 * len(process["numbers"]) == 4 * state["rolled_out"]
    # Both divide by the tokens of both.
    own = [process["own_tokens"] for process in seen]
    assert own[0] != own[1]
    assert seen[0]["tokens"] == seen[1]["tokens"] == [a + b for a, b in zip(*own, strict=True)]
    assert log[0]["groups/rolled_out"] == sum(s["rolled_out"] for s in manifest["groups"])
    assert log[0]["frac_reward_zero_std"] == 0
    assert log[0]["log_probs/difference_to_sampling"] < 1e-4


def test_figures_are_reported(run, tmp_path, monkeypatch):
    reported = []

    class Recorder(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **others):
            reported.append((state.global_step, logs))

    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "recorder", Recorder)
    run(tmp_path, "--steps", 2, "--report-to", "recorder")
    assert [step for step, logs in reported if "loss" in logs] == [1, 2]
    assert {"groups/accuracy", "entropy/first_tokens", "reward"} <= reported[0][1].keys()


def test_vectors_and_adapters_of_the_embeddings_get_along(run, tmp_path, model_folder):
    adapters = ("--lora-rank", 2, "--lora-modules", "embed_tokens+q_proj")
    run(tmp_path, "--steps", 2, *adapters, "--gradient-checkpointing")
    merged = load_file(tmp_path / "model" / "model.safetensors")
    before = load_file(model_folder / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], merged[name])}
    assert changed == {name for name in before if "q_proj" in name or "embed" in name}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--schedule", "linaer"], "schedule=linaer cannot be used: "),
        (["--schedule", "reduce_lr_on_plateau"], "schedule=reduce_lr_on_plateau cannot be used"),
        (["--dtype", "float23"], "--dtype='float23' is unknown: use one of float32"),
        (["--report-to", "tensorbord"], "report_to=tensorbord: tensorbord is not supported"),
        (["--lora-alpha", 0], "--lora-alpha=0 must be at least 1"),
        (["--max-new-tokens", 600], "max_new_tokens=600 and rsp_length=2 leave no room"),
        (["--lora-rank", 2, "--lora-modules", "q_proj+k_porj"], "the model has no module 'k_porj'"),
        (["--lora-rank", 2, "--lora-modules", "norm"], "'norm' is a LlamaRMSNorm, and adapters"),
        (["--group-size", 1], "--group-size=1 must be at least 2"),
        (["--micro-batch-size", 3], "micro_batch_size=3 must divide the 8 rollouts"),
        (["--checkpoint-steps", 3], "checkpoint_steps=3 must be a multiple of updates_per_rollout"),
        (["--overlong-buffer", 9], "--overlong-buffer=9 must be between 0"),
        (["--temperature", 0], "--temperature=0.0 must be above 0"),
        (["--rsp-length", -1], "--rsp-length=-1 must be at least 0"),
        (["--learning-rate", 0], "--learning-rate=0.0 must be above 0"),
        (["--max-refills", -1], "--max-refills=-1 must be at least 0"),
        (["--optimizer", "adam"], "optimizer='adam' is unknown: use one of adamw_torch"),
        (["--trainable", "nrom"], "trainable=nrom is in no parameter's name"),
        (["--trainable", "norm", "--lora-rank", 2], "exclude each other"),
        (["--pretrained", "/no/where"], "pretrained=/no/where: "),
    ],
)
def test_bad_settings_are_one_line(run, tmp_path, monkeypatch, more, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError) as error:
        run(tmp_path / "run", *more)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_typo_does_not_lock_the_folder(run, tmp_path):
    for typo in (["--overlong-buffer", 9], ["--trainable", "nrom"], ["--max-new-tokens", 600]):
        with pytest.raises(UserError):
            run(tmp_path, "--steps", 2, *typo)
    run(tmp_path, "--steps", 2)
    assert (tmp_path / "dapo.json").exists()


def test_tool_that_is_not_installed_is_one_line(run, tmp_path, monkeypatch):
    class Missing(TrainerCallback):
        def __init__(self):
            raise RuntimeError("Missing requires missing to be installed.\nRun pip")

    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "missing", Missing)
    with pytest.raises(UserError, match="^report_to=missing: Missing requires .* installed. "):
        run(tmp_path / "run", "--report-to", "missing")
    assert not (tmp_path / "run").exists()


def test_mixed_precision_needs_a_gpu(run, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "lm_eval_ext.training.dapo.early_checks.is_torch_bf16_gpu_available", lambda: False
    )
    with pytest.raises(UserError, match="^bf16=True needs a GPU .*: leave --bf16 out$"):
        run(tmp_path / "run", "--bf16")
    assert not (tmp_path / "run").exists()


def test_adapter_of_a_tied_matrix_is_refused(run, tmp_path):
    adapters = ("--lora-rank", 2, "--lora-modules", "embed_tokens")
    with pytest.raises(UserError, match="'embed_tokens' shares its matrix with another layer"):
        run(tmp_path, "--pretrained", "tiny", *adapters)


def test_other_settings_do_not_continue_a_run(run, tmp_path):
    run(tmp_path, "--steps", 2)
    with pytest.raises(UserError, match="holds a run with rsp_length=2, not 4"):
        run(tmp_path, "--steps", 2, "--rsp-length", 4)

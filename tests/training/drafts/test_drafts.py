import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from lm_eval_ext.commands.options import parse
from lm_eval_ext.errors import UserError
from lm_eval_ext.training.drafts import draft_training, target_responses
from lm_eval_ext.training.drafts import train_drafts as drafts
from lm_eval_ext.training.drafts.draft_training import BatchOrder, DraftRun
from lm_eval_ext.training.drafts.settings import DraftOptions
from lm_eval_ext.training.drafts.shards import prompt_hash, split_prompts


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def train(target_folder, prompts_file):
    """Run the command with small settings; later words win."""

    def run(output, *words):
        small = [
            *("--pretrained", target_folder, "--problems", prompts_file, "--draft-init", "first:1"),
            *("--num-drafts", 2, "--steps", 7, "--batch-size", 4, "--checkpoint-steps", 2),
            *("--max-new-tokens", 10, "--learning-rate", 0.01, "--warmup-steps", 2),
        ]
        given = [str(word) for word in [*small, "--output", output, *words]]
        return drafts.run(parse(DraftOptions, given))

    return run


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def whole(train, cache):
    folder = cache / "whole"
    if not folder.exists():
        train(folder)
    return folder


def weights(folder):
    return [load_file(folder / f"draft-{k}" / "model.safetensors") for k in range(2)]


def assert_same_drafts(one, other):
    for left, right in zip(weights(one), weights(other), strict=True):
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in left)
    manifests = [json.loads((folder / "drafts.json").read_text()) for folder in (one, other)]
    assert manifests[0] == manifests[1]


class KilledError(Exception):
    pass


def test_killed_and_resumed_training_equals_an_unbroken_one(train, whole, tmp_path, monkeypatch):
    output = tmp_path / "broken"
    train_step = DraftRun.train_step

    def dying_at(draft, step):
        def step_or_die(run):
            if (run.number, len(run.losses)) == (draft, step):
                raise KilledError
            return train_step(run)

        return step_or_die

    # Before the first checkpoint, between two, and in the second draft.
    for draft, step in [(0, 1), (0, 5), (1, 4)]:
        monkeypatch.setattr(DraftRun, "train_step", dying_at(draft, step))
        with pytest.raises(KilledError):
            train(output)
    monkeypatch.setattr(DraftRun, "train_step", train_step)
    assert not (output / "drafts.json").exists()
    monkeypatch.setattr(target_responses.harness, "complete", None)  # nothing is generated again
    train(output)
    assert_same_drafts(whole, output)
    assert not list(output.glob("checkpoints/*.pt"))


def test_kill_while_saving_keeps_the_previous_checkpoint(train, whole, tmp_path, monkeypatch):
    output, save, calls = tmp_path / "torn", torch.save, []

    def torn(state, file):
        calls.append(file)
        if len(calls) == 3:
            file.write_bytes(b"half a file")
            raise KilledError
        save(state, file)

    monkeypatch.setattr(draft_training.torch, "save", torn)
    with pytest.raises(KilledError):
        train(output)
    train(output)
    assert_same_drafts(whole, output)


def test_kill_while_exporting_leaves_no_half_draft(train, whole, tmp_path, monkeypatch):
    output = tmp_path / "half"

    def dying(path, goal):
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.rename", dying)
        with pytest.raises(KilledError):
            train(output)
    assert (output / ".writing-draft-0" / "model.safetensors").exists()
    assert not (output / "draft-0").exists()
    train(output)
    assert_same_drafts(whole, output)
    assert not list(output.glob(".writing*"))


def test_finished_run_does_nothing(train, whole, monkeypatch):
    before = {p: p.stat().st_mtime_ns for p in whole.glob("draft-*/*")}
    monkeypatch.setattr(DraftRun, "train_step", None)
    train(whole)
    assert {p: p.stat().st_mtime_ns for p in whole.glob("draft-*/*")} == before


def test_manifest_says_what_made_the_drafts(whole, prompts_file):
    manifest = json.loads((whole / "drafts.json").read_text())
    assert manifest["drafts"] == ["draft-0", "draft-1"]
    settings = manifest["settings"]
    expected = {"teacher": "osd", "split": "disjoint", "kl": "forward", "seed": 0, "sigma": 0.1}
    assert {name: settings[name] for name in expected} == expected
    assert settings["steps"] == 7
    assert settings["problems"] == str(prompts_file)
    hashes = [prompt_hash(f"Question {i}:") for i in range(12)]
    written = json.loads((whole / "shards.json").read_text())
    for name, shard, numbers in zip(
        manifest["drafts"],
        manifest["shards"],
        split_prompts(12, 2, "disjoint", seed=0),
        strict=True,
    ):
        assert written[name] == [hashes[i] for i in numbers]
        assert shard["n_prompts"] == shard["n_responses"] == 6
    first, second = (shard["prompts_sha256"] for shard in manifest["shards"])
    assert first != second
    for losses in manifest["losses"]:
        assert losses["loss_curve"][-1][0] == 7
        assert losses["loss_curve"][-1][1] == pytest.approx(losses["loss_last"], abs=1e-6)
        assert min(loss for _, loss in losses["loss_curve"]) < losses["loss_first"]
    assert {"python", "torch", "transformers", "lm_eval_ext"} <= manifest["versions"].keys()
    assert "commit" in manifest


def test_drafts_load_with_their_tokenizer(whole, target_folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    target = AutoTokenizer.from_pretrained(target_folder)
    for k in range(2):
        folder = whole / f"draft-{k}"
        assert AutoTokenizer.from_pretrained(folder).get_vocab() == target.get_vocab()
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert model.dtype == torch.float32
        assert model.config.num_hidden_layers == 1
    assert {t.dtype for t in load_file(folder / "model.safetensors").values()} == {torch.float16}
    first, second = weights(whole)
    assert any(not torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("words", "teacher_passes"), [(["--teacher", "clean"], 1), (["--teacher", "exact"], 3)]
)
def test_other_teachers_and_splits(train, tmp_path, monkeypatch, words, teacher_passes):
    from lm_eval_ext.training.drafts import distillation

    passes, original = [], distillation.response_logits
    monkeypatch.setattr(
        distillation, "response_logits", lambda *a: passes.append(1) or original(*a)
    )
    train(
        tmp_path, *words, "--teacher-samples", 3, "--split", "same", "--steps", 2, "--kl", "reverse"
    )
    assert len(passes) == 2 * 2 * teacher_passes
    first, second = weights(tmp_path)
    # The data are the same, their order is not.
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_other_settings_do_not_continue_a_run(train, whole):
    with pytest.raises(UserError, match=r"steps=7, not 9: repeat its command"):
        train(whole, "--steps", 9)


def test_other_prompts_under_the_same_name_do_not_continue_a_run(train, whole, tmp_path):
    settings = json.loads((whole / "settings.json").read_text())
    settings["prompts_sha256"] = "another"
    copy = tmp_path / "copy"
    shutil.copytree(whole, copy)
    (copy / "settings.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="prompts_sha256='another', not "):
        train(copy)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", 0], "steps=0"),
        (["--learning-rate", 0], "--learning-rate=0.0"),
        (["--num-drafts", 0], "--num-drafts=0"),
        (["--num-drafts", 13], "12 prompts cannot be divided among 13"),
        (["--checkpoint-steps", 0], "--checkpoint-steps=0"),
        (["--modules", "qproj"], "qproj"),
        (["--draft-init", "first:7"], "only 3 layers"),
        (["--draft-init", "frist:2"], "draft_init=frist:2: "),
        (["--rank", 500], "rank=500"),
    ],
)
def test_bad_settings_are_one_line_before_any_work(train, tmp_path, monkeypatch, words, message):
    monkeypatch.setattr(target_responses.harness, "complete", None)
    with pytest.raises(UserError, match=message) as error:
        train(tmp_path / "run", *words)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_half_precision_without_loss_scaling_is_refused(train, tmp_path, monkeypatch):
    monkeypatch.setattr("accelerate.Accelerator.mixed_precision", "fp16")
    with pytest.raises(UserError, match="mixed_precision=fp16 is not supported: use bf16"):
        train(tmp_path)


def test_every_example_is_used_once_per_epoch():
    lengths = [5 + i % 7 for i in range(50)]
    order = BatchOrder(lengths, 8, "seed")
    per_epoch = 7  # 50 examples, 8 per batch
    epochs = [[order(e * per_epoch + i) for i in range(per_epoch)] for e in range(2)]
    for batches in epochs:
        assert sorted(i for batch in batches for i in batch) == list(range(50))
        assert max(map(len, batches)) == 8
    assert epochs[0] != epochs[1]
    # Going back gives the same as going on: a resumed run starts in the middle.
    assert BatchOrder(lengths, 8, "seed")(9) == epochs[1][2]
    assert order(3) == epochs[0][3]
    assert BatchOrder(lengths, 8, "other")(3) != epochs[0][3]


def test_batches_hold_similar_lengths():
    lengths = [10 * (i % 20 + 1) for i in range(160)]
    order = BatchOrder(lengths, 16, "seed")
    padded = sum(16 * max(lengths[i] for i in order(step)) for step in range(10))
    assert padded < 1.2 * sum(lengths)

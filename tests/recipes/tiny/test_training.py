import argparse

import pytest
import torch

import model
import train
import training
from training import CHECKPOINT, Run, Settings, learning_rate

MICRO = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(training, "_VALIDATION_PROBLEMS", 4)
    monkeypatch.setattr("batches.BLOCK_DOCUMENTS", 40)
    original = training.tokenizer_corpus
    monkeypatch.setattr(training, "tokenizer_corpus", lambda _, seed: original(300, seed))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def settings(**changes):
    given = {"tokens": 12_000, "batch_tokens": 768, "warmup_steps": 3, "vocab_size": 512}
    return Settings(**{**given, "size": MICRO, **changes})


class KilledError(Exception):
    pass


def train_until(run, steps):
    """Train as the command does, but die while preparing the batch of a given step."""
    original = type(run.stream).__next__

    class Dying(type(run.stream)):
        def __next__(self):
            if run.step == steps:
                raise KilledError
            return original(self)

    run.stream.__class__ = Dying
    with pytest.raises(KilledError):
        run.train(checkpoint_minutes=0)


def test_killed_and_resumed_run_equals_an_unbroken_one(tmp_path):
    whole = Run(tmp_path / "whole", settings())
    whole.train()
    train_until(Run(tmp_path / "broken", settings()), steps=6)
    # The kill comes between two saves: what was done since the last one is done again.
    train_until(Run(tmp_path / "broken"), steps=11)
    resumed = Run(tmp_path / "broken")
    assert 0 < resumed.step < whole.step
    assert resumed.seconds > 0
    resumed.train()
    assert (resumed.step, resumed.tokens) == (whole.step, whole.tokens)
    assert whole.stream.state[0] > 0  # crossed into a second block
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name
    first = Run(tmp_path / "other", settings(seed=1))
    assert not torch.equal(first.model.lm_head.weight, whole.model.lm_head.weight)


def test_kill_while_saving_keeps_the_previous_checkpoint(tmp_path, monkeypatch):
    run = Run(tmp_path, settings())
    run.train_step()
    run.save()
    run.train_step()

    def torn(state, file):
        file.write_bytes(b"half a file")
        raise KilledError

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(KilledError):
        run.save()
    assert Run(tmp_path).step == 1


def test_loss_falls(tmp_path):
    run = Run(tmp_path, settings(tokens=60_000, learning_rate=1e-2))
    before = run.validation_loss()
    run.train()
    after = run.validation_loss()
    assert all(after[family] < before[family] - 1 for family in before)
    assert run.progress >= 1


def test_minutes_bound_the_run_and_drive_the_rate(tmp_path):
    run = Run(tmp_path, settings(tokens=None, minutes=0.02))
    run.train()
    assert 1.2 <= run.seconds < 10
    assert run.step > 1
    assert run.optimizer.param_groups[0]["lr"] < run.settings.learning_rate


def test_time_in_which_the_process_is_stopped_is_not_training(tmp_path, monkeypatch):
    run = Run(tmp_path, settings(tokens=None, minutes=1.5))
    clock = [0.0]
    monkeypatch.setattr(training.time, "monotonic", lambda: clock[0])

    def step():
        clock[0] += 600 if len(steps) == 2 else 20  # stopped for ten minutes in the third step
        steps.append(run.seconds)
        return 1.0

    steps = []
    monkeypatch.setattr(run, "train_step", step)
    run.train()
    assert steps == [0, 20, 40, 70]
    assert run.seconds == 90


def test_rate_never_rises_after_warmup():
    given = settings(warmup_steps=10, decay=0.4)
    rates = [learning_rate(given, step, step / 100) for step in range(101)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[9] == given.learning_rate
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[59] == given.learning_rate
    assert rates[100] < 0.03 * given.learning_rate


def test_weights_exclude_padding_and_prompt(tmp_path):
    run = Run(tmp_path, settings())
    batch = next(run.stream)
    loss = training.weighted_loss(run.model, batch)
    changed = batch.ids.clone()
    padding = batch.ids == run.tokenizer.pad_token_id
    assert padding.any()
    changed[padding] = 77
    assert torch.allclose(loss, training.weighted_loss(run.model, batch._replace(ids=changed)))


def test_weight_decay_spares_norms(tmp_path):
    run = Run(tmp_path, settings())
    matrices, vectors = run.optimizer.param_groups
    assert matrices["weight_decay"] > 0
    assert vectors["weight_decay"] == 0
    assert all(p.dim() == 1 for p in vectors["params"])
    counted = sum(p.numel() for g in (matrices, vectors) for p in g["params"])
    assert counted == sum(p.numel() for p in run.model.parameters())


def arguments(*words):
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    return parser.parse_args(list(words))


def test_command_trains_exports_and_resumes(tmp_path, monkeypatch, capsys):
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setitem(model.SIZE, "num_hidden_layers", 1)
    folder = str(tmp_path / "run")
    words = ["--output", folder, "--batch-tokens", "768"]
    assert train.run(arguments(*words, "--tokens", "1500")) == 0
    assert "MB" in capsys.readouterr().out
    loaded = AutoModelForCausalLM.from_pretrained(f"{folder}/export")
    tokenizer = AutoTokenizer.from_pretrained(f"{folder}/export")
    assert loaded.dtype == torch.float32
    stored = load_file(f"{folder}/export/model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert loaded.generation_config.eos_token_id == tokenizer.eos_token_id
    assert loaded.config.bos_token_id == tokenizer.bos_token_id
    assert not list((tmp_path / "run/export").glob(".writing*"))

    assert train.run(arguments(*words, "--tokens", "1500")) == 2
    assert "already has a run: add --resume" in capsys.readouterr().err
    assert train.run(arguments("--output", folder, "--resume")) == 0


def test_command_refuses_in_one_line(tmp_path, capsys):
    assert train.run(arguments("--output", str(tmp_path), "--resume")) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert CHECKPOINT in error
    assert train.run(arguments("--output", str(tmp_path / "new"), "--tokens", "-5")) == 2
    assert "tokens=-5" in capsys.readouterr().err


def test_settings_want_one_length():
    with pytest.raises(ValueError, match="exactly one"):
        Settings(tokens=5, minutes=1.0)
    with pytest.raises(ValueError, match="exactly one"):
        Settings()

import argparse
import json

import pytest
import torch

import sink_recipe
import sink_trajectory
import train
import training
from sink_recipe import SinkRun, SinkSettings, reading_cost_weight
from sink_trajectory import TRAJECTORY, measure_sinks, read_trajectory


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(training, "_VALIDATION_PROBLEMS", 2)
    monkeypatch.setattr(sink_trajectory, "_PROBLEMS", 1)
    sink_trajectory._texts.cache_clear()
    monkeypatch.setattr(sink_recipe, "natural_texts", lambda: ["A cat sat on 12 mats."] * 3)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    sink_trajectory._texts.cache_clear()


def settings(**changes):
    given = {"tokens": 1536, "batch_tokens": 256, "row_tokens": 128, "new_blocks_after": (3,)}
    return SinkSettings(**{**given, "warmup_steps": 1, "measure_every": 2, **changes})


def test_starts_as_tiny_and_logs_the_trajectory(tmp_path):
    run = SinkRun(tmp_path, settings())
    assert run.new_blocks == [4]
    assert run.model.config.num_hidden_layers == 7
    run.train()
    lines = read_trajectory(tmp_path / TRAJECTORY)
    assert [line["step"] for line in lines] == [0, 2, 4, 6]
    assert [line["cost_weight"] for line in lines] == sorted(
        (line["cost_weight"] for line in lines), reverse=True
    )
    assert lines[0]["cost_weight"] == 0.5
    assert lines[-1]["cost_weight"] == 0
    first, last = (torch.tensor(line["sink_scores"]["gsm8k"]) for line in (lines[0], lines[-1]))
    assert first.shape == (7, 8)
    # The new block reads as the one before it did.
    torch.testing.assert_close(first[4], first[3], atol=0.2, rtol=0)
    assert not torch.equal(first, last)
    assert (tmp_path / "sinks_emerging.png").stat().st_size > 10_000


def test_resumed_run_equals_an_unbroken_one(tmp_path):
    whole = SinkRun(tmp_path / "whole", settings())
    whole.train()
    broken = SinkRun(tmp_path / "broken", settings())
    for _ in range(3):
        broken.train_step()
    broken.save()
    for _ in range(2):
        broken.train_step()  # measured, and lost with the kill
    resumed = SinkRun(tmp_path / "broken")
    assert resumed.settings == whole.settings
    resumed.train()
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name
    both = [read_trajectory(tmp_path / name / TRAJECTORY) for name in ("whole", "broken")]
    assert both[0] == both[1]


def test_new_blocks_learn_faster(tmp_path):
    run = SinkRun(tmp_path, settings(old_rate_factor=0.25, weight_decay=0.0))
    before = {name: weight.clone() for name, weight in run.model.state_dict().items()}
    run.train_step()
    # Adam's first step is the rate, whatever the gradient.
    for name, after in run.model.state_dict().items():
        rate = 3e-3 if ".layers.4." in name else 3e-3 / 4
        changed = (after - before[name]).abs()
        if changed.max() > 0:
            assert changed.max() == pytest.approx(rate, rel=0.02), name
    assert {group["weight_decay"] for group in run.optimizer.param_groups} == {0.0}


def test_cost_is_added_only_while_it_has_weight(tmp_path):
    run = SinkRun(tmp_path, settings(tokens=10_000))
    batch = next(run.stream)
    objective, loss = run.objective(batch)
    plain = training.weighted_loss(run.model, batch)
    torch.testing.assert_close(loss, plain, atol=1e-5, rtol=1e-5)
    assert 0.2 < float((objective - loss).detach()) < 1  # half of a cost near 1
    run.tokens = 9000
    objective, loss = run.objective(batch)
    assert objective is loss


def test_weight_of_the_cost():
    given = settings(reading_cost=0.4, cost_until=0.2, cost_end=0.6)
    weights = [reading_cost_weight(given, at / 100) for at in range(101)]
    assert weights[:21] == [0.4] * 21
    assert weights[40] == pytest.approx(0.2)
    assert weights[60:] == [0.0] * 41
    assert weights == sorted(weights, reverse=True)


def test_measured_sinks_are_mean_attention_to_bos(tmp_path):
    run = SinkRun(tmp_path, settings())
    scores = measure_sinks(run.model, run.tokenizer)
    assert run.model.training
    assert run.model.config._attn_implementation == "sdpa"
    (text,) = [text for family, text in sink_trajectory._texts() if family == "math"]
    with torch.no_grad():
        for block in run.model.model.layers:
            block.self_attn.q_proj.weight.zero_()
    length = len(run.tokenizer.encode(text))
    even = sum(1 / (t + 1) for t in range(length)) / length
    measured = torch.tensor(measure_sinks(run.model, run.tokenizer)["math"])
    torch.testing.assert_close(measured, torch.full((7, 8), even))
    assert torch.tensor(scores["math"]).std() > 0.01


def test_rows_must_fill_a_batch():
    with pytest.raises(ValueError, match="batch_tokens=300: must be a multiple of 128"):
        settings(batch_tokens=300)


def test_cost_is_not_negative():
    with pytest.raises(ValueError, match=r"reading_cost=-0\.1"):
        settings(reading_cost=-0.1)


def test_control_without_cost(tmp_path):
    run = SinkRun(tmp_path, settings(reading_cost=0.0))
    objective, loss = run.objective(next(run.stream))
    assert objective is loss


def test_command_refuses_the_cost_for_the_other_recipe(tmp_path, capsys):
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    words = ["--output", str(tmp_path), "--reading-cost", "0.1"]
    assert train.run(parser.parse_args(words)) == 2
    error = capsys.readouterr().err
    assert "reading_cost=0.1" in error
    assert error.count("\n") == 1


def test_command_runs_the_recipe(tmp_path, monkeypatch, capsys):
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    words = ["--output", str(tmp_path), "--recipe", "sink", "--batch-tokens", "256"]
    assert train.run(parser.parse_args([*words, "--tokens", "256"])) == 0
    assert "MB" in capsys.readouterr().out
    config = json.loads((tmp_path / "export/config.json").read_text())
    assert config["num_hidden_layers"] > 6
    assert train.run(parser.parse_args([*words, "--tokens", "256"])) == 2
    assert "add --resume" in capsys.readouterr().err
    words = ["--output", str(tmp_path / "x"), "--recipe", "sink", "--batch-tokens", "100"]
    assert train.run(parser.parse_args(words)) == 2
    assert "batch_tokens=100" in capsys.readouterr().err

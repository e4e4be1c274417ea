"""Settings: bad ones get one line, and files hold all of them."""

import json
from dataclasses import fields

import pytest

from lm_eval_ext.commands.options import parse
from lm_eval_ext.errors import UserError
from lm_eval_ext.training.run import flat
from lm_eval_ext.training.self_training.settings import (
    EpicarOptions,
    SelfTraining,
    Star,
    StarOptions,
    from_flat,
)


def parsed(*words, options=EpicarOptions):
    return parse(options, ["--output", "x", *words])


def test_defaults_of_the_command_are_those_of_the_settings():
    assert flat(parsed(), SelfTraining) == flat(SelfTraining())
    assert flat(parsed(options=StarOptions), SelfTraining) == flat(Star())
    assert (parsed().method, parsed(options=StarOptions).method) == ("epicar", "star")


def test_settings_survive_their_file():
    run = parsed(
        "--attempts", "4", "--stop", "a", "--stop", "b", "--alpha", "0.7", "--no-dedup",
        "--self-eval-labels", " yes+ no", "--lora-rank", "0", "--balance", "undersample",
    )  # fmt: skip
    again = from_flat(json.loads(json.dumps({**flat(run, SelfTraining), "other": 1})))
    for one in fields(again):
        assert getattr(again, one.name) == getattr(run, one.name)
    assert run.sampling.stop == ("a", "b")
    assert (run.tuning.alpha, run.rows.dedup, run.rows.balance) == (0.7, False, "undersample")
    assert run.rows.template().labels == (" yes", " no")


@pytest.mark.parametrize(("rank", "rate"), [("0", 1e-5), ("8", 1e-4)])
def test_rate_follows_the_adapter(rank, rate):
    assert parsed("--lora-rank", rank).tuning.rate == rate
    assert parsed("--lora-rank", rank, "--learning-rate", "0.5").tuning.rate == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attempts": 0}, "attempts=0 must be at least 1"),
        ({"temperature": 0}, "temperature=0 gives 8 equal attempts"),
        ({"rounds": 0}, "rounds=0"),
        ({"held_out_share": 1.0}, "held_out_share=1.0 must be in"),
        ({"alpha": 1.5}, "alpha=1.5 must be in"),
        ({"alpha": 0.5, "schedule": "sequential"}, "leave one of them out"),
        ({"alpha": 0.5, "method": "star"}, "alpha=0.5 is about self-evaluation, which star"),
        ({"balance": "oversample", "method": "star"}, "balance=oversample is about"),
        ({"schedule": "eval_only", "method": "star"}, "schedule=eval_only is about"),
        ({"init_from": "last"}, "init_from='last' is unknown: use one of base, previous"),
        ({"merge": True, "lora_rank": 0}, "merge=True has no effect"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 must be above 0"),
        ({"self_eval_labels": (" A",)}, "must be two labels"),
        ({"max_length": 2}, "max_length=2 must be at least 8"),
        ({"temperature": float("inf")}, "temperature=inf must be"),
        ({"epochs": float("inf")}, "epochs=inf must be above 0 and finite"),
        ({"warmup_ratio": 3}, "warmup_ratio=3 must be in"),
        ({"num_problems": 0}, "num_problems=0 must be at least 1"),
    ],
    ids=str,
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        from_flat(changes)

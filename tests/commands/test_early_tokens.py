"""The entropy split, attention on vectors, and the command."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lm_eval_ext.__main__ import main
from lm_eval_ext.commands.early_tokens import (
    attention_on_vectors,
    distinct_prefixes,
    entropy_along,
    split_entropy,
)
from lm_eval_ext.model_wrappers.rsp import RSP

PROMPT = "Question: Ann has 3 apples. How many has she?\nAnswer:"


@pytest.fixture(scope="module")
def rsp(random_model, tiny_tokenizer):
    return RSP(random_model("llama"), tokenizer=tiny_tokenizer, seed=0, length=4)


@settings(max_examples=100, deadline=None)
@given(arrays(np.float64, (4, 2, 6), elements=st.floats(-8, 8)))
def test_split_adds_up_and_is_bounded(scores):
    split = split_entropy(torch.log_softmax(torch.from_numpy(scores), dim=-1))
    np.testing.assert_allclose(split.total, split.within + split.between, atol=1e-9)
    assert (split.between >= 0).all()
    assert (split.between <= math.log(4) + 1e-9).all()
    assert (split.total <= math.log(6) + 1e-9).all()


def test_equal_draws_do_not_branch():
    row = torch.log_softmax(torch.randn(1, 3, 10, dtype=torch.float64), dim=-1)
    split = split_entropy(row.expand(5, -1, -1))
    np.testing.assert_allclose(split.between, 0, atol=1e-12)
    expected = torch.distributions.Categorical(logits=row[0]).entropy().numpy()
    np.testing.assert_allclose(split.total, expected)


def test_draws_disagree_only_with_vectors(rsp):
    tokens = rsp.tokenizer("3 + 4 = 7", add_special_tokens=False)["input_ids"]
    with_vectors = entropy_along(rsp, PROMPT, tokens, n_draws=6)
    without = entropy_along(rsp.without_injection(), PROMPT, tokens, n_draws=6)
    assert with_vectors.total.shape == (len(tokens),)
    assert with_vectors.between[0] > 1e-3
    np.testing.assert_allclose(without.between, 0, atol=1e-6)


def test_attention_on_vectors_is_a_share_and_none_without_them(rsp):
    mass = attention_on_vectors(rsp, PROMPT, [5, 6, 7])
    assert mass.shape == (3,)
    assert ((mass > 0) & (mass < 1)).all()
    assert not attention_on_vectors(rsp.without_injection(), PROMPT, [5, 6, 7]).any()
    assert rsp.model.config._attn_implementation != "eager"


def test_distinct_prefixes_grow_with_length():
    shares = distinct_prefixes([(1, 2, 3), (1, 2, 4), (1, 5), (1, 2, 3)], 3)
    assert shares.tolist() == [0.25, 0.5, 0.75]


def test_command(tmp_path, capsys):
    status = main(
        [
            "diagnose", "rsp", "--limit", "3", "--attempts", "3", "--tokens", "4",
            "--output", str(tmp_path / "out"),
        ]
    )  # fmt: skip
    assert status == 0
    assert "between draws (branching)" in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "early_tokens.json").read_text())
    curve = report["per_token"]["rsp"]["between"]
    assert len(curve) == 4
    assert curve[0]["n_questions"] == 3
    assert report["model"]["soft_prompt"]["length"] == 8
    assert (tmp_path / "out" / "early_tokens.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--limit", "0"], "--limit=0 must be at least 1"),
        (["--tasks", "no_such_task", "--limit", "1"], "--tasks=no_such_task is not a task"),
        (["--model-args", "length=x"], "length='x' must be an integer"),
    ],
)
def test_bad_input_is_one_line(arguments, message, capsys):
    assert main(["diagnose", "rsp", *arguments]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(error) == 1
    assert message in error[0]

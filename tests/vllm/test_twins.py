"""`draft-eu-vllm` and `sink-pruned-vllm` give what `draft-eu` and `sink-pruned` give."""

import numpy as np
import pytest

pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm")

from lm_eval.api.instance import Instance

from lm_eval_ext.errors import UserError
from lm_eval_ext.model_wrappers.draft_eu import DraftEU
from lm_eval_ext.model_wrappers.draft_eu_vllm import DraftEUVLLM
from lm_eval_ext.model_wrappers.sink_pruned import SinkPrunedLM
from lm_eval_ext.model_wrappers.sink_pruned_vllm import SinkPrunedVLLM

PRUNING = {"ratio": 0.25, "calibration_size": 16, "seed": 0}


def same_texts(ours, expected):
    assert ours == expected
    assert [one.record.token_ids for one in ours] == [one.record.token_ids for one in expected]


def test_drafts_score_the_attempts_of_vllm(engine_arguments, ask, caplog):
    arguments = {"drafts": "tiny-drafts", "self_eval": True, "seed": 0}
    mine = DraftEUVLLM("tiny", scoring_device="cpu", **arguments, **engine_arguments)
    theirs = DraftEU("tiny", max_length=engine_arguments["max_model_len"], **arguments)
    ours, expected = ask(mine), ask(theirs)
    same_texts(ours, expected)
    assert "the copy of the target 0.0" in caplog.text
    for one, other in zip(ours, expected, strict=True):
        assert one.record.uncertainties == pytest.approx(other.record.uncertainties, abs=1e-4)
        assert one.record.probabilities == pytest.approx(other.record.probabilities, abs=1e-4)
        for name, values in other.record.token_scores.items():
            np.testing.assert_allclose(one.record.token_scores[name], values, atol=1e-4)
    assert mine.run_record()["draft_eu"] == theirs.run_record()["draft_eu"]
    assert mine.run_record()["vllm"]["model_runner"] == 1


def loglikelihoods(lm):
    requests = [
        Instance("loglikelihood", {}, ("Question: What is 3 + 4?\nAnswer:", text), i)
        for i, text in enumerate((" 7", " 3+4=7", " no"))
    ]
    return [value for value, _ in lm.loglikelihood(requests, True)]


@pytest.mark.parametrize("more", [{}, {"unit": "block", "ratio": 0.3}], ids=["heads", "blocks"])
def test_vllm_serves_the_pruned_model(engine_arguments, ask, more):
    pruning = {**PRUNING, **more}
    mine = SinkPrunedVLLM("tiny", **pruning, **engine_arguments)
    theirs = SinkPrunedLM("tiny", max_length=engine_arguments["max_model_len"], **pruning)
    same_texts(ask(mine), ask(theirs))
    assert loglikelihoods(mine) == pytest.approx(loglikelihoods(theirs), abs=1e-3)
    assert mine.run_record()["pruning"]["heads"] == theirs.run_record()["pruning"]["heads"]


def test_nothing_pruned_is_sampled_vllm(engine_arguments, ask, rsp, varied):
    mine = SinkPrunedVLLM("tiny", ratio=0, seed=0, **engine_arguments)
    same_texts(ask(mine), ask(varied(rsp, length=0)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean_compensation": True}, "mean_compensation=true: vLLM loads"),
        ({"form": "sparse"}, "form='sparse' is unknown"),
    ],
)
def test_what_vllm_cannot_serve_is_named(arguments, message):
    with pytest.raises(UserError, match=message):
        SinkPrunedVLLM("tiny", **arguments)

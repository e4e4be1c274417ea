"""Pass@N of the generated word problems: vLLM's and our engine's."""

import lm_eval
import numpy as np
import pytest
from lm_eval.tasks import TaskManager

from lm_eval_ext.metrics import mean_over_questions, paired_bootstrap, pass_at_k

pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm")

N_QUESTIONS, N_ATTEMPTS = 100, 8


def answers(lm):
    """Return a model's attempts at the questions, their texts and what is logged of them."""
    results = lm_eval.simple_evaluate(
        model=lm,
        tasks=["tiny_gsm8k_passn"],
        task_manager=TaskManager(metadata={"attempts": N_ATTEMPTS}),
        limit=N_QUESTIONS,
        gen_kwargs="temperature=1.0,top_k=0",
        bootstrap_iters=0,
    )
    samples = sorted(results["samples"]["tiny_gsm8k_passn"], key=lambda s: s["doc_id"])
    return [text for s in samples for text in s["resps"][0]], [s["attempts"] for s in samples]


@pytest.fixture(scope="module")
def ours(rsp_vllm, varied):
    """Return what vLLM answers."""
    return answers(varied(rsp_vllm, length=0, self_eval=True))


def n_correct(attempts):
    return np.array([sum(one["correct"] for one in question) for question in attempts])


def test_pass_at_n_agrees(ours, rsp, varied):
    texts, attempts = ours
    same_texts, same = answers(varied(rsp, length=0))
    share = np.mean([a == b for a, b in zip(texts, same_texts, strict=True)])
    print(f"equal texts: {share:.4f}")
    # Logits differ in their last digits, and a token changes where the uniform falls between.
    assert share >= 0.995
    _, other = answers(varied(rsp, length=0, seed=1))
    assert n_correct(other).tolist() != n_correct(attempts).tolist()
    for k in (1, 2, 4, 8):
        for theirs in (same, other):
            runs = [
                {"values": pass_at_k(n_correct(one), N_ATTEMPTS, k)} for one in (attempts, theirs)
            ]
            found = paired_bootstrap(mean_over_questions, *runs)
            print(f"pass@{k}: {found}")
            assert 0.02 < found.estimate_a < 0.98
            assert found.low <= 0 <= found.high


def test_annotations_fill_the_rows(ours):
    _, attempts = ours
    for one in (one for question in attempts for one in question):
        assert one["mean_logprob"] <= 0 <= one["mean_entropy"]
        assert one["mean_self_certainty"] >= 0
        assert 0 <= one["mean_margin"] <= 1
        assert 0 <= one["probabilities"]["self_eval"] <= 1
        assert one["finish_reason"] in ("stop", "eos", "length")

"""An attempt is itself, whatever runs beside it and whatever happens to its memory."""

import json
import random
import subprocess
import sys

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm")


@pytest.fixture(scope="module")
def reference(rsp_vllm, ask):
    return ask(rsp_vllm, n_attempts=6)


def test_again(rsp_vllm, ask, reference):
    assert ask(rsp_vllm, n_attempts=6) == reference


def test_fewer_attempts_and_one_prompt_at_a_time(rsp_vllm, ask, reference):
    assert ask(rsp_vllm, n_attempts=2) == [reference[i] for i in range(24) if i % 6 < 2]
    prompts = ["x", "Problem: Compute 2+3.\nSolution:"]
    for prompt, expected in zip(prompts, (reference[18:], reference[12:18]), strict=True):
        assert ask(rsp_vllm, [prompt], n_attempts=6) == expected


def test_another_order(rsp_vllm, ask, reference):
    from lm_eval.api.instance import Instance

    settings = {"do_sample": True, "temperature": 0.9, "max_gen_toks": 24, "until": ["Question"]}
    prompts = [
        "Question: Ann has 3 apples and buys 4 more. How many has she?\nAnswer:",
        "Question: A box holds 12 eggs. How many eggs are in 7 boxes?\nAnswer:",
        "Problem: Compute 2+3.\nSolution:",
        "x",
    ]
    instances = [Instance("generate_until", {}, (p, settings), i) for i, p in enumerate(prompts)]
    order = [instance for instance in instances for _ in range(6)]
    random.Random(0).shuffle(order)
    found = {}
    for instance, one in zip(order, rsp_vllm.generate_until(order, True), strict=True):
        found[instance.idx, one.record.attempt] = one
    assert [found[i, n] for i in range(4) for n in range(6)] == reference


def test_other_seed_other_attempts(rsp_vllm, varied, ask, reference):
    other = ask(varied(rsp_vllm, seed=1), n_attempts=6)
    assert sum(a == b for a, b in zip(other, reference, strict=True)) < 12


def test_an_interrupted_run_leaves_nothing_behind(rsp_vllm, varied, ask, reference, monkeypatch):
    """Stop asking after the first attempt: what was under way is given up."""
    engine = rsp_vllm.engine
    advance, calls = engine.advance, []

    def once(jobs):
        calls.append(len(jobs))
        if len(calls) > 1:
            raise KeyboardInterrupt
        return advance(jobs)

    monkeypatch.setattr(engine, "advance", once)
    with pytest.raises(KeyboardInterrupt):
        ask(rsp_vllm, n_attempts=20)
    monkeypatch.undo()
    assert not engine._engine.has_unfinished_requests()
    assert ask(rsp_vllm, n_attempts=6) == reference


LITTLE_MEMORY = """
import json, sys
from lm_eval_ext.harness import requests as harness
from lm_eval_ext.model_wrappers.rsp_vllm import RSPVLLM

arguments, prompts, settings = json.load(sys.stdin)
lm = RSPVLLM("tiny", disable_log_stats=False, **arguments)
texts = harness.complete(lm, prompts, **settings)
preemptions = [m.value for m in lm.model.get_metrics() if m.name == "vllm:num_preemptions"]
print("\\nFOUND", json.dumps([texts, preemptions]))
"""


def test_preempted_requests_come_out_the_same(engine_arguments, asked, reference):
    """Keys and values for few attempts: vLLM drops some and computes them again."""
    arguments = {
        **engine_arguments,
        "seed": 0,
        "length": 4,
        "self_eval": True,
        "max_model_len": 256,
        "block_size": 32,
        "num_gpu_blocks_override": 9,
        "max_num_seqs": 16,
        "enable_chunked_prefill": True,
        "max_num_batched_tokens": 24,
    }
    # In a process of its own: the end of a second engine would end what it shares with the first.
    done = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY],
        input=json.dumps([arguments, *asked(n_attempts=6)]),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    texts, (preemptions,) = json.loads(done.stdout.rpartition("FOUND")[2].splitlines()[0])
    assert texts == reference
    assert preemptions > 0

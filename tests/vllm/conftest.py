"""One vLLM engine for most tests: loading one takes many times as long as asking it something.

Engines run inside the test's process, where a failure has a traceback; the tests of the command use
vLLM's own processes.
"""

import copy
import os

import pytest

# Set before vLLM is imported; no effect where it is missing.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ENGINE = {
    "max_model_len": 768,
    "enforce_eager": True,
    "distributed_executor_backend": "uni",
}
METHOD = {"seed": 0, "length": 4, "self_eval": True}

PROMPTS = [
    "Question: Ann has 3 apples and buys 4 more. How many has she?\nAnswer:",
    "Question: A box holds 12 eggs. How many eggs are in 7 boxes?\nAnswer:",
    "Problem: Compute 2+3.\nSolution:",
    "x",
]


@pytest.fixture(scope="session")
def engine_arguments():
    """Return arguments of vLLM that suit a small machine."""
    return dict(ENGINE)


@pytest.fixture(scope="session")
def rsp_vllm():
    """Return ``rsp-vllm`` with self-evaluation, on the shipped model."""
    from lm_eval_ext.model_wrappers.rsp_vllm import RSPVLLM

    return RSPVLLM("tiny", **ENGINE, **METHOD)


@pytest.fixture(scope="session")
def rsp():
    """Return ``rsp`` with the same settings."""
    from lm_eval_ext.model_wrappers.rsp import RSP

    return RSP("tiny", batch_size=64, max_length=ENGINE["max_model_len"], **METHOD)


@pytest.fixture(scope="session")
def varied():
    """Return a function that gives the same model, loaded once, with other settings."""
    from lm_eval_ext.methods.self_evaluation.finishing import (
        AttemptFinisher,
        read_finisher_settings,
    )

    def vary(lm, *, self_eval=False, box_completion=False, **attributes):
        other = copy.copy(lm)
        settings = read_finisher_settings(self_eval=self_eval, box_completion=box_completion)
        other._finisher = AttemptFinisher(settings, lm.tokenizer, max_length=lm.max_length)
        other._last_turn = (None, None)
        for name, value in attributes.items():
            setattr(other, name, value)
        return other

    return vary


@pytest.fixture(scope="session")
def asked():
    """Return a function that gives prompts, repeated for attempts, and sampling settings."""

    def asked(prompts=None, n_attempts=4, **settings):
        values = {"do_sample": True, "temperature": 0.9, "max_gen_toks": 24, "until": ["Question"]}
        values.update(settings)
        repeated = [p for p in (PROMPTS if prompts is None else prompts) for _ in range(n_attempts)]
        return repeated, values

    return asked


@pytest.fixture(scope="session")
def ask(asked):
    """Return a function that asks a model for attempts at some prompts."""
    from lm_eval_ext.harness import requests as harness

    def ask(lm, *arguments, **named):
        prompts, settings = asked(*arguments, **named)
        return harness.complete(lm, prompts, **settings)

    return ask

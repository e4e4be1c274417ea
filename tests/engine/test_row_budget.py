"""Memory that runs out costs rows and time, and no attempt."""

import numpy as np
import pytest
import torch

from lm_eval_ext.engine.row_budget import RowBudget, annotated_within_memory, is_out_of_memory
from lm_eval_ext.errors import UserError
from lm_eval_ext.model_wrappers.draft_eu import DraftEU
from lm_eval_ext.model_wrappers.epicar import EpiCaRLM
from lm_eval_ext.model_wrappers.sampled import SampledLM

CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 1048576000000 bytes. Error code 12 (Cannot allocate memory)"
)
CUBLAS = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
CUDNN = RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")
CUDNN_9 = RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED")
WINDOWS = RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.")
PROMPTS = ["Question: 3 + 4 =", "Question: 12 * 7 =", "x"]


@pytest.fixture
def fail(monkeypatch):
    """Return a function that makes model passes with many rows run out of memory."""
    import lm_eval_ext.engine.decoding as decoding

    def install(error, *, most_rows, after=0):
        forward, calls = decoding.forward, []

        def limited(model, inputs, **arguments):
            calls.append(len(inputs))
            if len(inputs) > most_rows and len(calls) > after:
                raise error
            return forward(model, inputs, **arguments)

        monkeypatch.setattr(decoding, "forward", limited)
        return calls

    return install


def sample(lm, n_attempts=4):
    from lm_eval_ext.harness import requests as harness

    asked = [prompt for prompt in PROMPTS for _ in range(n_attempts)]
    return harness.complete(lm, asked, do_sample=True, temperature=0.8, max_gen_toks=20)


@pytest.mark.parametrize(
    "error",
    [torch.cuda.OutOfMemoryError("CUDA out of memory."), CPU, WINDOWS, CUBLAS, MemoryError()],
)
def test_rows_are_halved_until_they_fit(fail, random_model, tiny_tokenizer, caplog, error):
    def make():
        return SampledLM(random_model("llama"), tokenizer=tiny_tokenizer, seed=0, batch_size=12)

    expected = sample(make())
    calls = fail(error, most_rows=4, after=8)  # in the midst of decoding
    lm = make()
    assert sample(lm) == expected
    assert lm._row_budget.limit == 3
    assert "memory ran out with 12 attempts at once" in caplog.text
    assert "resuming with 6" in caplog.text
    del calls[:]
    assert sample(lm) == expected  # what was learned stays learned
    assert max(calls) <= 3


@pytest.mark.parametrize("error", [CUBLAS, CUDNN, CUDNN_9], ids=str)
def test_libraries_of_cuda_say_it_in_their_own_words(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize("wrapper", [EpiCaRLM, DraftEU])
def test_counts_and_kept_logits_stay_right(fail, random_model, tiny_tokenizer, wrapper):
    arguments = {"drafts": "tiny"} if wrapper is DraftEU else {"box_completion": True}

    def make():
        return wrapper(
            random_model("llama"), tokenizer=tiny_tokenizer, seed=0, batch_size=12, **arguments
        )

    plain, limited = make(), make()
    expected = sample(plain)
    fail(CPU, most_rows=4, after=8)
    found = sample(limited)
    assert found == expected
    for one, other in zip(found, expected, strict=True):
        assert one.record.probabilities == pytest.approx(other.record.probabilities, abs=1e-4)
        for name, values in one.record.token_scores.items():
            np.testing.assert_allclose(
                values, other.record.token_scores[name], atol=2e-4, rtol=2e-3
            )
    for part in ("self_evaluation", "box_completion"):
        assert limited.run_record().get(part) == plain.run_record().get(part)


def test_one_attempt_that_does_not_fit_is_one_line(fail, random_model, tiny_tokenizer):
    lm = SampledLM(random_model("llama"), tokenizer=tiny_tokenizer, seed=0, batch_size=12)
    fail(CPU, most_rows=0)
    with pytest.raises(UserError, match="does not suffice for one attempt .*: lower max_gen_toks"):
        sample(lm)


def test_with_a_store_nothing_is_lost(fail, random_model, tiny_tokenizer, tmp_path):
    def make(**arguments):
        return SampledLM(
            random_model("llama"), tokenizer=tiny_tokenizer, seed=0, batch_size=6, **arguments
        )

    expected = sample(make())
    fail(CPU, most_rows=3, after=12)
    lm = make(store=tmp_path)
    assert sample(lm) == expected
    assert lm.store.n_appended == 12


def test_other_errors_are_not_memory(fail, random_model, tiny_tokenizer):
    lm = SampledLM(random_model("llama"), tokenizer=tiny_tokenizer, seed=0, batch_size=12)
    fail(RuntimeError("shapes do not match"), most_rows=4)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        sample(lm)
    assert not is_out_of_memory(ValueError("out of memory"))
    assert not is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"))
    assert RowBudget().limit is None


def test_annotations_go_by_halves(caplog):
    sizes = []

    def annotate(requests, attempts):
        sizes.append(len(requests))
        if len(requests) > 2:
            raise CPU
        return [10 * one for one in attempts]

    assert annotated_within_memory(annotate, "abcde", [1, 2, 3, 4, 5]) == [10, 20, 30, 40, 50]
    assert sizes == [5, 2, 3, 1, 2]
    with pytest.raises(RuntimeError, match="can't allocate"):
        annotated_within_memory(lambda requests, attempts: (_ for _ in ()).throw(CPU), "a", [1])

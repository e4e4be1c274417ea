"""A store keeps vLLM's attempts, and asks it only for what is missing."""

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm")


@pytest.fixture
def with_store(rsp_vllm, varied, tmp_path):
    """Return a function that gives the model with a store, opened anew."""
    from lm_eval_ext.store.attempt_store import AttemptStore
    from lm_eval_ext.vllm_engine.fingerprint import worker_fingerprints

    found = worker_fingerprints(rsp_vllm.engine, rsp_vllm._config, rsp_vllm.tokenizer)

    def make(**settings):
        store = AttemptStore(tmp_path / "store")
        return varied(rsp_vllm, self_eval=True, store=store, fingerprints=found, **settings)

    return make


@pytest.fixture
def n_sampled(rsp_vllm, monkeypatch):
    """Return a list that grows by the number of attempts vLLM is asked for."""
    asked = []
    advance = rsp_vllm.engine.advance

    def counting(jobs):
        asked.append(sum(job.params.max_tokens > 1 for job in jobs))
        return advance(jobs)

    monkeypatch.setattr(rsp_vllm.engine, "advance", counting)
    return asked


def test_only_what_is_missing_is_sampled(rsp_vllm, with_store, varied, ask, n_sampled):
    expected = ask(varied(rsp_vllm, self_eval=True))
    n_sampled.clear()
    assert ask(with_store(), n_attempts=2) == [expected[i] for i in range(16) if i % 4 < 2]
    assert sum(n_sampled) == 8
    n_sampled.clear()
    again = ask(with_store())
    assert sum(n_sampled) == 8
    assert again == expected
    for one, other in zip(again, expected, strict=True):
        assert one.record.token_ids == other.record.token_ids
        assert one.record.probabilities == pytest.approx(other.record.probabilities, abs=1e-5)


@pytest.mark.parametrize("change", [{"seed": 1}, {"length": 2}])
def test_what_changes_texts_changes_the_key(with_store, ask, n_sampled, change):
    ask(with_store(), n_attempts=1)
    n_sampled.clear()
    ask(with_store(**change), n_attempts=1)
    assert sum(n_sampled) == 4


def test_adapters_of_vllm_are_refused_with_a_store(tmp_path):
    from lm_eval_ext.model_wrappers.sampled_vllm import SampledVLLM

    with pytest.raises(ValueError, match="store=.*: attempts are kept under what"):
        SampledVLLM("tiny", store=tmp_path, lora_local_path="adapter")

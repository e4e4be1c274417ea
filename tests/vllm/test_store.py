"""A store keeps vLLM's attempts, and asks it only for what is missing."""

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm")


@pytest.fixture
def with_store(rsp_vllm, varied, tmp_path):
    """Return a function that gives the model with a store, opened again."""
    from lm_eval_ext.store.attempt_store import AttemptStore
    from lm_eval_ext.vllm_engine.worker_fingerprint import worker_fingerprints

    found = worker_fingerprints(rsp_vllm.engine, rsp_vllm.tokenizer)

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


@pytest.fixture(scope="module")
def settings_with(tmp_path_factory):
    """Return a function: what counts of a model under arguments of vLLM, and no engine."""
    from vllm.engine.arg_utils import EngineArgs

    from lm_eval_ext.models.digests import canonical
    from lm_eval_ext.models.shipped import model_path
    from lm_eval_ext.vllm_engine.widening import write_widened
    from lm_eval_ext.vllm_engine.worker_fingerprint import model_settings

    folders = [str(tmp_path_factory.mktemp("model")) for _ in range(2)]
    for folder in folders:
        write_widened(model_path("tiny"), folder)

    def settings(*, folder=0, **arguments):
        named = {"dtype": "float32", "max_model_len": 768, "enforce_eager": True, **arguments}
        config = EngineArgs(model=folders[folder], **named).create_engine_config()
        return canonical(model_settings(config))

    return settings


@pytest.mark.parametrize(
    "arguments",
    [
        {"hf_overrides": {"rms_norm_eps": 0.5}},
        {"hf_overrides": {"rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}}},
        {"kv_cache_dtype": "fp8"},
        {"dtype": "bfloat16"},
        {"disable_sliding_window": True},
    ],
    ids=["rms_norm_eps", "rope", "kv_cache_dtype", "dtype", "disable_sliding_window"],
)
def test_arguments_that_change_the_model_change_its_settings(settings_with, arguments):
    assert settings_with(**arguments) != settings_with()


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"folder": 1},
        {"max_num_seqs": 7},
        {"enable_prefix_caching": False},
        {"gpu_memory_utilization": 0.5},
        {"enforce_eager": False},
    ],
    ids=["nothing", "folder", "max_num_seqs", "prefix_caching", "memory", "eager"],
)
def test_arguments_of_speed_do_not(settings_with, arguments):
    assert settings_with(**arguments) == settings_with()


def test_settings_change_the_fingerprint(rsp_vllm, monkeypatch):
    from lm_eval_ext.vllm_engine.worker_fingerprint import worker_fingerprints

    before = worker_fingerprints(rsp_vllm.engine, rsp_vllm.tokenizer)
    assert worker_fingerprints(rsp_vllm.engine, rsp_vllm.tokenizer) == before
    facts = rsp_vllm.engine.facts()
    config = rsp_vllm.engine._engine.vllm_config.model_config.hf_config
    monkeypatch.setattr(config, "rms_norm_eps", 0.5)
    assert rsp_vllm.engine.facts() != facts
    after = worker_fingerprints(rsp_vllm.engine, rsp_vllm.tokenizer)
    assert after["model"] != before["model"]
    assert after["tokenizer"] == before["tokenizer"]


def test_adapters_of_vllm_are_refused_with_a_store(tmp_path):
    from lm_eval_ext.model_wrappers.sampled_vllm import SampledVLLM

    with pytest.raises(ValueError, match="store=.*: attempts are kept under what"):
        SampledVLLM("tiny", store=tmp_path, lora_local_path="adapter")

"""Which settings of a model in vLLM count; tests/vllm asks vLLM itself."""

from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig

from lm_eval_ext.vllm_engine.worker_fingerprint import model_settings


def settings(model=None, cache=None, **config):
    return model_settings(
        SimpleNamespace(
            model_config=SimpleNamespace(
                hf_config=LlamaConfig(**config), dtype=torch.float32, **(model or {})
            ),
            cache_config=SimpleNamespace(**{"cache_dtype": "auto", **(cache or {})}),
        )
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"rms_norm_eps": 0.5},
        {"model": {"quantization": "fp8"}},
        {"model": {"disable_sliding_window": True}},
        {"cache": {"cache_dtype": "fp8"}},
        {"cache": {"sliding_window": 64}},
    ],
    ids=str,
)
def test_what_changes_texts_counts(changed):
    assert settings(**changed) != settings()


@pytest.mark.parametrize(
    "changed",
    [
        {"name_or_path": "/elsewhere"},
        {"model": {"max_logprobs": 5}},
        {"cache": {"gpu_memory_utilization": 0.3}},
    ],
    ids=str,
)
def test_where_and_how_fast_do_not(changed):
    assert settings(**changed) == settings()

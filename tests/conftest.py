"""Fixtures for all tests."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def published_data() -> Path:
    """Return the folder of published data files, or skip the test where there is none.

    It is the one ``LM_EVAL_EXT_DATA`` names, or ``shared/data`` beside the checkout.
    """
    stated = os.environ.get("LM_EVAL_EXT_DATA")
    folder = Path(stated) if stated else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not (folder / "gsm8k_test.jsonl").is_file():
        pytest.skip("no published data files: set LM_EVAL_EXT_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def scripted_lm():
    """Return a function that makes a model of lm-eval's which answers by a script.

    ``scripted_lm(script, with_records=False)``: ``script(question_number, attempt_number)`` is the
    completion, numbers counting in the order of the requests; with records, completions are
    `Generation` strings.
    """
    from lm_eval.api.model import LM

    from lm_eval_ext.generation import Generation, GenerationRecord

    class ScriptedLM(LM):
        tokenizer_name = "scripted"

        def __init__(self, script, with_records=False):
            super().__init__()
            self.script, self.with_records, self.requests = script, with_records, []

        def generate_until(self, requests):
            self.requests = list(requests)
            questions, attempts, responses = {}, {}, []
            for request in requests:
                question = questions.setdefault(id(request), len(questions))
                attempt = attempts[question] = attempts.get(question, -1) + 1
                text = self.script(question, attempt)
                record = GenerationRecord(
                    attempt=attempt,
                    token_ids=tuple(range(attempt + 1)),
                    finish_reason="length" if attempt == 0 else "eos",
                )
                responses.append(Generation(text, record) if self.with_records else text)
            return responses

        def apply_chat_template(self, chat_history, add_generation_prompt=True):
            turns = "".join(f"<|{turn['role']}|>{turn['content']}" for turn in chat_history)
            return turns + ("<|assistant|>" if add_generation_prompt else "")

        def loglikelihood(self, requests):
            raise NotImplementedError

        loglikelihood_rolling = loglikelihood

    return ScriptedLM


@pytest.fixture
def quick_evaluator(monkeypatch):
    """Leave out of ``simple_evaluate`` the description of machine and checkout, a second each."""
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)
    monkeypatch.setattr("lm_eval.evaluator.get_git_commit_hash", lambda: None)


ARCHITECTURES = ("llama", "qwen3", "gemma3", "gpt_neox", "mistral")
# Attention the engine does not know (gpt_oss: sinks; bloom: ALiBi), and no attention at all.
UNFIT_ARCHITECTURES = ("bloom", "gpt_oss", "mamba")


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """Return the tokenizer of the shipped model."""
    from transformers import AutoTokenizer

    from lm_eval_ext.tiny import model_path

    return AutoTokenizer.from_pretrained(model_path("tiny"))


@pytest.fixture(scope="session")
def random_model(tiny_tokenizer):
    """Return a function that makes a small model of an architecture with random weights.

    The vocabulary is that of the shipped tokenizer; weights are larger than at initialization, so
    that the next-token distributions are neither flat nor certain.
    """
    import functools

    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 16,
        "max_position_embeddings": 512,
    }
    window = {"sliding_window": 12}
    settings = {
        "llama": ("llama", shape),
        "qwen3": ("qwen3", shape),
        "gemma3": (
            "gemma3_text",
            {
                **shape,
                **window,
                "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            },
        ),
        "gpt_neox": ("gpt_neox", {k: v for k, v in shape.items() if "head_dim" not in k}),
        "mistral": ("mistral", {**shape, **window}),
        "granite": ("granite", {**shape, "embedding_multiplier": 12.0}),
        "bloom": ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
        "gpt_oss": (
            "gpt_oss",
            {
                **shape,
                "num_hidden_layers": 2,
                "intermediate_size": 32,
                "num_local_experts": 2,
                "num_experts_per_tok": 1,
            },
        ),
        "mamba": ("mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
    }

    @functools.cache
    def make(name):
        model_type, values = settings[name]
        special = {
            f"{kind}_token_id": getattr(tiny_tokenizer, f"{kind}_token_id")
            for kind in ("bos", "eos", "pad")
        }
        config = AutoConfig.for_model(
            model_type, vocab_size=len(tiny_tokenizer), **values, **special
        )
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_config(config).eval()
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.data.mul_(3)
        return model

    return make

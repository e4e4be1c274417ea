"""What is refused before or while vLLM loads a model; without vLLM, too."""

import re
import subprocess
import sys

import pytest
from transformers import LlamaConfig

from lm_eval_ext.models.shipped import model_path
from lm_eval_ext.vllm_engine import loading
from lm_eval_ext.vllm_engine.loading import (
    RUNNER,
    generation_defaults,
    refusal,
    with_attempt_sampler,
)


@pytest.fixture(autouse=True)
def runner_variable(monkeypatch):
    """Leave the variable as it was, also where the code under test sets it."""
    monkeypatch.setenv(RUNNER, "0")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"logits_processors": ["a:B"]}, "logits_processors=['a:B']: the wrappers"),
        ({"worker_extension_cls": "a.B"}, "worker_extension_cls='a.B': the wrappers"),
        ({"speculative_config": {"model": "x"}}, "speculative_config: vLLM takes no"),
        ({"truncation_side": "right"}, "truncation_side='right': prompts are cut from the left"),
    ],
)
def test_what_cannot_go_together(arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}") as failure:
        with_attempt_sampler(arguments)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("runner", "cpu", "message"),
    [
        ("1", True, f"{RUNNER}=1: vLLM's second model runner fails on CPUs"),
        ("yes", False, f"{RUNNER}=yes must be 0, the default, or 1"),
    ],
)
def test_a_model_runner_that_cannot_be_is_refused(monkeypatch, runner, cpu, message):
    monkeypatch.setenv(RUNNER, runner)
    monkeypatch.setattr(loading, "_on_cpu", lambda: cpu)
    with pytest.raises(ValueError, match=message):
        with_attempt_sampler({})


@pytest.mark.parametrize(("runner", "name"), [("0", "AttemptSampler"), ("1", "SecondRunner")])
def test_each_model_runner_has_its_processor(monkeypatch, runner, name):
    monkeypatch.setenv(RUNNER, runner)
    monkeypatch.setattr(loading, "_on_cpu", lambda: False)
    (found,) = with_attempt_sampler({})["logits_processors"]
    assert name in found


def test_the_ray_executor_is_refused_on_cpus(monkeypatch):
    monkeypatch.setattr(loading, "_on_cpu", lambda: True)
    with pytest.raises(ValueError, match="^distributed_executor_backend=ray: vLLM's CPU build"):
        with_attempt_sampler({"distributed_executor_backend": "ray"})
    assert with_attempt_sampler({"distributed_executor_backend": "mp"})
    monkeypatch.setattr(loading, "_on_cpu", lambda: False)
    assert with_attempt_sampler({"distributed_executor_backend": "ray"})


def test_arguments_pass_and_ours_are_added():
    given = {"dtype": "float32", "tensor_parallel_size": 2, "truncation_side": "left"}
    found = with_attempt_sampler(given)
    assert {name: found[name] for name in given} == given
    assert set(found) - set(given) == {"logits_processors", "worker_extension_cls"}


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            TypeError("EngineArgs.__init__() got an unexpected keyword argument 'lenght'"),
            "--model_args: got an unexpected keyword argument 'lenght'; check its",
        ),
        (
            ValueError("1 validation error for ModelConfig\n  Value error, no such repository"),
            "pretrained=nope: no such repository (see",
        ),
        (
            RuntimeError("Engine core initialization failed. See above."),
            "pretrained=nope: vLLM did not start: Engine core initialization failed. See above;",
        ),
        (OSError("nope is not a folder\nmore"), "pretrained=nope: nope is not a folder (see"),
    ],
)
def test_refusals_are_one_line(error, line):
    message = str(refusal("nope", error))
    assert message.startswith(line)
    assert "\n" not in message


def test_generation_settings_come_from_the_model_or_its_configuration(tmp_path):
    stated = generation_defaults(model_path("tiny"), LlamaConfig(), None)
    assert stated.eos_token_id == 2
    derived = generation_defaults(str(tmp_path), LlamaConfig(eos_token_id=77), None)
    assert derived.eos_token_id == 77


@pytest.mark.parametrize(
    "wrapper", ["sampled_vllm:SampledVLLM", "rsp_vllm:RSPVLLM", "epicar_vllm:EpiCaRVLLM"]
)
def test_without_vllm_one_line_says_how_to_get_it(wrapper):
    module, _, name = wrapper.partition(":")
    program = (
        "import sys; sys.modules['vllm'] = None\n"
        f"from lm_eval_ext.model_wrappers.{module} import {name} as wrapper\n"
        "try:\n    wrapper('tiny')\nexcept ValueError as error:\n    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    (line,) = done.stdout.strip().splitlines()
    assert line.startswith(f"{name}: vLLM is not installed: pip install 'lm-eval-ext[vllm]'")

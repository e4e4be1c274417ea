"""The wrappers for vLLM through the real ``lm_eval`` command, in vLLM's own processes."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm")


def lm_eval(folder, model, model_args="pretrained=tiny", check=True, **variables):
    environment = {k: v for k, v in os.environ.items() if k != "VLLM_ENABLE_V1_MULTIPROCESSING"}
    environment.update(variables)
    of_vllm = ",max_model_len=768,enforce_eager=True" if model.endswith("-vllm") else ""
    done = subprocess.run(
        [
            sys.executable, "-m", "lm_eval", "--model", model, "--model_args", model_args + of_vllm,
            "--tasks", "tiny_gsm8k_passn", "--limit", "3", "--metadata", '{"attempts": 3}',
            "--gen_kwargs", "max_gen_toks=40", "--log_samples", "--output_path", str(folder),
        ],
        env=environment,
        capture_output=True,
        text=True,
        cwd=folder,
    )  # fmt: skip
    if not check:
        return done
    assert done.returncode == 0, done.stderr[-3000:]
    (results,) = folder.rglob("results_*.json")
    (samples,) = folder.rglob("samples_*.jsonl")
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    lines.sort(key=lambda line: line["doc_id"])
    return json.loads(results.read_text()), [line["resps"] for line in lines]


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """Return what our own engine gives."""
    return lm_eval(tmp_path_factory.mktemp("sampled"), "sampled")


@pytest.fixture(scope="module")
def sampled_vllm(tmp_path_factory):
    """Return what ``sampled-vllm`` gives."""
    return lm_eval(tmp_path_factory.mktemp("sampled-vllm"), "sampled-vllm")


def test_sampled_vllm_gives_the_texts_of_sampled(sampled, sampled_vllm):
    assert sampled_vllm[1] == sampled[1]
    rows = sampled_vllm[0]["results"]["tiny_gsm8k_passn"]
    for row in ("pass@1", "pass@3", "maj@3", "invalid_rate"):
        assert rows[f"{row},none"] == sampled[0]["results"]["tiny_gsm8k_passn"][f"{row},none"]
    assert sampled_vllm[0]["config"]["lm_eval_ext"]["decoder"] == "vllm"


def test_rsp_vllm_without_vectors_is_sampled_vllm(sampled_vllm, tmp_path):
    _, texts = lm_eval(tmp_path, "rsp-vllm", "pretrained=tiny,length=0")
    assert texts == sampled_vllm[1]


def test_epicar_vllm_judges_the_same_texts(sampled_vllm, tmp_path):
    results, texts = lm_eval(tmp_path, "epicar-vllm")
    assert texts == sampled_vllm[1]
    assert results["config"]["lm_eval_ext"]["self_evaluation"]["attempts"]["judged"] == 9
    assert 0 <= results["results"]["tiny_gsm8k_passn"]["brier:self_eval,none"] <= 1


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two workers need a core each")
def test_two_tensor_parallel_workers_give_the_attempts_of_our_engine(tmp_path):
    """The embedding table is divided too, whose moments the vectors are drawn with."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        pytest.skip("assigns cores to two CPU workers")
    arguments = "pretrained=tiny,length=4,self_eval=true"
    for name in ("ours", "two"):
        (tmp_path / name).mkdir()
    ours, texts = lm_eval(tmp_path / "ours", "rsp", arguments)
    two, texts_of_two = lm_eval(
        tmp_path / "two",
        "rsp-vllm",
        f"{arguments},tensor_parallel_size=2",
        VLLM_CPU_OMP_THREADS_BIND="0|1",
    )
    assert texts_of_two == texts
    row = "brier:self_eval,none"
    found, expected = (run["results"]["tiny_gsm8k_passn"][row] for run in (two, ours))
    assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("model", "model_args", "message"),
    [
        ("rsp-vllm", "pretrained=tiny,control=noise", "control='noise' is unknown: use one of"),
        ("rsp-vllm", "pretrained=tiny,enable_prompt_embeds=False", "enable_prompt_embeds=False"),
        ("sampled-vllm", "pretrained=tiny,lenght=3", "unexpected keyword argument 'lenght'"),
        ("sampled-vllm", "pretrained=no/such/folder", "pretrained=no/such/folder: "),
    ],
)
def test_errors_are_one_line(tmp_path, model, model_args, message):
    done = lm_eval(tmp_path, model, model_args, check=False)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "error: " in last
    assert message in last
    assert "Traceback" not in done.stderr


def test_heads_without_a_kernel_are_named(tmp_path, tiny_tokenizer):
    from transformers import LlamaConfig, LlamaForCausalLM
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        pytest.skip("GPUs have kernels for heads of any multiple of 8")
    config = LlamaConfig(
        hidden_size=48,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        vocab_size=len(tiny_tokenizer),
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    done = lm_eval(tmp_path, "sampled-vllm", f"pretrained={tmp_path / 'model'}", check=False)
    assert (
        "attention heads have 24 dimensions, and vLLM's CPU build has kernels for 32,"
        in (done.stderr.strip().splitlines()[-1])
    )

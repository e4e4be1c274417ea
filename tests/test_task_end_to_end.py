"""lm-eval's own Hugging Face model and its command line on our tasks, with random weights."""

import json
import os
import subprocess
from pathlib import Path

import lm_eval
import pytest
from kept_index import LM_EVAL
from lm_eval.tasks import TaskManager

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def random_model(tmp_path_factory):
    """Return the folder of a Llama with random weights and the tiny model's kind of tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tokenizer import train_tokenizer

    folder = str(tmp_path_factory.mktemp("random_model"))
    tokenizer = train_tokenizer(["Question: How many?\nAnswer: 1+1=2\n#### 2"], vocab_size=280)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.usefixtures("quick_evaluator")
def test_any_hugging_face_model_gets_the_metrics_of_its_strings(random_model):
    manager = TaskManager(
        include_path=str(ROOT / "tasks"), include_defaults=False, metadata={"attempts": 3}
    )
    results = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": random_model, "device": "cpu"},
        tasks=["tiny_gsm8k_passn"],
        task_manager=manager,
        limit=2,
        gen_kwargs="max_gen_toks=4",
        apply_chat_template=True,
        bootstrap_iters=0,
    )
    rows = results["results"]["tiny_gsm8k_passn"]
    assert rows["invalid_rate,none"] == 1.0
    assert [rows[f"{metric},none"] for metric in ("pass@1", "pass@2", "pass@3", "maj@3")] == [0] * 4
    assert "mean_tokens,none" not in rows
    sample = results["samples"]["tiny_gsm8k_passn"][0]
    assert len(sample["resps"][0]) == len(sample["attempts"]) == 3
    assert len(set(sample["resps"][0])) > 1  # sampled, not greedy
    assert sample["arguments"][0][0].startswith("<s><|user|>Question: ")


def test_the_command_line_sets_everything(random_model, tmp_path):
    (tmp_path / "gsm8k_test.jsonl").write_text(
        json.dumps({"question": "1 + 1?", "answer": "#### 2"}) + "\n"
    )
    command = [
        *(*LM_EVAL, "run", "--model", "hf"),
        *("--model_args", f"pretrained={random_model}", "--device", "cpu"),
        *("--include_path", str(ROOT / "tasks"), "--tasks", "gsm8k_passn"),
        *("--metadata", '{"attempts": 4, "ks": [1, 4], "report": "all"}', "--num_fewshot", "1"),
        *("--gen_kwargs", "temperature=0.8,max_gen_toks=3", "--log_samples"),
        *("--output_path", str(tmp_path / "out")),
    ]
    environment = {
        **os.environ,
        "LM_EVAL_EXT_DATA": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "HF_HUB_OFFLINE": "1",
    }
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    table = [line.split("|") for line in run.stdout.splitlines() if "none" in line]
    names = {cells[5].strip() for cells in table}
    of_confidence = [
        "ece",
        "debiased_ece",
        "brier",
        "nll",
        "hallucination_auroc",
        "auprc",
        "aurc",
        "prr",
    ]
    assert names == {
        *("pass@1", "pass@4", "pass^4", "maj@4", "invalid_rate"),
        *(f"{name}:vote_share" for name in of_confidence),
        *(f"{name}:answer_entropy" for name in of_confidence[4:]),
    }
    (samples,) = (tmp_path / "out").rglob("samples_gsm8k_passn_*.jsonl")
    (sample,) = [json.loads(line) for line in samples.read_text().splitlines()]
    assert [attempt["attempt"] for attempt in sample["attempts"]] == [0, 1, 2, 3]
    prompt, settings = sample["arguments"]["gen_args_0"].values()
    assert prompt.count("Q:") == 2
    assert (settings["temperature"], settings["max_gen_toks"]) == (0.8, 3)

"""``lm-eval-ext plan`` reads tasks and hardware, and says what is missing."""

import argparse
import json

import pytest

from lm_eval_ext.errors import UserError
from lm_eval_ext.planning import command
from lm_eval_ext.planning.hardware import GPUS, find_device
from lm_eval_ext.planning.workload import Stated, response_lengths, stated_workload, task_workload


def plan(*words):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(["--model-config", "tiny", *words]))


NUMBERS = ("--questions", "20", "--prompt-tokens", "60", "--response-tokens", "50")


def test_plan_of_numbers(capsys):
    assert plan(*NUMBERS, "--attempts", "8", "--gpu", "l4", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["workload"]["questions"] == 20
    assert found["rows_per_device"] == 160
    times = [found["estimates"][case]["seconds"] for case in ("best", "expected", "worst")]
    assert 0 < times[0] < times[1] < times[2]
    assert plan(*NUMBERS, "--memory-gb", "8", "--bandwidth-gb-s", "100", "--tflops", "5") == 0
    assert "not measured on a GPU" in capsys.readouterr().out


def test_task_tells_questions_lengths_and_grader():
    from transformers import AutoTokenizer

    from lm_eval_ext.tiny import model_path
    from lm_eval_ext.tiny.formats import prompt
    from lm_eval_ext.tiny.problems import load_split

    found = task_workload("tiny_gsm8k_passn", "tiny", Stated(attempts=32))
    docs = load_split("gsm8k", "test")
    assert found.questions == len(docs)
    assert (found.attempts, found.max_new_tokens, found.grader) == (32, 200, "gsm8k")
    tokenizer = AutoTokenizer.from_pretrained(model_path("tiny"))
    lengths = [len(tokenizer(prompt("gsm8k", doc))["input_ids"]) for doc in list(docs)[:200]]
    assert found.prompt_tokens == pytest.approx(sum(lengths) / 200)
    stated = Stated(questions=7, prompt_tokens=11.0, max_new_tokens=13, response_tokens=5.0)
    found = task_workload("tiny_gsm8k_passn", "tiny", stated)
    assert (found.questions, found.prompt_tokens, found.max_new_tokens) == (7, 11.0, 13)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*NUMBERS, "--gpu", "h2000"), "--gpu=h2000 is not in the table"),
        ((*NUMBERS, "--memory-gb", "8"), "--bandwidth-gb-s, --tflops: name a GPU"),
        ((*NUMBERS, "--gpu", "h200", "--memory-gb", "-1"), "--memory-gb=-1 must be above 0"),
        (("--questions", "3", "--gpu", "h200"), "--task is not given, nor --prompt-tokens"),
        ((*NUMBERS[:4], "--gpu", "h200"), "--max-gen-toks and --response-tokens"),
        ((*NUMBERS, "--attempts", "0", "--gpu", "h200"), "--attempts=0 must be above 0"),
        ((*NUMBERS, "--gpus", "0", "--gpu", "h200"), "--gpus=0 must be 1 or more"),
    ],
)
def test_wrong_options_are_named(words, message):
    with pytest.raises(UserError) as error:
        plan(*words)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_gsm8k_without_data_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("LM_EVAL_EXT_DATA", str(tmp_path))
    with pytest.raises(UserError, match="gsm8k_test.jsonl.*--questions"):
        task_workload("gsm8k_passn", "tiny", Stated())


def test_unknown_response_length_is_a_range():
    lengths, note = response_lengths(None, 400)
    assert (lengths.best, lengths.expected, lengths.worst) == (100, 200, 400)
    assert "--response-tokens" in note
    assert response_lengths(900, 400)[0].expected == 400
    stated = stated_workload(Stated(questions=1, prompt_tokens=5, response_tokens=30))
    assert stated.max_new_tokens == 60


def test_table_is_plausible():
    for name, device in GPUS.items():
        assert find_device(name) == device
        assert 1e10 < device.memory < 1e12
        assert device.flops > device.flops_32
        # Decoding one row is bound by memory everywhere: far more operations than bytes.
        assert device.flops / device.bandwidth > 50

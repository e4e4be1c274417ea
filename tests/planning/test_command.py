"""``lm-eval-ext plan`` reads tasks and hardware, and says what is missing."""

import argparse
import json

import pytest

from lm_eval_ext.errors import UserError
from lm_eval_ext.planning import command
from lm_eval_ext.planning import task_workload as tasks_of
from lm_eval_ext.planning.hardware import GPUS, find_device
from lm_eval_ext.planning.task_workload import task_workload
from lm_eval_ext.planning.workload import (
    GRADING,
    Stated,
    response_lengths,
    stated_workload,
)


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
        ((*NUMBERS, "--max-gen-toks", "0", "--gpu", "h200"), "--max-gen-toks=0 must be above 0"),
        ((*NUMBERS[:4], "--response-tokens", "0", "--gpu", "h200"), "--response-tokens=0 must be"),
        (("--task", "x", "--max-gen-toks", "0", "--gpu", "h200"), "--max-gen-toks=0 must be"),
        (("--task", "x", "--questions", "-2", "--gpu", "h200"), "--questions=-2 must be above 0"),
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


def test_plan_reads_a_model_whose_layers_differ(capsys, tmp_path):
    """Gemma 4, for which transformers refuses to say one width of heads."""
    from transformers import AutoConfig

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 6, "vocab_size": 50}
    AutoConfig.for_model("gemma4_text", **sizes).save_pretrained(tmp_path)
    assert plan("--model-config", str(tmp_path), *NUMBERS, "--gpu", "l4") == 0
    assert "6 layers" in capsys.readouterr().out


def test_single_answers_are_planned_as_the_task_makes_them():
    found = task_workload("tiny_gsm8k_calib", "tiny", Stated(attempts=64, prompt_tokens=9.0))
    assert found.attempts == 1
    assert found.all_attempts == found.questions
    assert "tiny_gsm8k_calib 1,000 x 1" in found.notes[0]


def test_a_group_has_the_attempts_lengths_and_graders_of_its_tasks(monkeypatch):
    tasks = [
        tasks_of.TaskNumbers("one", 10, 1, ["1 2 3"], 100, "gsm8k"),
        tasks_of.TaskNumbers("two", 30, 8, ["1 2 3 4 5 6 7 8"], 40, "mbpp"),
    ]
    monkeypatch.setattr(tasks_of, "loaded_tasks", lambda task, attempts: tasks)
    lengths = [tasks_of._mean_tokens(one.prompts, "tiny")[0] for one in tasks]
    found = task_workload("both", "tiny", Stated())
    assert (found.questions, found.all_attempts, found.max_new_tokens) == (40, 250, 100)
    assert found.attempts == 6.25
    assert found.prompt_tokens == (10 * lengths[0] + 30 * lengths[1]) / 40
    assert found.response_tokens.worst == (10 * 100 + 240 * 40) / 250
    expected = (10 * GRADING["gsm8k"].worst + 240 * GRADING["mbpp"].worst) / 250
    assert found.grading.worst == pytest.approx(expected)
    assert "one 10 x 1, two 30 x 8" in found.notes[0]
    clipped = task_workload("both", "tiny", Stated(response_tokens=50.0))
    assert clipped.response_tokens.expected == (10 * 50 + 240 * 40) / 250
    assert "not the 50 of --response-tokens" in clipped.notes[-1]
    assert task_workload("both", "tiny", Stated(response_tokens=30.0)).notes[-1].endswith("given")


def test_a_response_beyond_the_limit_is_said_to_be_cut():
    assert response_lengths(500, 100)[0] == (100, 100, 100)
    assert "not the 500 of --response-tokens" in response_lengths(500, 100)[1]
    assert response_lengths(50, 100)[1].endswith("as given")


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

"""``lm-eval-ext plan`` reads tasks and hardware, and says what is missing."""

import json

import pytest

from lm_eval_ext.commands.options import parse
from lm_eval_ext.commands.plan import command
from lm_eval_ext.commands.plan import task_workload as tasks_of
from lm_eval_ext.commands.plan.hardware import GPUS, find_device
from lm_eval_ext.commands.plan.task_workload import task_workload
from lm_eval_ext.commands.plan.workload import RunNumbers, response_note, workload_of_numbers
from lm_eval_ext.errors import UserError


def plan(*words):
    return command.run(parse(command.PlanOptions, ["--pretrained", "tiny", *words]))


NUMBERS = ("--questions", "20", "--prompt-tokens", "60", "--response-tokens", "50")


def test_plan_of_numbers(capsys):
    assert plan(*NUMBERS, "--attempts", "8", "--gpu", "l4", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["workload"]["questions"] == 20
    assert found["least"]["rows"] == 160
    assert found["least"]["steps"] == 50
    assert plan(*NUMBERS, "--memory-gb", "8", "--bandwidth-gb-s", "100") == 0
    assert "time      at least " in capsys.readouterr().out


def test_task_tells_questions_and_lengths():
    from transformers import AutoTokenizer

    from lm_eval_ext.data.tiny.formats import prompt
    from lm_eval_ext.data.tiny.problems import load_split
    from lm_eval_ext.models.shipped import model_path

    found = task_workload("tiny_gsm8k_passn", "tiny", RunNumbers(attempts=32))
    docs = load_split("gsm8k", "test")
    assert found.questions == len(docs)
    assert (found.attempts, found.max_new_tokens, found.response_tokens) == (32, 200, 200)
    tokenizer = AutoTokenizer.from_pretrained(model_path("tiny"))
    lengths = [len(tokenizer(prompt("gsm8k", doc))["input_ids"]) for doc in list(docs)[:200]]
    assert found.prompt_tokens == pytest.approx(sum(lengths) / 200)
    numbers = RunNumbers(questions=7, prompt_tokens=11.0, max_new_tokens=13, response_tokens=5.0)
    found = task_workload("tiny_gsm8k_passn", "tiny", numbers)
    assert (found.questions, found.prompt_tokens, found.max_new_tokens) == (7, 11.0, 13)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*NUMBERS, "--gpu", "h2000"), "--gpu=h2000 is not in the table"),
        ((*NUMBERS, "--memory-gb", "8"), "nor --bandwidth-gb-s: name a GPU"),
        ((*NUMBERS, "--gpu", "h200", "--memory-gb", "-1"), "--memory-gb=-1 must be above 0"),
        (("--questions", "3", "--gpu", "h200"), "--tasks is not given, nor --prompt-tokens"),
        ((*NUMBERS[:4], "--gpu", "h200"), "--max-new-tokens and --response-tokens"),
        ((*NUMBERS, "--attempts", "0", "--gpu", "h200"), "--attempts=0 must be above 0"),
        ((*NUMBERS, "--measure"), "--measure needs --tasks"),
        (("--tasks", "x", "--measure", "0"), "--measure=0.0 must be at least 1"),
        (("--tasks", "x", "--measure", "--attempts", "0"), "--attempts=0 must be above 0"),
        (("--tasks", "x", "--measure"), "--tasks=x is not a task"),
        ((*NUMBERS, "--gpus", "0", "--gpu", "h200"), "--gpus=0 must be at least 1"),
        (
            (*NUMBERS, "--max-new-tokens", "0", "--gpu", "h200"),
            "--max-new-tokens=0 must be above 0",
        ),
        ((*NUMBERS[:4], "--response-tokens", "0", "--gpu", "h200"), "--response-tokens=0 must be"),
        (("--tasks", "x", "--max-new-tokens", "0", "--gpu", "h200"), "--max-new-tokens=0 must be"),
        (("--tasks", "x", "--questions", "-2", "--gpu", "h200"), "--questions=-2 must be above 0"),
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
        task_workload("gsm8k_passn", "tiny", RunNumbers())


def test_plan_reads_a_model_whose_layers_differ(capsys, tmp_path):
    """Gemma 4, for which transformers refuses to say one width of heads."""
    from transformers import AutoConfig

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 6, "vocab_size": 50}
    AutoConfig.for_model("gemma4_text", **sizes).save_pretrained(tmp_path)
    assert plan("--pretrained", str(tmp_path), *NUMBERS, "--gpu", "l4") == 0
    assert "6 layers" in capsys.readouterr().out


def test_single_answers_are_planned_as_the_task_makes_them():
    found = task_workload("tiny_gsm8k_calib", "tiny", RunNumbers(attempts=64, prompt_tokens=9.0))
    assert found.attempts == 1
    assert found.all_attempts == found.questions
    assert "tiny_gsm8k_calib 1,000 x 1" in found.notes[0]


def test_a_group_has_the_attempts_lengths_and_graders_of_its_tasks(monkeypatch):
    tasks = [
        tasks_of.TaskNumbers("one", 10, 1, ["1 2 3"], 100),
        tasks_of.TaskNumbers("two", 30, 8, ["1 2 3 4 5 6 7 8"], 40),
    ]
    monkeypatch.setattr(tasks_of, "task_numbers", lambda task, attempts: tasks)
    lengths = [tasks_of._mean_tokens(one.prompts, "tiny") for one in tasks]
    found = task_workload("both", "tiny", RunNumbers())
    assert (found.questions, found.all_attempts, found.max_new_tokens) == (40, 250, 100)
    assert found.attempts == 6.25
    assert found.prompt_tokens == (10 * lengths[0] + 30 * lengths[1]) / 40
    assert found.response_tokens == (10 * 100 + 240 * 40) / 250
    assert "one 10 x 1, two 30 x 8" in found.notes[0]
    clipped = task_workload("both", "tiny", RunNumbers(response_tokens=50.0))
    assert clipped.response_tokens == (10 * 50 + 240 * 40) / 250
    assert "not the 50 of --response-tokens" in clipped.notes[-1]
    assert (
        task_workload("both", "tiny", RunNumbers(response_tokens=30.0)).notes[-1].endswith("given")
    )


def test_a_response_beyond_the_limit_is_said_to_be_cut():
    assert RunNumbers(response_tokens=500.0).response_length(100) == 100
    assert "not the 500 of --response-tokens" in response_note(500, 100)
    assert response_note(50, 50).endswith("as given")


def test_an_unknown_response_length_is_the_limit():
    assert RunNumbers().response_length(400) == 400
    assert "--response-tokens" in response_note(None, 400)
    numbers = workload_of_numbers(RunNumbers(questions=1, prompt_tokens=5, response_tokens=30))
    assert numbers.max_new_tokens == 60


def test_table_is_plausible():
    for name, device in GPUS.items():
        assert find_device(name) == device
        assert 1e10 < device.memory < 1e12
        assert 1e11 < device.bandwidth < 1e13
        # Memory is read through in a fraction of a second.
        assert 0.01 < device.memory / device.bandwidth < 0.2


def test_this_machine_is_measured():
    device = find_device("cpu")
    assert device.name.startswith("cpu, ")
    assert device.memory > 1e8
    assert 1e8 < device.bandwidth < 1e13

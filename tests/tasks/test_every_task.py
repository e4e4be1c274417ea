"""One matrix over all task files: each loads, documents itself, and grades its own gold answers."""

from pathlib import Path

import pytest
import yaml
from lm_eval.tasks import TaskManager

from lm_eval_ext.task import AttemptsTask
from lm_eval_ext.tiny.formats import prompt as tiny_prompt
from lm_eval_ext.tiny.problems import load_split

FOLDER = Path(__file__).resolve().parents[2] / "tasks"
FILES = {path.stem: path for path in sorted(FOLDER.rglob("*.yaml"))}
PUBLISHED = {"gsm8k_test.jsonl": '{"question": "2 + 2?", "answer": "2+2=<<2+2=4>>4\\n#### 4"}\n'}


@pytest.fixture(scope="module")
def manager():
    return TaskManager(
        include_path=str(FOLDER), include_defaults=False, metadata={"attempts": 2, "length": 8}
    )


@pytest.fixture
def load(manager, tmp_path, monkeypatch):
    """Return a function that loads a task on small local copies of the published files."""
    for name, content in PUBLISHED.items():
        (tmp_path / name).write_text(content)
    monkeypatch.setenv("LM_EVAL_EXT_DATA", str(tmp_path))
    return lambda name: manager.load(name)["tasks"][name]


def test_there_are_tasks():
    assert {"gsm8k_passn", "gsm8k_passn_chat", "tiny_gsm8k_passn"} <= set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_the_file_is_indexed_under_its_name_and_documented(manager, name):
    assert name in manager.all_subtasks
    readme = (FILES[name].parent / "README.md").read_text(encoding="utf-8")
    assert f"`{name}`" in readme


@pytest.mark.parametrize("name", FILES)
def test_the_task_loads_with_version_attempts_and_sampling(load, name):
    task = load(name)
    assert isinstance(task, AttemptsTask)
    assert task.task_name == name
    assert isinstance(task.VERSION, float)
    assert task.config.repeats == 2
    assert task.config.generation_kwargs["do_sample"] is True
    assert task.config.generation_kwargs["temperature"] == 0.7
    assert task.config.generation_kwargs["max_gen_toks"] >= 100
    assert len(task.eval_docs) >= 1


@pytest.mark.parametrize("name", FILES)
def test_the_published_solution_is_correct_and_its_cut_text_is_not(load, name):
    task = load(name)
    for doc in list(task.eval_docs)[:20]:
        solution = doc["answer"]
        result = task.process_results(doc, [[solution, solution.rpartition("####")[0]]])
        assert [attempt["correct"] for attempt in result["attempts"]] == [True, False]
        assert result["invalid_rate"] == 0.5


@pytest.mark.parametrize("name", FILES)
def test_no_stop_string_cuts_a_valid_answer(load, name):
    task = load(name)
    completions = [doc["answer"] for doc in list(task.eval_docs)[:100]]
    completions += ["The answer is 4.", "\\boxed{4}", "Answer: 4", "**Final Answer:**\n\n4"]
    for stop in task.config.generation_kwargs["until"]:
        assert not [completion for completion in completions if stop in completion]


def prompts(task, **options):
    task.set_fewshot_seed(1234)
    task.build_all_requests(limit=1, **options)
    return task.instances[0].args[0]


def chat(messages, add_generation_prompt=True):
    return "".join(f"[{turn['role']}]{turn['content']}" for turn in messages) + "[assistant]"


def test_gsm8k_passn_shows_eight_solved_questions(load):
    prompt = prompts(load("gsm8k_passn"))
    assert prompt.startswith("Q: There are 15 trees in the grove.")
    assert prompt.count("\n\nQ: ") == 8
    assert prompt.count("\nA: ") == prompt.count("The answer is ") == 8
    assert prompt.endswith("The answer is 8.\n\nQ: 2 + 2?\nA:")


def test_gsm8k_passn_as_a_chat(load):
    options = {"apply_chat_template": True, "chat_template": chat}
    turns = prompts(load("gsm8k_passn"), fewshot_as_multiturn=True, **options).split("[")
    assert len(turns) == 1 + 2 * 8 + 2
    single = prompts(load("gsm8k_passn"), fewshot_as_multiturn=False, **options)
    assert single.count("[user]") == 1
    assert single.endswith("Q: 2 + 2?\nA:[assistant]")


def test_gsm8k_passn_chat_asks_for_a_box(load):
    options = {"apply_chat_template": True, "chat_template": chat}
    prompt = prompts(load("gsm8k_passn_chat"), **options)
    assert prompt.startswith("[user]2 + 2?\n\nThink step by step")
    assert prompt.endswith(" in \\boxed{}.[assistant]")


def test_the_tiny_prompts_are_those_of_the_training_text(load):
    task = load("tiny_gsm8k_passn")
    docs = list(task.eval_docs)
    assert docs == load_split("gsm8k", "test")
    for doc in docs[:20]:
        assert task.doc_to_text(doc) == tiny_prompt("gsm8k", doc)
    assert prompts(task) == tiny_prompt("gsm8k", docs[0])


def test_lm_eval_finds_no_fault_in_the_included_files():
    # Files without the suffix .yaml are bases: they must not be tasks themselves.
    for path in FOLDER.rglob("_*_yaml"):
        text = path.read_text(encoding="utf-8").replace("!function ", "")
        assert "task" not in yaml.safe_load(text)

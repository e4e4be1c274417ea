"""The task files, and small copies of the published files that they load."""

import json
from pathlib import Path

import pytest

from lm_eval_ext.data import word_problems

FOLDER = Path(__file__).resolve().parents[2] / "tasks"

SUBJECTS = {
    "Algebra": "algebra",
    "Counting & Probability": "counting_and_probability",
    "Geometry": "geometry",
    "Intermediate Algebra": "intermediate_algebra",
    "Number Theory": "number_theory",
    "Prealgebra": "prealgebra",
    "Precalculus": "precalculus",
}
PROBLEM = {
    "problem": "What is $2 + 2$?",
    "level": "Level 1",
    "solution": "It is $2 + 2 = \\boxed{4}$.",
}


def _code(task_id, text_field):
    name = f"double_{task_id}"
    return {
        "task_id": task_id,
        text_field: f"Write a function {name} to double a number.",
        "code": f"def {name}(x):\r\n  return 2 * x",
        "test_list": [f"assert {name}({x}) == {2 * x}" for x in (1, 2, 3)],
    }


WORD_PROBLEMS = {
    "train": "Ann has 9 pens and loses 5. How many are left?",
    "test": "A box holds 2 red and 2 blue balls. How many does it hold?",
}


def _published_files():
    """Return name -> records; the seven subjects have 1, 2, ... 7 questions."""
    mbpp = {"test_setup_code": "", "challenge_test_list": []}
    numbers = [*range(1, 11), 11, 12, 511, 601]
    return {
        "gsm8k_test.jsonl": [{"question": "2 + 2?", "answer": "2+2=<<2+2=4>>4\n#### 4"}],
        "gsm8k_train.jsonl": [{"question": "1 + 3?", "answer": "1+3=<<1+3=4>>4\n#### 4"}],
        "math_train.jsonl": [
            {**PROBLEM, "type": subject, "idx": number} for number, subject in enumerate(SUBJECTS)
        ],
        "math500.jsonl": [
            {**PROBLEM, "answer": "4", "subject": "Algebra", "level": 1, "unique_id": "1"}
        ],
        "math_test.jsonl": [
            {**PROBLEM, "type": subject, "idx": number}
            for size, subject in enumerate(SUBJECTS, start=1)
            for number in range(size)
        ],
        "mawps.jsonl": [
            {"subset": "singleop", "question": question, "answer": 4.0}
            for question in WORD_PROBLEMS.values()
        ],
        "svamp.jsonl": [
            {
                "ID": "chal-1",
                "Body": "A box holds 2 red and 2 blue balls.",
                "Question": "How many are in it?",
                "Answer": 4.0,
            }
        ],
        "aime24.jsonl": [{**PROBLEM, "id": 60, "answer": "004"}],
        "mbpp.jsonl": [{**_code(number, "text"), **mbpp} for number in numbers],
        "mbpp_sanitized.jsonl": [
            {**_code(number, "prompt"), "source_file": "a.ipynb", "test_imports": []}
            for number in numbers
            if number not in (1, 5, 10)
        ],
    }


@pytest.fixture(scope="session")
def small_data(tmp_path_factory):
    """Return a folder with small copies of the published files."""
    folder = tmp_path_factory.mktemp("published")
    for name, records in _published_files().items():
        lines = [json.dumps(record) for record in records]
        (folder / name).write_text("\n".join(lines) + "\n")
    split = {side: [word_problems.key(text)] for side, text in WORD_PROBLEMS.items()}
    (folder / "split.json").write_text(json.dumps({**split, "svamp_twins": []}))
    return folder


@pytest.fixture(scope="session")
def use_small_data(small_data):
    """Return a function that lets tasks load the small copies, and MAWPS their split."""

    def use(patch):
        patch.setenv("LM_EVAL_EXT_DATA", str(small_data))
        patch.setattr(word_problems, "SPLIT_FILE", small_data / "split.json")

    return use


@pytest.fixture(scope="session")
def task_manager():
    """Return a function that indexes our task files with some ``--metadata``."""
    from lm_eval.tasks import TaskManager

    def make(**metadata):
        return TaskManager(include_path=str(FOLDER), include_defaults=False, metadata=metadata)

    return make


@pytest.fixture(scope="session")
def manager(task_manager):
    """Return the index with two attempts per question."""
    return task_manager(attempts=2, length=8)


@pytest.fixture
def load(manager, use_small_data, monkeypatch):
    """Return a function that loads a task on the small copies."""
    use_small_data(monkeypatch)
    return lambda name: manager.load(name)["tasks"][name]


@pytest.fixture(scope="session")
def judge():
    """Return a function that judges completions; skips where programs cannot be isolated."""
    from lm_eval_ext.errors import UserError

    def attempts(task, doc, completions):
        try:
            return task.process_results(doc, [completions])["attempts"]
        except UserError as error:
            if "cannot be isolated" in str(error):
                pytest.skip(str(error))
            raise

    return attempts


@pytest.fixture(scope="session")
def prompt_of():
    """Return a function that renders the prompt of a task's first question."""

    def render(task, **options):
        task.set_fewshot_seed(1234)
        task.build_all_requests(limit=1, **options)
        return task.instances[0].args[0]

    return render


@pytest.fixture(scope="session")
def chat():
    """Return options that render a chat with plain marks, all turns in one or as turns."""

    def template(messages, add_generation_prompt=True):
        turns = "".join(f"[{turn['role']}]{turn['content']}" for turn in messages)
        return turns + ("[assistant]" if add_generation_prompt else "")

    def options(multiturn=False):
        return {
            "apply_chat_template": True,
            "chat_template": template,
            "fewshot_as_multiturn": multiturn,
        }

    return options

"""One matrix over all task files: each loads, documents itself, and grades its own gold answers."""

import functools
from pathlib import Path

import pytest
import yaml

from lm_eval_ext.task import AttemptsTask

FOLDER = Path(__file__).resolve().parents[2] / "tasks"
ALL_FILES = {path.stem: path for path in sorted(FOLDER.rglob("*.yaml"))}
GROUPS = {name for name, path in ALL_FILES.items() if "\ngroup: " in path.read_text("utf-8")}
FILES = {name: path for name, path in ALL_FILES.items() if name not in GROUPS}
# The seven subjects of MATH share all but the data: one of them stands for all.
SUBJECTS = {name for name, path in FILES.items() if path.parent.name.startswith(("passn", "calib"))}
SHAPES = [name for name in FILES if name not in SUBJECTS or name.startswith("math_algebra_")]
SOLUTION = {"gsm8k": "answer", "math": "solution", "mbpp": "code"}


@pytest.fixture(scope="module")
def load(manager, use_small_data):
    """Return the loader of ``conftest``, which here loads a task once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        use_small_data(patch)
        yield functools.cache(lambda name: manager.load(name)["tasks"][name])


def test_there_are_tasks():
    data_sets = ["gsm8k", "math500", "mbpp", "mbpp_instruct", "mbpp_sanitized"]
    data_sets += ["math_algebra", "tiny_gsm8k", "tiny_math", "tiny_mbpp"]
    chats = ["gsm8k", "math500", "math_algebra"]
    kinds = ["passn", "calib"]
    expected = {f"{name}_{kind}" for name in data_sets for kind in kinds}
    expected |= {f"{name}_{kind}_chat" for name in chats for kind in kinds}
    uncertain = ["gsm8k", "math500", "mbpp", "tiny_gsm8k", "tiny_math", "tiny_mbpp"]
    expected |= {f"{name}_eu" for name in uncertain}
    words = ["mawps", "mawps_singleop", "svamp", "svamp_untwinned"]
    expected |= {f"{n}_{k}{c}" for n in words for k in (*kinds, "eu") for c in ("", "_chat")}
    expected |= {"mawps_train_passn", "mawps_singleop_train_passn", "aime24_passn", "aime24_calib"}
    expected |= {f"tiny_{name}_train_passn" for name in ("gsm8k", "math", "mbpp")}
    expected |= {"tiny_gsm8k_train_eu", "mbpp_instruct_train_passn"}
    expected |= {f"{name}_train_{k}" for name in ("gsm8k", "math", "mbpp") for k in ("passn", "eu")}
    expected |= {f"{name}_train_passn_chat" for name in ("gsm8k", "math")}
    assert expected == set(SHAPES)
    assert {"math_passn", "math_calib", "math_passn_chat", "math_calib_chat"} == GROUPS


@pytest.mark.parametrize("name", ALL_FILES)
def test_the_file_is_indexed_under_its_name_and_documented(manager, name):
    assert name in (manager.all_groups if name in GROUPS else manager.all_subtasks)
    folder, *below = ALL_FILES[name].relative_to(FOLDER).parts[:-1]
    stated = f"math_<subject>_{below[0]}" if below and name not in GROUPS else name
    for page in (FOLDER / folder / "README.md", FOLDER.parent / "docs" / "tasks.md"):
        assert f"`{stated}`" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FILES)
def test_the_task_loads_with_version_attempts_and_decoding(load, name):
    task = load(name)
    sampled = "passn" in name
    assert isinstance(task, AttemptsTask)
    assert task.task_name == name
    assert isinstance(task.VERSION, float)
    assert task.config.repeats == (2 if sampled else 1)
    assert task.config.generation_kwargs["do_sample"] is sampled
    assert task.config.generation_kwargs["temperature"] == (0.7 if sampled else 0.0)
    assert task.config.generation_kwargs["max_gen_toks"] >= 100
    assert len(task.eval_docs) >= 1


@pytest.mark.parametrize("name", SHAPES)
def test_the_published_solution_is_correct_and_other_text_is_not(load, judge, name):
    task = load(name)
    for doc in list(task.eval_docs)[:10]:
        solution = doc[SOLUTION[task.grader]]
        completions = [solution, "I do not know."][: task.config.repeats]
        verdicts = [attempt["correct"] for attempt in judge(task, doc, completions)]
        assert verdicts == [True, False][: task.config.repeats]


@pytest.mark.parametrize("name", SHAPES)
def test_no_stop_string_cuts_a_valid_answer(load, name):
    task = load(name)
    completions = [doc[SOLUTION[task.grader]] for doc in list(task.eval_docs)[:100]]
    completions += ["The answer is 4.", "\\boxed{4}", "Answer: 4", "**Final Answer:**\n\n4"]
    completions += ["```python\ndef f(x):\n    return x\n```", "<think>\nOk.\n</think>\n\n4"]
    for stop in task.config.generation_kwargs["until"]:
        assert not [completion for completion in completions if stop in completion]


@pytest.mark.parametrize("name", SHAPES)
def test_the_stop_strings_end_a_model_that_goes_on_with_the_next_question(load, prompt_of, name):
    task = load(name)
    if name.endswith("_chat") or "instruct" in name or "aime" in name:
        pytest.skip("a chat model ends its turn")
    if task.grader == "mbpp":
        following = task.doc_to_target(task.eval_docs[0])
    else:
        following = task.config.fewshot_delimiter + task.doc_to_text(task.eval_docs[0])
    assert [stop for stop in task.config.generation_kwargs["until"] if stop in following]


@pytest.mark.parametrize("name", FILES)
def test_code_is_run_only_with_consent(load, name):
    assert getattr(load(name), "UNSAFE_CODE", False) is ("mbpp" in name)


def test_lm_eval_finds_no_fault_in_the_included_files():
    # Files without the suffix .yaml are bases: they must not be tasks themselves.
    for path in FOLDER.rglob("_*_yaml"):
        text = path.read_text(encoding="utf-8").replace("!function ", "")
        assert not {"task", "group", "tag"} & set(yaml.safe_load(text))

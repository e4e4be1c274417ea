"""Tags, groups, names, and what the command line may change about a task."""

import re
from pathlib import Path

import lm_eval
import lm_eval.tasks
import pytest
from lm_eval.utils import make_table

from lm_eval_ext.scoring.group_metrics import CALIB, PASSN
from lm_eval_ext.task import AttemptsTask

TAGS = {
    "reasoning_passn": {"gsm8k_passn", "math500_passn", "mbpp_passn"},
    "reasoning_calib": {"gsm8k_calib", "math500_calib", "mbpp_calib"},
    "reasoning_passn_chat": {"gsm8k_passn_chat", "math500_passn_chat", "mbpp_instruct_passn"},
    "reasoning_calib_chat": {"gsm8k_calib_chat", "math500_calib_chat", "mbpp_instruct_calib"},
    "reasoning_eu": {"gsm8k_eu", "math500_eu", "mbpp_eu"},
    "tiny_eu": {"tiny_gsm8k_eu", "tiny_math_eu", "tiny_mbpp_eu"},
    "tiny": {f"tiny_{f}_{k}" for f in ("gsm8k", "math", "mbpp") for k in ("passn", "calib")},
}
GROUPS = ["math_passn", "math_calib", "math_passn_chat", "math_calib_chat"]


@pytest.fixture
def evaluate(scripted_lm, task_manager, small_data, monkeypatch, quick_evaluator):
    """Return a function that runs a task with a scripted model, and returns results and model."""
    monkeypatch.setenv("LM_EVAL_EXT_DATA", str(small_data))

    def run(task, script=lambda question, attempt: "", metadata=None, **options):
        model = scripted_lm(script)
        results = lm_eval.simple_evaluate(
            model=model,
            tasks=[task],
            task_manager=task_manager(**(metadata or {})),
            bootstrap_iters=0,
            **options,
        )
        return results, model

    return run


@pytest.mark.parametrize("tag", TAGS)
def test_a_tag_stands_for_its_tasks(manager, tag):
    assert manager.task_index[tag].tags == TAGS[tag]


@pytest.mark.parametrize("tag", TAGS)
def test_a_tag_loads(manager, small_data, monkeypatch, tag):
    monkeypatch.setenv("LM_EVAL_EXT_DATA", str(small_data))
    loaded = manager.load(tag)
    assert set(loaded["tasks"]) == TAGS[tag]
    assert not loaded["groups"]


def test_no_name_is_one_of_lm_eval(manager):
    folder = Path(next(iter(lm_eval.tasks.__path__)))
    stated = re.compile(r"^(?:task|group|tag):[ \t]*[\"']?([\w.-]+)", re.MULTILINE)
    taken = set()
    for path in folder.rglob("*.yaml"):
        taken |= set(stated.findall(path.read_text(encoding="utf-8", errors="ignore")))
    assert {"gsm8k", "mbpp", "mbpp_instruct", "hendrycks_math500", "minerva_math"} <= taken
    assert not taken & set(manager.all_tasks)


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_has_the_seven_subjects(manager, small_data, monkeypatch, group):
    monkeypatch.setenv("LM_EVAL_EXT_DATA", str(small_data))
    loaded = manager.load(group)
    sizes = [len(task.eval_docs) for task in loaded["tasks"].values()]
    assert sorted(sizes) == [1, 2, 3, 4, 5, 6, 7]
    assert all(isinstance(task, AttemptsTask) for task in loaded["tasks"].values())
    subjects = {task.eval_docs[0]["type"] for task in loaded["tasks"].values()}
    assert len(subjects) == 7


@pytest.mark.parametrize("n_attempts", [3, 16])
def test_a_group_averages_over_questions(evaluate, n_attempts, caplog):
    """Only the one question of the first subject is solved, by one attempt in three."""
    results, _ = evaluate(
        "math_passn",
        lambda question, attempt: "\\boxed{4}" if question == 0 and attempt == 0 else "\\boxed{5}",
        metadata={"attempts": n_attempts},
    )
    row = results["groups"]["math_passn"]
    assert row["pass@1,none"] == pytest.approx(1 / n_attempts / 28)
    assert row[f"pass@{n_attempts},none"] == pytest.approx(1 / 28)
    assert row[f"maj@{n_attempts},none"] == 0
    assert row["invalid_rate,none"] == 0
    assert "brier:vote_share,none" in row
    subjects = [values for name, values in results["results"].items() if name != "math_passn"]
    reported = {name for values in subjects for name in values if "," in name}
    assert {name for name in row if "," in name} == reported
    assert "math_passn" in make_table(results, "groups")
    assert not [r for r in caplog.records if "no values found" in r.message]


def test_a_group_of_single_answers_averages_over_questions(evaluate):
    results, _ = evaluate(
        "math_calib",
        lambda question, attempt: "\\boxed{4}" if question < 3 else "\\boxed{5}",
        metadata={"attempts": 8},
    )
    assert results["groups"]["math_calib"]["accuracy,none"] == pytest.approx(3 / 28)
    assert results["n-samples"]["math_precalculus_calib"]["effective"] == 7


def test_the_lists_of_group_metrics_name_every_metric_once():
    for metrics in (PASSN, CALIB):
        names = [metric["metric"] for metric in metrics]
        assert len(names) == len(set(names))
    passn = {metric["metric"] for metric in PASSN}
    calib = {metric["metric"] for metric in CALIB}
    assert {"pass@1", "pass^16", "maj@64", "cisc@16:mean_logprob", "ece:vote_share"} <= passn
    assert {"accuracy", "nll:self_eval", "accuracy_at_50:draft_eu", "mean_tokens"} <= calib


@pytest.mark.parametrize("task", ["mbpp_instruct_calib", "tiny_mbpp_passn", "tiny"])
def test_code_is_not_run_without_consent(evaluate, task):
    with pytest.raises(ValueError, match="confirm_run_unsafe_code"):
        evaluate(task, limit=1)


def test_attempts_on_the_command_line_concern_the_sampling_tasks(evaluate):
    script = lambda question, attempt: "#### 4"  # noqa: E731
    metadata = {"attempts": 5, "ks": [1, 5]}
    results, model = evaluate("gsm8k_passn", script, metadata)
    assert len(model.requests) == 5
    assert {"pass@1,none", "pass@5,none"} <= set(results["results"]["gsm8k_passn"])
    assert "pass@2,none" not in results["results"]["gsm8k_passn"]
    results, model = evaluate("gsm8k_calib", script, metadata)
    assert len(model.requests) == 1
    assert results["results"]["gsm8k_calib"]["accuracy,none"] == 1


def test_sixteen_attempts_are_the_default(evaluate):
    _, model = evaluate("math500_passn_chat")
    assert len(model.requests) == 16
    assert model.requests[0].args[1]["temperature"] == 0.7


@pytest.mark.parametrize("name", ["gsm8k_passn", "gsm8k_passn_chat", "math500_passn"])
def test_sampling_and_shots_come_from_the_command_line(evaluate, name):
    _, model = evaluate(
        name,
        metadata={"attempts": 2},
        num_fewshot=2,
        gen_kwargs="temperature=0.9,top_p=0.5,max_gen_toks=64",
    )
    prompt, settings = model.requests[0].args
    assert (settings["temperature"], settings["top_p"], settings["max_gen_toks"]) == (0.9, 0.5, 64)
    assert settings["do_sample"] is True
    assert settings["until"]
    assert prompt.count("answer is") == 2


def test_the_data_folder_comes_from_the_command_line(evaluate, small_data, tmp_path, monkeypatch):
    monkeypatch.setenv("LM_EVAL_EXT_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"LM_EVAL_EXT_DATA=.* has no file math500.jsonl"):
        evaluate("math500_calib")
    results, _ = evaluate("math500_calib", metadata={"data_folder": str(small_data)})
    assert results["n-samples"]["math500_calib"]["effective"] == 1


def test_the_task_shown_in_the_documentation_works(scripted_lm, tmp_path, monkeypatch):
    page = Path(__file__).resolve().parents[2] / "docs" / "tasks.md"
    (example,) = re.findall(
        r"```yaml\n(task: competition_passn\n.*?)```", page.read_text("utf-8"), re.DOTALL
    )
    (tmp_path / "competition_passn.yaml").write_text(example)
    (tmp_path / "competition.jsonl").write_text('{"problem": "2 + 2?", "answer": "4"}\n' * 2)
    monkeypatch.chdir(tmp_path)
    from lm_eval.tasks import TaskManager

    results = lm_eval.simple_evaluate(
        model=scripted_lm(lambda question, attempt: f"\\boxed{{{4 + attempt % 2}}}"),
        tasks=["competition_passn"],
        task_manager=TaskManager(
            include_path=str(tmp_path), include_defaults=False, metadata={"attempts": 4}
        ),
        bootstrap_iters=0,
    )
    assert results["results"]["competition_passn"]["pass@1,none"] == 0.5

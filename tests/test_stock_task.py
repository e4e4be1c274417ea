"""AttemptsTask around tasks of lm-eval's own: their filters and their metric judge each attempt."""

from pathlib import Path

import datasets
import lm_eval
import lm_eval.tasks
import pytest
from lm_eval.tasks import TaskManager

from lm_eval_ext.task import AttemptsTask

pytestmark = pytest.mark.usefixtures("quick_evaluator")

GSM8K_OF_LM_EVAL = Path(lm_eval.tasks.__path__[0], "gsm8k")
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
COMPLETIONS = [
    "So the answer is clear. The answer is 18. ",
    "The answer is $18.00. ",
    "The answer is 7, no, 18",
    "18",
    "no number at all",
    "The answer is 1,234. ",
]
N_DOCS = len(COMPLETIONS)


@pytest.fixture(autouse=True)
def local_gsm8k(monkeypatch):
    """Let lm-eval's tasks load questions made here."""
    rows = [
        {"question": f"q{i}?", "answer": "so\n#### 18" if i < N_DOCS - 1 else "so\n#### 1,234"}
        for i in range(N_DOCS)
    ]
    local = {split: datasets.Dataset.from_list(rows) for split in ("train", "test")}
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: local)


@pytest.fixture(scope="module")
def managers():
    """Return task managers by metadata; scanning is done once per number of attempts."""
    made = {}

    def manager(**metadata):
        key = tuple(metadata.items())
        if key not in made:
            folders = [str(GSM8K_OF_LM_EVAL), str(EXAMPLES)]
            made[key] = TaskManager(include_path=folders, include_defaults=False, metadata=metadata)
        return made[key]

    return manager


def evaluate(lm, task, manager, **options):
    results = lm_eval.simple_evaluate(
        model=lm, tasks=[task], task_manager=manager, bootstrap_iters=0, **options
    )
    return results


def group(**changes):
    return {"group": "wrapped", "task": [{"task": "gsm8k_cot", "class": AttemptsTask, **changes}]}


def test_the_example_file_runs_and_keeps_prompt_and_stop_strings(scripted_lm, managers):
    lm = scripted_lm(lambda question, attempt: COMPLETIONS[(question + attempt) % N_DOCS], True)
    results = evaluate(lm, "gsm8k_cot_passn", managers(attempts=3))
    rows = results["results"]["gsm8k_cot"]
    for pipeline in ("strict-match", "flexible-extract"):
        assert {f"pass@1,{pipeline}", f"pass@3,{pipeline}", f"maj@3,{pipeline}"} <= set(rows)
        assert rows[f"mean_tokens,{pipeline}"] == 2.0
    assert lm.requests[0].args[0].endswith("\n\nQ: q0?\nA:")
    assert lm.requests[0].args[0].count("Q:") == 9
    assert lm.requests[0].args[1] == {
        "until": ["Q:", "</s>", "<|im_end|>"],
        "do_sample": True,
        "temperature": 0.7,
    }


def test_one_attempt_is_judged_as_lm_eval_judges_it(scripted_lm, managers):
    lm = scripted_lm(lambda question, attempt: COMPLETIONS[question])
    stock = evaluate(lm, "gsm8k_cot", managers())
    ours = evaluate(lm, "gsm8k_cot_passn", managers(attempts=1))
    assert ours["configs"]["gsm8k_cot"]["generation_kwargs"]["do_sample"] is False
    verdicts = set()
    for pipeline in ("strict-match", "flexible-extract"):
        for ours_sample, stock_sample in zip(
            [s for s in ours["samples"]["gsm8k_cot"] if s["filter"] == pipeline],
            [s for s in stock["samples"]["gsm8k_cot"] if s["filter"] == pipeline],
            strict=True,
        ):
            assert ours_sample["pass@1"] == stock_sample["exact_match"]
            answer = ours_sample["attempts"][0]["answer"]
            assert (answer or "[invalid]") == stock_sample["filtered_resps"][0]
            verdicts.add((pipeline, ours_sample["pass@1"]))
    assert len(verdicts) == 4  # both verdicts under both filters, so that the test says something


def test_attempts_are_judged_one_by_one(scripted_lm, managers):
    lm = scripted_lm(lambda question, attempt: COMPLETIONS[attempt], True)
    results = evaluate(lm, group(), managers(attempts=N_DOCS), limit=1)
    sample = next(s for s in results["samples"]["gsm8k_cot"] if s["filter"] == "strict-match")
    answers = [attempt["answer"] for attempt in sample["attempts"]]
    assert answers == ["18.", None, "7,", None, None, "1,234."]
    assert [a["correct"] for a in sample["attempts"]] == [True] + [False] * 5
    assert [a["n_tokens"] for a in sample["attempts"]] == [1, 2, 3, 4, 5, 6]
    assert sample["pass@1"] == pytest.approx(1 / 6)
    assert sample["invalid_rate"] == pytest.approx(3 / 6)


def test_filters_that_select_among_responses_are_left_out(scripted_lm, managers):
    task = group(task="gsm8k_cot_self_consistency")
    lm = scripted_lm(lambda question, attempt: COMPLETIONS[0])
    results = evaluate(lm, task, managers(attempts=2), limit=1)
    rows = results["results"]["gsm8k_cot_self_consistency"]
    assert {key.partition(",")[2] for key in rows if "@" in key} == {"score-first"}
    assert lm.requests[0].args[1]["temperature"] == 0.2
    selecting = [{"name": "maj", "filter": [{"function": "majority_vote"}]}]
    with pytest.raises(ValueError, match="every filter selects among responses"):
        managers(attempts=2).load(group(filter_list=selecting))


def test_a_process_results_function_and_the_verdict_key(scripted_lm, managers):
    def strict_and_lenient(doc, results):
        (response,) = results
        assert type(response) is str
        return {"lenient": 1, "strict": int("#### " in response)}

    metrics = [
        {"metric": name, "aggregation": "mean", "higher_is_better": True}
        for name in ("lenient", "strict")
    ]
    own = {"process_results": strict_and_lenient, "metric_list": metrics, "filter_list": None}
    lm = scripted_lm(lambda question, attempt: "#### 18" if attempt else "18", True)
    for verdict, expected in ((None, 1.0), ("lenient", 1.0), ("strict", 0.5)):
        named = {} if verdict is None else {"verdict": verdict}
        results = evaluate(lm, group(**own, **named), managers(attempts=2), limit=2)
        assert results["results"]["gsm8k_cot"]["pass@1,none"] == expected
        assert results["results"]["gsm8k_cot"]["mean_tokens,none"] == 1.5
    with pytest.raises(ValueError, match="not by f1; name one with the key verdict"):
        managers(attempts=2).load(group(**own, verdict="f1"))


def test_a_metric_that_is_no_verdict_is_refused(managers):
    bleu = [{"metric": "bleu", "aggregation": "bleu", "higher_is_better": True}]
    with pytest.raises(ValueError, match="judged by a 0/1 metric aggregated by mean, not by bleu"):
        managers(attempts=2).load(group(metric_list=bleu))


def test_a_graded_score_counts_only_when_full(scripted_lm, managers, caplog):
    partial = {
        "process_results": lambda doc, results: {"acc": float(results[0])},
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "filter_list": None,
    }
    lm = scripted_lm(lambda question, attempt: ["1", "0.5"][attempt])
    results = evaluate(lm, group(**partial), managers(attempts=2), limit=2)
    assert results["results"]["gsm8k_cot"]["pass@1,none"] == 0.5
    assert (
        sum("counts as correct only where it is 1" in r.getMessage() for r in caplog.records) == 1
    )

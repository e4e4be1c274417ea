"""AttemptsTask on tasks that name a grader, from lm-eval's request list to its result table."""

import json
import logging
import warnings
from math import comb
from pathlib import Path

import datasets
import lm_eval
import numpy as np
import pytest
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks import TaskManager
from lm_eval.utils import make_table

from lm_eval_ext.errors import UserError
from lm_eval_ext.harness.attempt_settings import read_settings
from lm_eval_ext.metrics import UndefinedMetricWarning
from lm_eval_ext.scoring.metric_suites import suite
from lm_eval_ext.scoring.scores import score
from lm_eval_ext.task import AttemptsTask

pytestmark = pytest.mark.usefixtures("quick_evaluator")

N_DOCS = 6
TASKS = Path(__file__).resolve().parents[1] / "tasks"


def sums(**metadata):
    """Return questions whose answer is their number."""
    rows = [{"question": f"{i} + 0?", "answer": f"#### {i}"} for i in range(N_DOCS)]
    return {"test": datasets.Dataset.from_list(rows)}


def config(**changes):
    return {
        "task": "sums",
        "class": AttemptsTask,
        "custom_dataset": sums,
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "grader": "gsm8k",
        "generation_kwargs": {"until": ["\n"], "do_sample": True, "temperature": 0.7},
        "metadata": {"version": 1.0},
        **changes,
    }


def evaluate(lm, task=None, metadata=None, **options):
    manager = TaskManager(include_defaults=False, metadata=metadata)
    return lm_eval.simple_evaluate(
        model=lm, tasks=[task or config()], task_manager=manager, bootstrap_iters=10, **options
    )


def first_correct(n_correct):
    """Script: the first ``n_correct[question]`` attempts are right, the last one is invalid.

    Attempt 0 is cut by the token limit: its number is one only as its line ends.
    """
    return lambda question, attempt: (
        "?" if attempt >= 7 else f"#### {question if attempt < n_correct[question] else 99}\n"
    )


@pytest.mark.parametrize("with_records", [False, True])
def test_metrics_equal_their_closed_forms(scripted_lm, with_records):
    n, n_correct = 8, [0, 1, 2, 4, 6, 7]
    lm = scripted_lm(first_correct(n_correct), with_records)
    results = evaluate(lm, metadata={"attempts": n, "ks": [1, 3, 8]})["results"]["sums"]
    for k in (1, 3, 8):
        expected = [1 - comb(n - c, k) / comb(n, k) for c in n_correct]
        assert results[f"pass@{k},none"] == pytest.approx(np.mean(expected))
        # one value per question: the standard error clusters attempts by question
        stderr = np.std(expected, ddof=1) / np.sqrt(N_DOCS)
        assert results[f"pass@{k}_stderr,none"] == pytest.approx(stderr)
    # 7 valid votes each: correct wins with 4 of 7 or more
    assert results["maj@8,none"] == pytest.approx(3 / 6)
    assert results["invalid_rate,none"] == pytest.approx(1 / 8)
    if with_records:
        assert results["truncated_rate,none"] == pytest.approx(1 / 8)
        assert results["mean_tokens,none"] == pytest.approx(4.5)
    else:
        assert not {"truncated_rate,none", "mean_tokens,none"} & set(results)


def test_the_table_has_the_metrics_and_nothing_else(scripted_lm):
    results = evaluate(scripted_lm(first_correct([1] * N_DOCS), True), metadata={"attempts": 2})
    names = {key.partition(",")[0] for key in results["results"]["sums"]}
    assert {name for name in names if not name.endswith("_stderr")} == {
        "name",
        "alias",
        "sample_len",
        *("pass@1", "pass@2", "pass^2", "maj@2", "invalid_rate", "truncated_rate", "mean_tokens"),
        *("ece:vote_share", "debiased_ece:vote_share", "brier:vote_share", "nll:vote_share"),
        *("hallucination_auroc:vote_share", "auprc:vote_share", "aurc:vote_share"),
        "prr:vote_share",
        *(f"{name}:answer_entropy" for name in ("hallucination_auroc", "auprc", "aurc", "prr")),
    }
    assert "attempts" not in make_table.__wrapped__(results)
    directions = results["higher_is_better"]["sums"]
    assert (directions["pass@2"], directions["invalid_rate"], directions["mean_tokens"]) == (
        True,
        False,
        None,
    )


def test_n_and_sampling_reach_the_requests(scripted_lm):
    lm = scripted_lm(first_correct([1] * N_DOCS))
    evaluate(lm, metadata={"attempts": 3}, limit=2, gen_kwargs="temperature=0.9,max_gen_toks=5")
    assert len(lm.requests) == 6
    assert [request.doc_id for request in lm.requests] == [0, 0, 0, 1, 1, 1]
    for request in lm.requests:
        assert request.args[1] == {
            "until": ["\n"],
            "do_sample": True,
            "temperature": 0.9,
            "max_gen_toks": 5,
        }


def test_settings_are_in_the_results_and_json(scripted_lm):
    results = evaluate(scripted_lm(first_correct([1] * N_DOCS)), metadata={"attempts": 2})
    dumped = results["configs"]["sums"]
    assert dumped["repeats"] == 2
    assert dumped["custom_dataset"].endswith("test_task.sums")
    assert dumped["metadata"] == {
        "version": 1.0,
        "attempts": 2,
        "ks": [1, 2],
        "vote_ks": [2],
        "tau": 1.0,
        "n_bins": 10,
        "metrics": "passn",
        "grader": "gsm8k",
        "config_source": "inline",
    }
    assert results["versions"]["sums"] == 1.0
    json.dumps(results["configs"])


def test_the_sample_file_holds_the_attempts_and_gives_the_same_metrics(scripted_lm, tmp_path):
    lm = scripted_lm(first_correct([0, 1, 2, 4, 6, 7]), True)
    tracker = EvaluationTracker(output_path=str(tmp_path))
    results = evaluate(lm, metadata={"attempts": 8}, evaluation_tracker=tracker)
    tracker.save_results_aggregated(results=results, samples=results["samples"])
    tracker.save_results_samples("sums", results["samples"]["sums"])
    (path,) = tmp_path.rglob("samples_sums_*.jsonl")
    samples = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(samples) == N_DOCS
    ended = {"finish_reason": "eos"}
    assert samples[2]["attempts"][1:3] == [
        {"attempt": 1, "answer": "2", "correct": True, **ended, "n_tokens": 2, "token_ids": [0, 1]},
        {
            **{"attempt": 2, "answer": "99", "correct": False, **ended},
            **{"n_tokens": 3, "token_ids": [0, 1, 2]},
        },
    ]
    values = suite("passn", read_settings({"attempts": 8})).values
    for sample in samples:
        single = {k: v for k, v in values(sample["attempts"]).items() if not isinstance(v, list)}
        assert single.items() <= sample.items()
    pass_at_2 = np.mean([sample["pass@2"] for sample in samples])
    assert results["results"]["sums"]["pass@2,none"] == pytest.approx(pass_at_2)
    # What is pooled is in the details already.
    assert "ece:vote_share" not in samples[0]


def test_a_task_of_one_answer_ignores_the_attempts_of_the_command_line(scripted_lm):
    lm = scripted_lm(lambda question, attempt: f"#### {question % 2}\n", True)
    results = evaluate(lm, config(metrics="calib"), metadata={"attempts": 8})
    assert len(lm.requests) == N_DOCS
    assert results["results"]["sums"]["accuracy,none"] == pytest.approx(2 / 6)
    assert results["configs"]["sums"]["repeats"] == 1
    assert results["higher_is_better"]["sums"]["accuracy"] is True


def test_predict_only_grades_nothing_and_logs_the_records(scripted_lm):
    lm = scripted_lm(lambda question, attempt: "text", True)
    results = evaluate(lm, metadata={"attempts": 2}, predict_only=True)
    assert results["results"]["sums"]["bypass,none"] == 999
    assert results["samples"]["sums"][0]["resps"] == [["text", "text"]]
    assert results["samples"]["sums"][0]["attempts"] == [
        {"attempt": 0, "finish_reason": "length", "n_tokens": 1, "token_ids": [0]},
        {"attempt": 1, "finish_reason": "eos", "n_tokens": 2, "token_ids": [0, 1]},
    ]


def test_chosen_questions_and_write_out(scripted_lm):
    lm = scripted_lm(lambda question, attempt: f"#### {[2, 5][question]}")
    results = evaluate(lm, samples={"sums": [2, 5]}, write_out=True, metadata={"attempts": 2})
    assert results["results"]["sums"]["pass@1,none"] == 1.0
    assert [sample["doc_id"] for sample in results["samples"]["sums"]] == [2, 5]


def test_chat_template_and_few_shot(scripted_lm):
    task = config(num_fewshot=1, fewshot_config={"samples": [{"question": "q?", "answer": "a"}]})
    lm = scripted_lm(first_correct([1] * N_DOCS))
    evaluate(lm, task, limit=1, apply_chat_template=True, fewshot_as_multiturn=True)
    assert lm.requests[0].args[0] == "<|user|>q?<|assistant|>a<|user|>0 + 0?<|assistant|>"
    evaluate(lm, config(), limit=1, apply_chat_template=True, system_instruction="Be brief.")
    assert lm.requests[0].args[0] == "<|system|>Be brief.<|user|>0 + 0?<|assistant|>"


def test_padding_of_several_ranks_is_cut_off(scripted_lm):
    task = AttemptsTask(config(metadata={"attempts": 2}))
    task.build_all_requests(limit=1)
    task.instances[0].resps = ["#### 0", "#### 1", "#### 0", "#### 0"]
    task.apply_filters()
    assert task.instances[0].filtered_resps == {"none": ["#### 0", "#### 1"]}
    assert task.instances[0].resps == ["#### 0", "#### 1"]
    assert task.process_results(task.eval_docs[0], [["#### 0", "#### 1"]])["pass@1"] == 0.5


def test_fewer_responses_than_attempts_give_nan_and_one_warning(caplog):
    task = AttemptsTask(config(metadata={"attempts": 4}))
    for doc in list(task.eval_docs)[:2]:
        result = task.process_results(doc, [[doc["answer"], doc["answer"]]])
        assert (result["pass@1"], result["pass@2"]) == (1.0, 1.0)
        assert np.isnan(result["pass@4"])
        assert np.isnan(result["maj@4"])
    warnings = [r.getMessage() for r in caplog.records if "2 attempts instead of 4" in r.message]
    assert len(warnings) == 1


@pytest.mark.parametrize("gen_kwargs", ["temperature=0", "do_sample=False"])
def test_greedy_decoding_of_several_attempts_is_warned_of_once(scripted_lm, caplog, gen_kwargs):
    lm = scripted_lm(first_correct([1] * N_DOCS))
    with caplog.at_level(logging.WARNING, logger="lm_eval_ext.task"):
        evaluate(lm, metadata={"attempts": 2}, gen_kwargs=gen_kwargs)
        evaluate(lm, metadata={"attempts": 1}, gen_kwargs=gen_kwargs)
        evaluate(lm, metadata={"attempts": 2})
    ours = [record for record in caplog.records if record.name == "lm_eval_ext.task"]
    greedy = [record for record in ours if "greedy decoding" in record.getMessage()]
    assert len(greedy) == 1
    assert "gives 2 equal attempts" in greedy[0].getMessage()


def test_cached_requests_get_this_runs_attempts_and_sampling(scripted_lm, tmp_path, monkeypatch):
    monkeypatch.setattr("lm_eval.caching.cache.PATH", str(tmp_path))
    lm = scripted_lm(first_correct([1] * N_DOCS))
    evaluate(lm, metadata={"attempts": 2}, cache_requests=True)
    assert list(tmp_path.iterdir())
    evaluate(lm, metadata={"attempts": 3}, cache_requests=True, gen_kwargs="temperature=0.9")
    assert len(lm.requests) == 3 * N_DOCS
    assert all(request.args[1]["temperature"] == 0.9 for request in lm.requests)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grader": "chess"}, "family='chess' is unknown"),
        ({"metrics": "all"}, "metrics='all' is unknown"),
        ({"output_type": "loglikelihood"}, "needs a task with output_type: generate_until"),
        ({"metadata": {"attempts": 2, "ks": [4]}}, "asks for k=4 of 2 attempts"),
        ({"repeats": 0}, "attempts must be a whole number of at least 1, got 0"),
    ],
)
def test_a_task_that_cannot_work_is_refused_before_any_data_is_loaded(changes, message):
    def no_data(**metadata):
        raise AssertionError

    with pytest.raises(ValueError, match=message) as error:
        AttemptsTask(config(custom_dataset=no_data, **changes))
    assert "\n" not in str(error.value)


def test_a_plain_task_file_names_the_class(tmp_path, scripted_lm):
    (tmp_path / "data.py").write_text(
        "import datasets\n"
        "def load(**metadata):\n"
        "    return {'test': datasets.Dataset.from_list([{'q': 'one?', 'answer': '#### 1'}])}\n"
    )
    (tmp_path / "mine.yaml").write_text(
        f"include: {TASKS / '_passn_yaml'}\n"
        "task: mine\n"
        "custom_dataset: !function data.load\n"
        "test_split: test\n"
        "doc_to_text: '{{q}}'\n"
        "doc_to_target: '{{answer}}'\n"
        "grader: gsm8k\n"
        "generation_kwargs: {until: ['.']}\n"
    )
    lm = scripted_lm(lambda question, attempt: "#### 1")
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    results = lm_eval.simple_evaluate(model=lm, tasks=["mine"], task_manager=manager)
    assert results["results"]["mine"]["maj@16,none"] == 1.0
    assert lm.requests[0].args[1] == {"until": ["."], "do_sample": True, "temperature": 0.7}


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"do_sample": False}, "do_sample=False"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"do_sample": False, "temperature": 0.0}, "do_sample=False, temperature=0.0"),
        ({"do_sample": True, "temperature": 0}, "do_sample=True, temperature=0"),
        ({"do_sample": False, "temperature": 0.5}, "do_sample=False, temperature=0.5"),
        ({}, None),
        ({"until": ["\n"]}, None),
        ({"temperature": 0.3}, None),
        ({"do_sample": True, "temperature": 0.3}, None),
    ],
)
def test_sampling_in_place_of_greedy_decoding_is_told_in_one_line(
    scripted_lm, caplog, written, said
):
    lm = scripted_lm(lambda question, attempt: f"#### {question + attempt}")
    task = config(generation_kwargs={"until": ["\n"], **written}, repeats=3)
    with caplog.at_level(logging.WARNING):
        evaluate(lm, task)
    told = [r.getMessage() for r in caplog.records if "generation_kwargs say" in r.getMessage()]
    assert len(told) == (said is not None)
    for line in told:
        assert f"generation_kwargs say {said}, which" in line
        assert "temperature 0.7 instead" in line
        assert "--gen_kwargs do_sample=False" in line
    assert all(request.args[1]["do_sample"] for request in lm.requests)


def test_staying_greedy_is_taken_at_its_word(scripted_lm, caplog):
    lm = scripted_lm(lambda question, attempt: "#### 1")
    task = config(generation_kwargs={"do_sample": False}, repeats=3)
    evaluate(lm, task, gen_kwargs="do_sample=False")
    assert not any(request.args[1]["do_sample"] for request in lm.requests)
    assert "generation_kwargs say" not in caplog.text
    one = scripted_lm(lambda question, attempt: "#### 1")
    evaluate(one, task, metadata={"attempts": 1})
    assert [request.args[1]["do_sample"] for request in one.requests] == [False] * N_DOCS
    assert "generation_kwargs say" not in caplog.text


@pytest.mark.parametrize(
    ("generation_kwargs", "samples"),
    [
        ({"temperature": 0.7}, True),
        ({"temperature": 0.7, "do_sample": None}, True),
        ({"temperature": 0.0}, False),
        ({}, False),
        ({"do_sample": True, "temperature": 0.7}, True),
        ({"do_sample": False, "temperature": 0.7}, False),
    ],
)
def test_requests_say_whether_they_sample(scripted_lm, generation_kwargs, samples):
    """lm-eval's response cache goes by ``do_sample`` alone."""
    lm = scripted_lm(lambda question, attempt: "#### 1")
    evaluate(lm, config(generation_kwargs=generation_kwargs), metadata={"attempts": 1})
    assert {request.args[1]["do_sample"] for request in lm.requests} == {samples}


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (lambda question, attempt: f"#### {question}", "6 of 6 questions are equal"),
        (lambda question, attempt: "", "6 of 6 questions are equal"),
        (lambda question, attempt: f"#### {attempt * (question > 3)}", "4 of 6 questions"),
        (lambda question, attempt: f"#### {attempt * (question > 2)}", None),
        (lambda question, attempt: f"#### {attempt}", None),
        (lambda question, attempt: "#### 1" + " " * (attempt == 3), None),
    ],
)
def test_equal_samples_are_told_in_one_line(scripted_lm, caplog, script, told):
    evaluate(scripted_lm(script), metadata={"attempts": 4})
    lines = [r.getMessage() for r in caplog.records if "are equal" in r.getMessage()]
    assert len(lines) == (told is not None)
    assert all(told in line for line in lines)


def test_a_misspelt_name_is_an_error_unless_the_model_or_the_data_take_it(scripted_lm):
    lm = scripted_lm(lambda question, attempt: "#### 1")
    for metrics in ("passn", "calib"):
        with pytest.raises(UserError, match="metadata has atempts=4, .*: write attempts"):
            evaluate(lm, config(metrics=metrics), metadata={"atempts": 4})
    with pytest.raises(UserError, match="metadata has atempts=4"):
        AttemptsTask(config(metadata={"atempts": 4}))

    def with_bins(bins=1, **metadata):
        return sums()

    evaluate(lm, config(custom_dataset=with_bins), metadata={"bins": 4})

    class WithAtempts(type(lm)):
        def __init__(self, script, atempts=4):
            super().__init__(script)

    evaluate(WithAtempts(lm.script), metadata={"atempts": 4})


def test_a_question_without_a_valid_answer_has_no_vote_share(scripted_lm, caplog):
    """All right where there is an answer at all: the share alone decides the error."""
    lm = scripted_lm(lambda question, attempt: "?" if question < 2 else f"#### {question}")
    rows = evaluate(lm, metadata={"attempts": 4})["results"]["sums"]
    (line,) = [m for m in caplog.messages if "n = 4 of 6 questions" in m]
    assert line.startswith("sums: vote_share (ece, debiased_ece, brier, nll, ")
    assert rows["ece:vote_share,none"] == 0
    assert rows["brier:vote_share,none"] == 0
    assert rows["invalid_rate,none"] == pytest.approx(1 / 3)
    assert rows["pass@1,none"] == pytest.approx(2 / 3)


def test_without_any_valid_answer_the_share_is_nan_with_a_reason(scripted_lm, caplog):
    lm = scripted_lm(lambda question, attempt: "?" * (attempt + 1), with_records=True)
    with caplog.at_level(logging.WARNING), warnings.catch_warnings():
        warnings.simplefilter("error", UndefinedMetricWarning)  # there is one line instead
        results = evaluate(lm, metadata={"attempts": 4})
    (line,) = [r.getMessage() for r in caplog.records if "undefined" in r.getMessage()]
    assert line.startswith("sums: vote_share (ece, debiased_ece, ")
    assert "): undefined (NaN): none of 6 questions" in line
    rows = results["results"]["sums"]
    for name in ("ece", "debiased_ece", "brier", "nll", "aurc", "hallucination_auroc"):
        assert np.isnan(rows[f"{name}:vote_share,none"]), name
    assert rows["maj@4,none"] == 0
    assert "NaN" in make_table.__wrapped__(results)
    assert "vote_share" not in make_table(results)


def test_a_run_prints_the_rows_that_speak_for_it(scripted_lm):
    lm = scripted_lm(first_correct([1, 4, 2, 0, 3, 4]), with_records=True)
    metadata = {"attempts": 4}
    results = evaluate(lm, metadata=metadata)
    headline = results["configs"]["sums"]["headline"]
    assert [row["metric"] for row in headline] == [
        *("pass@1", "pass@4", "maj@4", "ece:vote_share"),
        *("hallucination_auroc:vote_share", "invalid_rate", "truncated_rate", "mean_tokens"),
    ]
    rows = results["results"]["sums"]
    expected = score([1 / 4, 1, 1 / 2, 0, 3 / 4, 1], "mean", True)
    assert headline[0] == {"metric": "pass@1", **expected._asdict()}
    assert headline[0]["value"] == rows["pass@1,none"]
    shown = make_table(results)
    assert "|pass@1" in shown
    assert "pass@2" not in shown
    whole = evaluate(lm, metadata={**metadata, "report": "all"})
    assert "headline" not in whole["configs"]["sums"]
    assert make_table(whole) == make_table.__wrapped__(results)
    assert whole["results"] == results["results"]
    assert whole["configs"]["sums"]["metadata"] == results["configs"]["sums"]["metadata"]
    with pytest.raises(UserError, match="report="):
        evaluate(lm, metadata={"report": "most"})


def test_a_standard_error_that_cannot_be_known_is_written_as_such(scripted_lm):
    lm = scripted_lm(lambda question, attempt: f"#### {question + attempt % 2 * (question % 2)}")
    results = evaluate(lm, metadata={"attempts": 4}, limit=3)
    rows = results["results"]["sums"]
    assert rows["debiased_ece:vote_share_stderr,none"] == "N/A"
    table = make_table.__wrapped__(results)
    (line,) = [line for line in table.splitlines() if "debiased_ece:vote" in line]
    assert "N/A" in line
    assert "0.0000" not in line

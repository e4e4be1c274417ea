"""Our metrics as aggregations: values, standard errors, and lm-eval's own results and table."""

import json
import math
import pickle
import warnings
from functools import partial

import datasets
import lm_eval
import numpy as np
import pytest
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks import TaskManager
from lm_eval.utils import make_table

from lm_eval_ext import metrics
from lm_eval_ext.errors import UserError
from lm_eval_ext.harness import bridge
from lm_eval_ext.metrics import UndefinedMetricWarning, cluster_bootstrap, mean_over_questions
from lm_eval_ext.scoring import aggregations
from lm_eval_ext.scoring.aggregations import Aggregation
from lm_eval_ext.scoring.question import MetricSuite, QuestionMetric
from lm_eval_ext.task import AttemptsTask

N_QUESTIONS, N_ATTEMPTS, K = 40, 6, 4
NAMES = [entry.name for entry in bridge.entry_points("lm_eval.aggregations")]
PAIRS = {
    "ece": metrics.ece,
    "debiased_ece": metrics.debiased_ece,
    "brier": metrics.brier,
    "nll": metrics.nll,
    "auroc": metrics.auroc,
    "within_question_auroc": metrics.within_question_auroc,
    "auprc": metrics.auprc,
    "auprc_incorrect": partial(metrics.auprc, positive="incorrect"),
    "aurc": metrics.aurc,
    "e_aurc": metrics.e_aurc,
    "prr": metrics.prr,
    "prr_at_50": partial(metrics.prr, max_rejection=0.5),
    "accuracy_at_50": partial(metrics.accuracy_at_coverage, coverage=0.5),
}
COUNTS = {"pass_at_k": metrics.pass_at_k, "pass_hat_k": metrics.pass_hat_k}


def attempts():
    """Return confidences and verdicts, shape (n_questions, n_attempts), of an unsure model."""
    rng = np.random.default_rng(3)
    ability = rng.random((N_QUESTIONS, 1))
    confidence = np.clip(ability + rng.normal(0, 0.2, (N_QUESTIONS, N_ATTEMPTS)), 0.01, 0.99)
    return confidence, rng.random((N_QUESTIONS, N_ATTEMPTS)) < ability


CONFIDENCE, CORRECT = attempts()
DATA = {"confidence": CONFIDENCE, "correct": CORRECT}
ITEMS = [list(zip(*rows, strict=True)) for rows in zip(CONFIDENCE, CORRECT, strict=True)]
COUNT_ITEMS = [(int(row.sum()), N_ATTEMPTS, K) for row in CORRECT]


def expected(name, n_resamples=200):
    """Return value and standard error of a named metric on the data above, without lm-eval."""
    if name in COUNTS:
        values = COUNTS[name](CORRECT.sum(axis=1), N_ATTEMPTS, K)
        interval = cluster_bootstrap(
            mean_over_questions, {"values": values}, n_resamples=n_resamples, seed=0
        )
        return values.mean(), interval.standard_error
    interval = cluster_bootstrap(PAIRS[name], DATA, n_resamples=n_resamples, seed=0)
    return PAIRS[name](**DATA), interval.standard_error


def test_every_entry_point_is_an_aggregation_of_that_name():
    assert set(NAMES) == {*PAIRS, *COUNTS}
    for name in NAMES:
        aggregation = getattr(aggregations, name)
        assert isinstance(aggregation, Aggregation)
        assert aggregation.__name__ == name


# --- by themselves -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_value_and_standard_error_are_those_of_the_library(name):
    aggregation = getattr(aggregations, name)
    items = COUNT_ITEMS if name in COUNTS else ITEMS
    value, standard_error = expected(name)
    assert aggregation(items) == pytest.approx(value, abs=1e-14)
    assert 0 < standard_error < 0.2
    assert aggregation.standard_error(items, 200) == pytest.approx(standard_error, abs=1e-14)


def test_attempts_are_resampled_by_question():
    """Four equal attempts at a question tell no more than one, four questions do."""
    singles = [item[0] for item in ITEMS]
    standard_error = aggregations.brier.standard_error(singles)
    repeated = [[pair] * 4 for pair in singles]
    assert aggregations.brier.standard_error(repeated) == pytest.approx(standard_error)
    assert aggregations.brier.standard_error(singles * 4) < 0.6 * standard_error


def test_questions_may_have_different_numbers_of_attempts_and_none():
    items = [(0.9, True), [(0.4, False), (0.6, True)], [], [[0.8, 0]], np.array([[0.5, 1.0]])]
    confidence, correct = [0.9, 0.4, 0.6, 0.8, 0.5], [1, 0, 1, 0, 1]
    clusters = [0, 1, 1, 3, 4]
    assert aggregations.ece(items) == metrics.ece(confidence, correct)
    assert aggregations.debiased_ece(items) == metrics.debiased_ece(
        confidence, correct, clusters=clusters
    )
    interval = cluster_bootstrap(
        metrics.brier,
        {"confidence": np.array(confidence), "correct": np.array(correct)},
        clusters=clusters,
        n_resamples=50,
    )
    assert aggregations.brier.standard_error(items, 50) == interval.standard_error


def test_an_uncertainty_is_given_by_its_negative():
    items = [(-2.0, True), (-3.5, False), (-1.0, True), (-0.5, False)]
    assert aggregations.auroc(items) == metrics.auroc([1, 0, 1, 0], uncertainty=[2, 3.5, 1, 0.5])


@pytest.mark.parametrize("name", ["auroc", "auprc", "auprc_incorrect", "prr", "prr_at_50"])
def test_one_class_is_nan_and_a_warning_that_says_why(name):
    aggregation = getattr(aggregations, name)
    with pytest.warns(UndefinedMetricWarning, match="all 2 answers are correct"):
        assert math.isnan(aggregation([(0.9, True), (0.8, True)]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(aggregation.standard_error([(0.9, True), (0.8, True)], 20))


def test_no_attempt_at_all_is_nan_and_a_warning():
    with pytest.warns(
        UndefinedMetricWarning, match="none of 2 questions has an attempt with this confidence"
    ):
        assert math.isnan(aggregations.ece([[], []]))
    assert math.isnan(aggregations.ece.standard_error([[], []]))


def test_questions_with_fewer_than_k_attempts_are_left_out():
    with pytest.warns(UndefinedMetricWarning, match="1 of 3 questions have fewer than k = 4"):
        assert aggregations.pass_at_k([(1, 4, 4), (0, 4, 4), (2, 3, 4)]) == 0.5
    with pytest.warns(UndefinedMetricWarning, match="2 of 2 questions"):
        assert math.isnan(aggregations.pass_at_k([(1, 2, 4), (0, 2, 4)]))


@pytest.mark.parametrize(
    ("name", "items", "message"),
    [
        ("ece", [(0.5, 1), 0.5], "ece: .* pair or a list of such pairs.*; item 1 is 0.5"),
        ("ece", [(0.5, 1, 0)], r"item 0 is \(0.5, 1, 0\)"),
        ("auroc", [{"confidence": 0.5}], "auroc: .*; item 0 is {'confidence': 0.5}"),
        ("brier", [[(0.5, 1), 0.5]], r"item 0 is \[\(0.5, 1\), 0.5\]"),
        ("prr", ["yes"], "item 0 is 'yes'"),
        ("ece", [(1.5, 1)], r"aggregation ece: confidence must be probabilities in \[0, 1\]"),
        ("auroc", [(None, 1), (1, 0)], "aggregation auroc: confidence has 1 NaN"),
        ("nll", [(0.5, 0.3)], "aggregation nll: correct must hold only 0 and 1"),
        ("pass_at_k", [(1, 2)], r"pass_at_k: .*three numbers.*; item 0 is \(1, 2\)"),
        ("pass_at_k", [(1, 2, 1), (1, 2, 2)], r"k must be the same .* \[1.0, 2.0\]"),
        ("pass_hat_k", [(3, 2, 1)], "pass_hat_k: n_correct must not exceed n_attempts"),
    ],
)
def test_bad_items_get_one_line(name, items, message):
    with pytest.raises(UserError, match=message) as caught:
        getattr(aggregations, name)(items)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


def test_resamples_are_bounded_on_both_sides():
    brier = aggregations.brier
    assert brier.standard_error(ITEMS, 100_000) == brier.standard_error(ITEMS, 1_000)
    assert brier.standard_error(ITEMS, 1) == brier.standard_error(ITEMS, 2) > 0
    assert brier.standard_error(ITEMS, 50, seed=1) != brier.standard_error(ITEMS, 50)


def test_aggregations_survive_pickling():
    copy = pickle.loads(pickle.dumps(aggregations.prr_at_50))
    assert copy(ITEMS) == aggregations.prr_at_50(ITEMS)


def test_no_standard_error_where_most_resamples_are_undefined():
    items = [(0.9, 1), (0.1, 0)]
    with pytest.warns(
        UndefinedMetricWarning, match=r"auroc is undefined .* standard error \(NaN\)"
    ):
        error = aggregations.auroc.standard_error(items)
    assert math.isnan(error)
    assert aggregations.auroc(items) == 1.0


# --- in lm-eval ----------------------------------------------------------------------------------

TASK = """
task: {task}
custom_dataset: !function scores.dataset
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "yes"
process_results: !function scores.{process_results}
generation_kwargs: {{until: ["\\n"]}}
metric_list:
{metrics}
metadata: {{version: 1.0}}
"""

FUNCTIONS = """
import datasets
from functools import partial

from lm_eval_ext.scoring.aggregations import Aggregation
from lm_eval_ext.metrics import ece

ece_5 = Aggregation("ece_5", partial(ece, n_bins=5))


def dataset(**options):
    rows = [{"question": f"question {i}"} for i in range(%d)]
    return {"test": datasets.Dataset.from_list(rows)}


def items(doc, results):
    confidence, correct = eval(results[0])
    pairs = list(zip(confidence, correct))
    counts = (sum(correct), len(correct), %d)
    return {name: counts if name in ("pass_at_k", "pass_hat_k") else pairs for name in NAMES}


def all_correct(doc, results):
    return {"auroc": (0.5, True), "ece": (0.5, True)}


def scalars(doc, results):
    return {"ece": 0.5}


NAMES = %r
"""


def metric(name, aggregation=None):
    return f"  - {{metric: {name}, aggregation: {aggregation or name}, higher_is_better: true}}"


@pytest.fixture
def tasks(tmp_path):
    """Return a folder of tasks; the responses of `scripted` are the attempts above."""
    names = [*NAMES, "ece_5"]
    (tmp_path / "scores.py").write_text(FUNCTIONS % (N_QUESTIONS, K, names))
    lines = [metric(name) for name in NAMES]
    lines.append(metric("ece_5", "!function scores.ece_5"))
    one_class = [metric("auroc"), metric("ece")]
    for task, function, chosen in (
        ("all_aggregations", "items", lines),
        ("one_class", "all_correct", one_class),
        ("wrong_items", "scalars", [metric("ece")]),
    ):
        text = TASK.format(task=task, process_results=function, metrics="\n".join(chosen))
        (tmp_path / f"{task}.yaml").write_text(text)
    (tmp_path / "pair.yaml").write_text(
        "group: pair\ntask:\n  - all_aggregations\n  - one_class\n"
        "aggregate_metric_list:\n  - {metric: ece, weight_by_size: true}\n"
    )
    return tmp_path


@pytest.fixture
def evaluate(tasks, scripted_lm, quick_evaluator):
    def script(question, attempt):
        rows = (CONFIDENCE[question % N_QUESTIONS], CORRECT[question % N_QUESTIONS])
        return repr(tuple(row.tolist() for row in rows))

    def run(task, **options):
        manager = TaskManager(include_path=str(tasks), include_defaults=False)
        model = scripted_lm(script)
        return lm_eval.simple_evaluate(model, tasks=[task], task_manager=manager, **options)

    return run


def cells_of(table):
    return [[cell.strip() for cell in line.split("|")] for line in table.splitlines()]


def test_lm_eval_reports_values_and_standard_errors(evaluate, tmp_path):
    results = evaluate("all_aggregations", bootstrap_iters=200)
    rows = results["results"]["all_aggregations"]
    table = {cells[5]: cells[7:10] for cells in cells_of(make_table(results))}
    for name in NAMES:
        value, standard_error = expected(name)
        assert rows[f"{name},none"] == pytest.approx(value, abs=1e-12)
        assert rows[f"{name}_stderr,none"] == pytest.approx(standard_error, abs=1e-12)
        shown_value, sign, shown_error = table[name]
        assert sign == "±"
        assert float(shown_value) == pytest.approx(value, abs=6e-5)
        assert float(shown_error) == pytest.approx(standard_error, abs=6e-5)
    assert rows["ece_5,none"] == metrics.ece(CONFIDENCE, CORRECT, n_bins=5)
    assert rows["ece_5_stderr,none"] > 0
    tracker = EvaluationTracker(output_path=str(tmp_path / "out"))
    tracker.save_results_aggregated(results=results, samples=None)
    (saved,) = (tmp_path / "out").rglob("results_*.json")
    written = json.loads(saved.read_text())["results"]["all_aggregations"]
    assert written["ece_stderr,none"] == rows["ece_stderr,none"]


def test_lm_evals_default_asks_for_1000_resamples(evaluate):
    rows = evaluate("all_aggregations")["results"]["all_aggregations"]
    for name in ("ece", "brier", "auroc", "pass_at_k"):
        assert rows[f"{name}_stderr,none"] == pytest.approx(expected(name, 1_000)[1], abs=1e-12)


def test_without_bootstrap_there_is_no_standard_error(evaluate):
    rows = evaluate("all_aggregations", bootstrap_iters=0)["results"]["all_aggregations"]
    assert {rows[f"{name}_stderr,none"] for name in NAMES} == {"N/A"}


def test_one_class_does_not_stop_lm_eval(evaluate):
    with pytest.warns(UndefinedMetricWarning, match="all 40 answers are correct"):
        results = evaluate("one_class", bootstrap_iters=20)
    rows = results["results"]["one_class"]
    assert math.isnan(rows["auroc,none"])
    assert math.isnan(rows["auroc_stderr,none"])
    assert rows["ece,none"] == 0.5
    assert ["NaN", "±", "NaN"] in [cells[7:10] for cells in cells_of(make_table(results))]


def test_a_group_pools_standard_errors_of_its_tasks(evaluate):
    with pytest.warns(UndefinedMetricWarning):
        results = evaluate("pair", bootstrap_iters=200)["results"]
    values = [results[task]["ece,none"] for task in ("all_aggregations", "one_class")]
    assert results["pair"]["ece,none"] == pytest.approx(np.mean(values))
    errors = [results[task]["ece_stderr,none"] for task in ("all_aggregations", "one_class")]
    assert results["pair"]["ece_stderr,none"] == pytest.approx(np.hypot(*errors) / 2, rel=0.02)


def test_items_of_a_wrong_shape_stop_lm_eval_with_one_line(evaluate):
    with pytest.raises(UserError, match=r"^aggregation ece: the item .* item 0 is 0\.5$"):
        evaluate("wrong_items", bootstrap_iters=20)


ALONE_IN_THEIR_BINS = [(0.95, 1), (0.55, 0), (0.15, 0)]
THREE_ALIKE = [(1.0, 1)] * 3


@pytest.mark.parametrize(
    ("name", "items"),
    [
        ("debiased_ece", ALONE_IN_THEIR_BINS),
        ("debiased_ece", [[(0.9, 1), (0.9, 1)], [(0.5, 0), (0.5, 1)], [(0.2, 0), (0.3, 0)]]),
        ("debiased_ece", [(0.9, 1), (0.2, 0)]),
        ("debiased_ece", THREE_ALIKE),
        ("ece", THREE_ALIKE),
        ("brier", THREE_ALIKE),
        ("aurc", [(0.9, 0), (0.5, 0), (0.1, 0)]),
        ("accuracy_at_50", THREE_ALIKE),
        ("auroc", ALONE_IN_THEIR_BINS),  # one class in too many resamples
        ("ece", [(0.9, 1)]),
    ],
)
def test_a_standard_error_that_cannot_be_known_is_not_zero(name, items):
    aggregation = getattr(aggregations, name)
    interval = aggregation.interval(items)
    assert np.isfinite(interval.estimate)
    assert np.isnan([interval.standard_error, interval.low, interval.high]).all()
    assert math.isnan(aggregation.standard_error(items))
    from lm_eval.api.metrics import stderr_for_metric

    assert stderr_for_metric(aggregation, 100)(items) == "N/A"


@pytest.mark.parametrize(
    ("name", "items"),
    [
        ("debiased_ece", [(0.75, 1), (0.75, 0), (0.75, 1)]),
        ("ece", ALONE_IN_THEIR_BINS),
        ("brier", ALONE_IN_THEIR_BINS),
        ("nll", [(0.9, 1), (0.2, 0)]),
        ("aurc", ALONE_IN_THEIR_BINS),
        ("pass_at_k", [(1, 2, 1), (2, 2, 1), (0, 2, 1)]),
    ],
)
def test_a_standard_error_of_few_questions_that_can_is_kept(name, items):
    assert getattr(aggregations, name).standard_error(items) > 1e-3


def test_many_questions_that_are_all_alike_have_no_spread():
    assert aggregations.ece.standard_error([(0.5, 1)] * 40) == 0
    assert aggregations.debiased_ece.standard_error([(1.0, 1)] * 40) == 0
    # A mean is what lm-eval makes of it.
    assert aggregations.pass_at_k.standard_error([(2, 2, 1)] * 3) == 0


def test_questions_without_an_attempt_are_left_out_and_counted():
    items = [(0.75, 1), [], (0.25, 0), []]
    with pytest.warns(UndefinedMetricWarning, match=r"n = 2 of 4 questions"):
        assert aggregations.ece(items) == 0.25
    assert aggregations.ece.interval(items).n_questions == 2


def test_lm_evals_own_standard_errors_stay():
    from lm_eval import evaluator_utils
    from lm_eval.api import metrics as theirs

    assert evaluator_utils.stderr_for_metric is theirs.stderr_for_metric
    assert theirs.stderr_for_metric(metric=theirs.mean, bootstrap_iters=9) is theirs.mean_stderr
    assert theirs.stderr_for_metric(theirs.brier_score, 9) is None
    assert theirs.stderr_for_metric(aggregations.ece, 0) is None


@pytest.mark.usefixtures("quick_evaluator")
@pytest.mark.parametrize("aggregation", ["brier", aggregations.brier])
def test_attempts_task_pools_attempts_over_questions(scripted_lm, monkeypatch, aggregation):
    def pairs(question):
        return [(0.75, attempt["correct"]) for attempt in question] or None

    pooled = QuestionMetric("brier:constant", pairs, False, aggregation)
    monkeypatch.setattr("lm_eval_ext.task.suite", lambda *chosen: MetricSuite([pooled]))

    def sums(**metadata):
        rows = [{"question": f"{i} + 0?", "answer": f"#### {i}"} for i in range(N_QUESTIONS)]
        return {"test": datasets.Dataset.from_list(rows)}

    task = {
        "task": "sums",
        "class": AttemptsTask,
        "custom_dataset": sums,
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "grader": "gsm8k",
        "generation_kwargs": {"until": ["\n"], "do_sample": True, "temperature": 0.7},
        "metadata": {"version": 1.0},
    }
    results = lm_eval.simple_evaluate(
        model=scripted_lm(lambda q, a: f"#### {q if CORRECT[q, a] else -1}"),
        tasks=[task],
        task_manager=TaskManager(include_defaults=False, metadata={"attempts": N_ATTEMPTS}),
        bootstrap_iters=50,
    )
    rows = results["results"]["sums"]
    assert rows["brier:constant,none"] == metrics.brier(np.full(CORRECT.shape, 0.75), CORRECT)
    data = {"confidence": np.full(CORRECT.shape, 0.75), "correct": CORRECT}
    assert rows["brier:constant_stderr,none"] == pytest.approx(
        cluster_bootstrap(metrics.brier, data, n_resamples=50).standard_error, abs=1e-12
    )

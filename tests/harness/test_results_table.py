"""The short table of our tasks, and lm-eval's own for all others."""

import pytest
from lm_eval.utils import make_table

from lm_eval_ext.harness.results_table import with_headlines

LM_EVALS = getattr(make_table, "__wrapped__", make_table)


def row(metric, value, low, high, better=True):
    return {"metric": metric, "value": value, "low": low, "high": high, "higher_is_better": better}


@pytest.fixture
def results():
    """Return results of two tasks of ours in a group, and of one of lm-eval's."""
    ours = {"pass@1,none": 0.5, "pass@1_stderr,none": 0.1, "pass@2,none": 0.6, "alias": "sums"}
    headline = [row("pass@1", 0.5, 0.3, 0.7), row("ece:x", 0.1, None, None, better=False)]
    return {
        "results": {
            "all_sums": {"pass@1,none": 0.5, "pass@1_stderr,none": 0.05, "alias": "all_sums"},
            "sums": ours,
            "more_sums": ours,
            "acc_task": {"acc,none": 0.25, "acc_stderr,none": 0.01, "alias": "acc_task"},
        },
        "groups": {"all_sums": {"pass@1,none": 0.5, "pass@1_stderr,none": 0.05}},
        "group_subtasks": {"all_sums": ["sums", "more_sums"]},
        "configs": {"sums": {"headline": headline}, "more_sums": {"headline": headline}},
        "versions": {},
        "n-shot": {},
        "n-samples": {name: {"effective": 20} for name in ("sums", "more_sums", "acc_task")},
    }


def test_our_rows_in_their_order_with_intervals(results):
    shown = with_headlines(LM_EVALS)(results)
    assert "|sums, 20 questions" in shown
    assert shown.index("pass@1") < shown.index("ece:x")
    assert "0.5000|0.3000 to 0.7000|" in shown
    assert "0.1000|             n/a|" in shown
    assert "pass@2" not in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_others_keep_lm_evals_table(results):
    shown = with_headlines(LM_EVALS)(results)
    lines = [line for line in shown.splitlines() if "acc" in line]
    assert [line.split("|")[1].strip() for line in lines] == ["acc_task"]
    assert "Stderr" in shown
    alone = {**results, "results": {"acc_task": results["results"]["acc_task"]}}
    assert with_headlines(LM_EVALS)(alone) == LM_EVALS(alone)


def test_groups(results):
    shown = with_headlines(LM_EVALS)(results, "groups")
    assert "|all_sums" in shown
    assert "0.5000|0.4020 to 0.5980|" in shown
    assert "report" in shown.splitlines()[-1]


@pytest.mark.parametrize("damage", ["configs", "n-samples", "group_subtasks"])
def test_results_of_another_shape_get_lm_evals_table(results, damage):
    results[damage] = []
    if damage == "group_subtasks":
        results[damage] = {"all_sums": None}
    del results["groups"]
    assert with_headlines(lambda result_dict, column, sort_results: "theirs")(results) is not None


def test_a_changed_function_is_left_alone():
    def changed(results, *, columns):
        return "theirs"

    assert with_headlines(changed) is changed


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--tasks", "x"], "To keep the attempts: --output_path FOLDER --log_samples"),
        (["--output_path", "out/a b", "--log_samples"], "build 'out/a b' --output board --open"),
        (["run", "-o", "out", "-s"], "score out --metrics '*'"),
    ],
)
def test_how_to_see_more(results, monkeypatch, words, told):
    monkeypatch.setattr("sys.argv", ["lm_eval", *words])
    assert told in with_headlines(LM_EVALS)(results, "groups")

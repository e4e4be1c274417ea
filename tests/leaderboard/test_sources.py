"""Confidence sources of one run against each other."""

import json

import pytest

from lm_eval_ext.commands.options import parse
from lm_eval_ext.leaderboard import sources
from lm_eval_ext.leaderboard.options import SourcesOptions
from lm_eval_ext.leaderboard.run_files import newest_run
from lm_eval_ext.leaderboard.sources import compare_sources, corrected
from lm_eval_ext.metrics import auroc, brier, holm, paired_bootstrap, within_question_auroc

TASK = "synthetic_passn"


def compared(folder, **options):
    files = newest_run(folder)
    metadata = files.results["configs"][TASK]["metadata"]
    options = {"metrics": ["hallucination_auroc"], "against": "mean_logprob", **options}
    return compare_sources(TASK, files.samples[TASK], metadata, **options)


def arrays(folder, read):
    (path,) = folder.rglob("samples_*.jsonl")
    attempts = [json.loads(line)["attempts"] for line in path.open()]
    return {
        "correct": [[a["correct"] for a in question] for question in attempts],
        "confidence": [[read(a) for a in question] for question in attempts],
    }


def test_equals_the_paired_bootstrap(made_up_runs):
    folder = made_up_runs["average"]
    tests = {test.source: test for test in compared(folder)}
    assert tests.keys() == {"self_eval", "mean_entropy", "self_certainty"}
    test = tests["self_eval"]
    a = arrays(folder, lambda a: a["probabilities"]["self_eval"])
    b = arrays(folder, lambda a: a["mean_logprob"])
    expected = paired_bootstrap(auroc, a, b)
    assert test.value.value == pytest.approx(auroc(**a))
    assert test.test.difference == pytest.approx(expected.difference)
    assert test.test.standard_error == pytest.approx(expected.standard_error, rel=0.2)
    assert test.test.n_questions == 40


def test_probabilities_only_where_a_metric_needs_them(made_up_runs, new_run):
    folder = made_up_runs["average"]
    assert compared(folder, metrics=["brier"]) == []  # mean_logprob is none
    assert compared(folder, metrics=["brier"], against="self_eval") == []
    other = new_run("two", n_questions=30, n_attempts=3)
    (path,) = other.rglob("samples_*.jsonl")
    lines = [json.loads(line) for line in path.open()]
    for line in lines:
        for attempt in line["attempts"]:
            attempt["probabilities"]["constant"] = 0.5
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (test,) = compared(other, metrics=["brier"], against="constant")
    data = arrays(other, lambda a: a["probabilities"]["self_eval"])
    assert test.test.difference == pytest.approx(brier(**data) - 0.25)


def test_the_same_questions_for_both(new_run):
    folder = new_run("gaps", n_questions=30, n_attempts=3)
    (path,) = folder.rglob("samples_*.jsonl")
    lines = [json.loads(line) for line in path.open()]
    for line in lines[:4]:
        del line["attempts"][1]["probabilities"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    tests = {test.source: test for test in compared(folder)}
    assert (tests["self_eval"].test.n_questions, tests["self_eval"].n_left_out) == (26, 4)
    assert tests["mean_entropy"].n_left_out == 0


def test_within_questions(made_up_runs):
    folder = made_up_runs["able"]
    tests = {test.source: test for test in compared(folder, metrics=["within_question_auroc"])}
    assert tests.keys() == {"self_eval", "mean_entropy", "self_certainty"}
    a = arrays(folder, lambda a: a["probabilities"]["self_eval"])
    b = arrays(folder, lambda a: a["mean_logprob"])
    found = tests["self_eval"]
    assert found.value.value == pytest.approx(within_question_auroc(**a))
    assert found.test.difference == pytest.approx(
        within_question_auroc(**a) - within_question_auroc(**b)
    )


def test_corrected_together(made_up_runs):
    tests = compared(made_up_runs["average"], metrics=["hallucination_auroc", "prr"])
    assert len(tests) == 6
    expected = holm([test.test.p_value for test in tests])
    assert [test.p_value for test in corrected(tests)] == pytest.approx(list(expected))
    assert corrected([]) == []


def command(*words):
    return sources.run(parse(SourcesOptions, [str(word) for word in words]))


def test_command(made_up_runs, capsys):
    folder = made_up_runs["able"]
    assert command(folder, "--tasks", TASK, "--metrics", "auroc,aurc", "--format", "markdown") == 0
    out = capsys.readouterr().out
    assert "**synthetic_passn, hallucination_auroc ↑**" in out
    assert "| self_eval | " in out
    assert "aurc ↓" in out
    assert "vote_share" not in out  # of questions, not of attempts
    assert command(folder, "--metrics", "auroc", "--json") == 0
    first = json.loads(capsys.readouterr().out)[0]
    assert (first["metric"], first["against"]) == ("hallucination_auroc", "mean_logprob")
    assert 0 < first["value"]["value"] < 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--tasks", "chess"), "--tasks=chess: the run has synthetic_passn"),
        (("--metrics", "chess"), "--metrics=chess: synthetic_passn has ece"),
        (("--against", "chess"), "--against=chess: the attempts of synthetic_passn have self_eval"),
        (("--metrics", "brier"), "nothing to compare with mean_logprob"),
    ],
)
def test_user_errors(made_up_runs, words, message):
    with pytest.raises(ValueError, match=message):
        command(made_up_runs["able"], *words)

"""Votes of a run against the majority vote of a baseline, against enumeration of all subsets."""

import json
import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from lm_eval_ext.commands.options import parse
from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard import vote_curves, votes
from lm_eval_ext.leaderboard.options import VotesOptions
from lm_eval_ext.leaderboard.vote_curves import Vote, read_questions, vote_curve, vote_scores

STAMP = "2026-01-01T00-00-00.000000"


def attempts_at(rng, n, difficulty):
    """Return attempts with answers 0 (right), 1, 2 or None, more confident where right."""
    attempts = []
    for number in range(n):
        answer = rng.choice([0, 1, 2, None], p=[1 - difficulty, *[difficulty / 3] * 3])
        right = answer == 0
        confidence = float(rng.beta(4, 2) if right else rng.beta(2, 4))
        attempts.append(
            {
                "attempt": number,
                "answer": None if answer is None else str(answer),
                "correct": right,
                "probabilities": {"self_eval": confidence},
            }
        )
    return attempts


@pytest.fixture
def write_run(tmp_path):
    """Return a function that writes a folder as lm_eval does, with attempts drawn from a seed."""

    def write(name, *, seed=0, n_questions=30, n_attempts=6, task="toy_passn", change=None):
        folder = tmp_path / name / "model"
        folder.mkdir(parents=True)
        results = {"n-samples": {task: {"effective": n_questions}}, "higher_is_better": {task: {}}}
        (folder / f"results_{STAMP}.json").write_text(json.dumps(results))
        rng = np.random.default_rng(seed)
        samples = []
        for i in range(n_questions):
            attempts = attempts_at(rng, n_attempts, rng.uniform(0.2, 0.8))
            sample = {"doc_id": i, "doc_hash": f"hash{i}", "filter": "none", "metrics": []}
            samples.append({**sample, "attempts": attempts})
        if change is not None:
            change(samples)
        path = folder / f"samples_{task}_{STAMP}.jsonl"
        path.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
        return tmp_path / name

    return write


def brute_force(question, rule, k, tau):
    """Mean over all k-subsets of the share of the win that the right answer has."""
    scores = []
    for subset in combinations(question, k):
        valid = [a for a in subset if a["answer"] is not None]
        confidence = [a["probabilities"]["self_eval"] for a in valid]
        if rule == "best_of":
            best = [a for a in valid if a["probabilities"]["self_eval"] == max(confidence)]
            scores.append(best[0]["correct"] if best else 0.0)
            continue
        weights = {
            "maj": [1.0] * len(valid),
            "cisc": [math.exp(c / tau) for c in confidence],
            "linear": confidence,
        }[rule]
        tally = Counter()
        for attempt, weight in zip(valid, weights, strict=True):
            tally[attempt["answer"]] += weight
        first = [a for a, w in tally.items() if w >= max(tally.values()) * (1 - 1e-9)]
        scores.append(("0" in first) / len(first) if first else 0.0)
    return float(np.mean(scores))


@pytest.mark.parametrize("name", ["maj", "cisc:self_eval", "linear:self_eval", "best_of:self_eval"])
def test_scores_are_those_of_all_subsets(write_run, name):
    questions = read_questions(write_run("a", n_questions=12), "toy_passn")
    vote, ks = Vote.parse(name), [1, 2, 3, 5, 6]
    scores = vote_scores(questions, vote, ks, tau=0.3)
    expected = [[brute_force(q, vote.rule, k, 0.3) for k in ks] for q in questions.values()]
    assert scores == pytest.approx(np.array(expected))


def smallest(gaps, ks):
    """Smallest k with a mean gap of at least zero, one by one."""
    return next((k for k, mean in zip(ks, gaps.mean(axis=0), strict=True) if mean >= -1e-9), np.inf)


def test_fewest_attempts_and_its_interval():
    rng = np.random.default_rng(3)
    ks = [1, 2, 4, 8]
    target = rng.uniform(size=60)
    noise = rng.normal(0, 0.1, (60, 4))
    scores = np.clip(target[:, None] + np.array([-0.2, -0.01, 0.005, 0.1]) + noise, 0, 1)
    curve = vote_curve(Vote("maj"), ks, scores, target, margin=0.05)
    gaps = scores - target[:, None]
    assert curve.fewest.k == smallest(gaps, ks)
    drawn = np.sort([smallest(gaps[rng.integers(0, 60, 60)], ks) for _ in range(4000)])
    assert curve.fewest.low == drawn[100]
    assert curve.fewest.high == drawn[3900]
    lower_bounds = [d.low for d in curve.differences]
    expected = next(k for k, low in zip(ks, lower_bounds, strict=True) if low > -0.05)
    assert curve.fewest.not_inferior == expected
    assert [d.difference for d in curve.differences] == pytest.approx(gaps.mean(axis=0))


def test_a_target_out_of_reach_is_infinity():
    target = np.ones(20)
    curve = vote_curve(Vote("maj"), [1, 2], np.full((20, 2), 0.5), target, margin=0.01)
    assert curve.fewest == (math.inf, math.inf, math.inf, 0.0, math.inf)


def test_the_majority_of_all_attempts_reaches_itself():
    scores = np.random.default_rng(0).uniform(size=(30, 3))
    curve = vote_curve(Vote("maj"), [1, 2, 3], scores, scores[:, 2], margin=0.01)
    assert curve.fewest.reached == 1
    assert curve.fewest.not_inferior <= 3
    assert curve.differences[2].difference == 0


def run_votes(*arguments):
    return votes.run(parse(VotesOptions, [str(a) for a in arguments]))


def test_command_prints_and_writes(write_run, tmp_path, capsys):
    run, baseline = write_run("run", seed=1), write_run("baseline", seed=2, n_attempts=9)
    output = tmp_path / "new" / "votes.json"
    options = ["--baseline", baseline, "--k", 3, "--baseline-k", 8, "--ks", "1,3,6", "--tau", 0.2]
    assert run_votes(run, *options, "--format", "markdown", "--output", output) == 0
    printed = capsys.readouterr().out
    (found,) = json.loads(output.read_text())
    questions = read_questions(baseline, "toy_passn").values()
    target = np.array([brute_force(q, "maj", 8, 1) for q in questions])
    assert found["target"] == pytest.approx(target.mean())
    assert f"maj@8 of the baseline, {target.mean():.3f}" in printed
    cisc = found["curves"]["cisc@k:self_eval"]["points"]
    assert [point["k"] for point in cisc] == [1, 3, 6]
    score = [brute_force(q, "cisc", 3, 0.2) for q in read_questions(run, "toy_passn").values()]
    assert cisc[1]["score"][0] == pytest.approx(np.mean(score))
    assert cisc[1]["minus_target"][0] == pytest.approx(np.mean(score) - target.mean())
    assert "| cisc@k:self_eval" in printed
    assert "| baseline's maj@k" in printed


def test_a_run_may_be_its_own_baseline(write_run, capsys):
    run = write_run("run")
    picture = run.parent / "plots" / "votes.png"
    options = ["--baseline", run, "--k", 2, "--vote", "maj", "--plot", picture]
    assert run_votes(run, *options) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    lines = [line for line in capsys.readouterr().out.splitlines() if "maj@k" in line]
    baseline, own = (line.partition("maj@k")[2].split() for line in lines[:2])
    assert own == baseline


def other_question(samples):
    samples[3]["doc_hash"] = "other"


def one_attempt_less(samples):
    samples[5]["attempts"].pop()


def no_confidence(samples):
    for sample in samples:
        for attempt in sample["attempts"]:
            del attempt["probabilities"]


def two_filters(samples):
    samples += [{**sample, "filter": "second"} for sample in samples]


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        ([], other_question, r"differ in 1 questions \(doc_id 3\)"),
        ([], one_attempt_less, "5 to 6 attempts"),
        ([], no_confidence, "no such weights .there are: none"),
        ([], two_filters, "several filters"),
        (["--vote", "cisc:nothing"], None, "no such weights .there are: self_eval"),
        (["--k", "7"], None, "--k=7 must be from 1 to 6"),
        (["--baseline-k", "7"], None, "--baseline-k=7 must be from 1 to 6"),
        (["--ks", "0,2"], None, "--ks=0 must be"),
        (["--tau", "0"], None, "--tau=0.0 must be above 0"),
        (["--margin", "-1"], None, "--margin=-1.0"),
        (["--tasks", "chess"], None, "--tasks=chess: no such task in both runs"),
    ],
)
def test_what_cannot_be_compared_is_refused(write_run, options, change, message):
    run, baseline = write_run("run", change=change), write_run("baseline")
    with pytest.raises(UserError, match=message):
        run_votes(run, "--baseline", baseline, "--k", "2", *options)


def test_other_tasks_are_refused(write_run):
    run, baseline = write_run("run"), write_run("baseline", task="other_passn")
    with pytest.raises(UserError, match="no such task in both runs"):
        run_votes(run, "--baseline", baseline)


@pytest.mark.parametrize("name", ["chess:self_eval", "cisc", "maj:self_eval", "linear:"])
def test_votes_that_do_not_exist(name):
    with pytest.raises(UserError, match="must be maj, or one of cisc:SOURCE"):
        Vote.parse(name)


def test_the_default_votes_can_be_read():
    chosen = parse(VotesOptions, ["run", "--baseline", "run"]).vote
    assert [Vote.parse(vote).name(3) for vote in chosen] == [
        "maj@3",
        "cisc@3:self_eval",
        "linear@3:self_eval",
        "best_of@3:self_eval",
    ]
    assert set(vote_curves.VOTES) == {"cisc", "linear", "best_of"}

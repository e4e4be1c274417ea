"""Plans are fixed before the first run, and verdicts follow from intervals and margins."""

import json
import math
from statistics import NormalDist

import numpy as np
import pytest

from lm_eval_ext.errors import UserError
from lm_eval_ext.metrics import (
    PairedDifference,
    auroc,
    holm,
    mean_over_questions,
    minimum_detectable_effect,
)


@pytest.fixture
def plan(study_module):
    return study_module("plan")


@pytest.fixture
def claim(plan):
    def make(name="A beats B", **changes):
        return plan.Comparison(name, "pass@16", "A", "B", **changes)

    return make


def normal(difference, error, *, n=100):
    """Return a measure whose intervals are those of a normal distribution."""

    def measure(level):
        half = NormalDist().inv_cdf(0.5 + level / 2) * error
        low, high = difference - half, difference + half
        return PairedDifference(
            difference, low, high, error, math.nan, 0.5 + difference, 0.5, n, 1000, 0, level
        )

    return measure


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.021, 0.30, "holds"),
        (0.02, 0.30, "not decidable here"),  # reaches the margin, does not lie beyond it
        (0.001, 0.30, "not decidable here"),  # better for sure, by enough not for sure
        (-0.10, 0.10, "not decidable here"),
        (-0.10, 0.02, "not decidable here"),
        (-0.10, 0.019, "does not hold"),
        (0.001, 0.019, "does not hold"),  # better for sure, and for sure by too little
        (-0.30, -0.10, "does not hold"),
        (math.nan, math.nan, "not decidable here"),
    ],
)
def test_superiority(claim, low, high, verdict):
    assert claim(margin=0.02).verdict(low, high) == verdict
    # The same claim about a metric of which less is better.
    assert claim(margin=0.02, higher_is_better=False).verdict(-high, -low) == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.019, 0.019, "holds"),
        (0.001, 0.019, "holds"),  # different for sure, and within the margin for sure
        (-0.02, 0.01, "not decidable here"),
        (0.01, 0.03, "not decidable here"),
        (-0.3, 0.3, "not decidable here"),
        (0.021, 0.03, "does not hold"),
        (-0.05, -0.021, "does not hold"),
        (math.nan, math.nan, "not decidable here"),
    ],
)
@pytest.mark.parametrize("higher_is_better", [True, False])
def test_equivalence(claim, low, high, verdict, higher_is_better):
    same = claim(margin=0.02, kind="equivalence", higher_is_better=higher_is_better)
    assert same.verdict(low, high) == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.019, 0.01, "holds"),
        (0.01, 0.05, "holds"),
        (-0.02, 0.01, "not decidable here"),
        (-0.03, -0.01, "not decidable here"),
        (-0.05, -0.021, "does not hold"),
    ],
)
def test_non_inferiority(claim, low, high, verdict):
    named = {"margin": 0.02, "kind": "non-inferiority"}
    assert claim(**named).verdict(low, high) == verdict
    assert claim(**named, higher_is_better=False).verdict(-high, -low) == verdict


@pytest.mark.parametrize(
    "changes",
    [
        {"margin": -0.01},
        {"margin": math.inf},
        {"margin": math.nan},
        {"kind": "equivalence"},  # within nothing
        {"kind": "inferiority"},  # of which there is no test
    ],
)
def test_claims_that_mean_nothing_are_refused(claim, changes):
    with pytest.raises(UserError):
        claim(**changes)


def test_family_has_at_most_three_distinct_claims(plan, claim):
    with pytest.raises(UserError, match="at most 2"):
        plan.Plan("s", claim("a"), (claim("b"), claim("c"), claim("d")))
    with pytest.raises(UserError, match="same claim"):
        plan.Plan("s", claim("a"), (claim("a"),))


def test_a_plan_is_written_once_and_other_settings_are_refused(plan, claim, tmp_path):
    def of(**settings):
        return plan.Plan("s", claim(margin=0.02), (claim("C beats B"),), settings=settings)

    assert of(questions=250, shots=(1, 2)).keep(tmp_path) is False
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert {path.name for path in files} == {"plan.json", "plan.md"}
    kept = json.loads((tmp_path / "plan.json").read_text())
    assert (kept["primary.margin"], kept["settings.questions"]) == (0.02, 250)
    assert "| primary | A beats B | pass@16 | A - B | 0.02 |" in (tmp_path / "plan.md").read_text()
    assert of(questions=250, shots=(1, 2)).keep(tmp_path) is True
    for other in (of(questions=100, shots=(1, 2)), of(questions=250), of(shots=[1, 2], extra=1)):
        with pytest.raises(UserError, match="settings") as error:
            other.keep(tmp_path)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"primary\.margin=0\.02, not 0\.01"):
        plan.Plan("s", claim(margin=0.01)).keep(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_pilot_says_what_can_be_seen_and_is_kept(plan, claim, tmp_path):
    study = plan.Plan("s", claim(), (claim("C beats B"),))
    pilot = {"A beats B": normal(0.1, 0.05, n=50)(0.95)}
    found = plan.keep_pilot(study, tmp_path, pilot, n_questions=200, note="50 others")
    # Four times the questions, half the standard error; two claims share the level.
    z = NormalDist().inv_cdf(1 - 0.05 / 4) + NormalDist().inv_cdf(0.8)
    assert found == pytest.approx({"A beats B": z * 0.025})
    assert "| A beats B | 50 | 0.0500 | 200 |" in (tmp_path / "pilot.md").read_text()
    other = {"A beats B": normal(0.1, 0.5, n=50)(0.95)}
    assert plan.keep_pilot(study, tmp_path, other, n_questions=999) == found


def test_holm_on_intervals_is_holm_on_p_values(plan, claim):
    rng, normal_cdf = np.random.default_rng(0), NormalDist().cdf
    seen = set()
    for _ in range(500):
        z = rng.normal(1.5, 2, size=3)
        names = ("a", "b", "c")
        study = plan.Plan("s", claim("a"), (claim("b"), claim("c")))
        judged = plan.judge(
            study, {n: normal(0.01 * x, 0.01) for n, x in zip(names, z, strict=True)}
        )
        decided = [one.verdict != "not decidable here" for one in judged]
        adjusted = holm([2 * (1 - normal_cdf(abs(x))) for x in z])
        assert decided == (adjusted <= 0.05).tolist()
        for one, x in zip(judged, z, strict=True):
            if one.verdict != "not decidable here":
                assert (one.verdict == "holds") == (x > 0)
        seen.add(sum(decided))
    assert seen == {0, 1, 2, 3}


def test_claims_that_were_not_run_stay_in_the_family(plan, claim):
    study = plan.Plan("s", claim("a"), (claim("b"), claim("c")))
    # Decided at 95%, and neither at 1 - 0.05 / 3 nor at 1 - 0.05 / 2.
    judged = plan.judge(study, {"a": normal(0.0205, 0.01)})
    assert [one.verdict for one in judged] == ["not decidable here"] * 3
    assert plan.judge(plan.Plan("s", claim("a")), {"a": normal(0.0205, 0.01)})[0].verdict == "holds"
    table = "\n".join(plan.judgement_table(judged))
    assert table.count("not run") == 2
    with pytest.raises(UserError, match="no claim"):
        plan.judge(study, {"d": normal(0, 1)})


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"margin": 0.02}, 0.03),
        ({"margin": 0.02}, 0.01),
        ({"margin": 0.02, "higher_is_better": False}, -0.03),
        ({"margin": 0.02, "kind": "equivalence"}, 0.01),
        ({"margin": 0.02, "kind": "equivalence"}, -0.01),
        ({"margin": 0.02, "kind": "equivalence"}, -0.03),
        ({"margin": 0.02, "kind": "non-inferiority"}, -0.03),
        ({"margin": 0.02, "kind": "non-inferiority"}, -0.01),
    ],
)
def test_questions_to_decide(claim, changes, difference):
    """A distance of 0.01 to the margin needs an n whose detectable effect is 0.01."""
    needed = claim(**changes).questions_to_decide(normal(difference, 0.02)(0.95), alpha=0.05)
    assert minimum_detectable_effect(0.02 * math.sqrt(100 / needed)) == pytest.approx(0.01)


def test_nothing_decides_about_the_margin_itself(plan, claim):
    assert claim(margin=0.02).questions_to_decide(normal(0.02, 0.1)(0.95), alpha=0.05) == math.inf
    judged = plan.judge(plan.Plan("s", claim()), {"A beats B": normal(0.0, 0.1)})
    assert "not decidable here: no n would" in plan.judgement_table(judged)[-1]
    (record,) = plan.judgement_records(judged)
    assert record["questions_to_decide"] is record["found"]["p_value"] is None
    json.dumps(record, allow_nan=False)


def test_measures_are_paired_bootstraps_of_any_metric(plan, claim):
    rng = np.random.default_rng(1)
    base = rng.random(200)
    measure = plan.measure_of(mean_over_questions, {"values": base + 0.1}, {"values": base})
    assert measure(0.95).difference == pytest.approx(0.1)
    assert measure(0.99).low == pytest.approx(0.1)  # every question gains alike
    correct = rng.random((200, 4)) < 0.5
    good, none = correct + rng.normal(size=(200, 4)), rng.normal(size=(200, 4))
    ranking = plan.measure_of(
        auroc, {"correct": correct, "confidence": good}, {"correct": correct, "confidence": none}
    )
    narrow, wide = ranking(0.9), ranking(0.99)
    assert wide.low < narrow.low < narrow.high < wide.high
    record = plan.judgement_records(plan.judge(plan.Plan("s", claim()), {"A beats B": ranking}))[0]
    assert record["verdict"] == "holds"
    assert json.loads(json.dumps(record))["found"]["n_questions"] == 200


@pytest.mark.parametrize("kind", ["superiority", "non-inferiority", "equivalence"])
def test_runs_that_differ_at_no_question_decide_nothing(plan, claim, kind):
    same = plan.measure_of(
        mean_over_questions, {"values": [0.0, 1.0, 0.5] * 4}, {"values": [0.0, 1.0, 0.5] * 4}
    )
    (judged,) = plan.judge(plan.Plan("s", claim(margin=0.02, kind=kind)), {"A beats B": same})
    assert judged.verdict == "not decidable here"
    assert judged.questions_to_decide is None

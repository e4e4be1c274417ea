"""What the noise of values and differences is made of."""

import json
import math

import numpy as np
import pytest

from lm_eval_ext.__main__ import main
from lm_eval_ext.leaderboard.noise import noise_of, parts_of
from lm_eval_ext.leaderboard.run_output import read_run
from lm_eval_ext.metrics import minimum_detectable_effect


@pytest.fixture(scope="module")
def runs(made_up_runs):
    return [read_run(made_up_runs[name]) for name in ("average", "able")]


def test_the_parts_of_a_value_and_of_a_difference_add_up(runs):
    (task,) = runs[0].tasks
    rows = noise_of(runs, [(task, "pass@1")])
    assert [row.of for row in rows] == ["average", "able", "able - average"]
    of_a, of_b, difference = rows
    values = [np.array([run.tasks[task].values["pass@1"][i] for i in range(40)]) for run in runs]
    for row, a in zip((of_a, of_b), values, strict=True):
        assert row.attempts == pytest.approx((a * (1 - a) / 3).mean() / 40)
        assert row.attempts + row.questions == pytest.approx(a.var(ddof=1) / 40)
    assert difference.attempts == pytest.approx(of_a.attempts + of_b.attempts)
    total = difference.attempts + difference.questions
    assert difference.detectable == pytest.approx(minimum_detectable_effect(math.sqrt(total)))
    assert difference.detectable_at_4x == pytest.approx(difference.detectable / 2)
    at_64 = difference.attempts * 4 / 64 + difference.questions
    assert difference.detectable_at_64 == pytest.approx(minimum_detectable_effect(at_64**0.5))


@pytest.mark.parametrize(
    ("metric", "is_known"),
    [("pass@2", True), ("pass^2", True), ("invalid_rate", True), ("pass@4", False),
     ("maj@4", False), ("mean_tokens", False), ("none", False)],
)  # fmt: skip
def test_metrics_whose_attempts_are_known_have_parts(runs, metric, is_known):
    (task,) = (run.tasks[name] for run in runs[:1] for name in run.tasks)
    assert (parts_of(task, metric) is not None) == is_known


def test_compare_and_check_show_them(made_up_runs, capsys):
    folders = [str(made_up_runs[name]) for name in ("average", "able")]
    assert main(["leaderboard", "compare", *folders, "--json"]) == 0
    noise = json.loads(capsys.readouterr().out)["noise"]
    assert {row["of"] for row in noise} == {"average", "able", "able - average"}
    main(["leaderboard", "compare", *folders])
    assert "noise of" in capsys.readouterr().out
    main(["leaderboard", "check", folders[1], "--baseline", folders[0]])
    assert "noise of" in capsys.readouterr().out

"""Reading lm_eval's output folders and comparing them."""

import json
import shutil

import numpy as np
import pytest

from lm_eval_ext.__main__ import main
from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard.run_comparison import compare_runs
from lm_eval_ext.leaderboard.run_output import read_run

STAMP = "2026-01-01T00-00-00.000000"


@pytest.fixture
def write_run(tmp_path):
    """Return a function that writes a folder as lm_eval does, from pass@1 values per question."""

    def write(name, values, *, task="toy_passn", stamp=STAMP, hashes=None, metrics=None):
        folder = tmp_path / name / "model"
        folder.mkdir(parents=True, exist_ok=True)
        results = {
            "n-samples": {task: {"effective": len(values)}},
            "higher_is_better": {task: {"pass@1": True, "mean_tokens": None}},
            "total_evaluation_time_seconds": "12.5",
        }
        (folder / f"results_{stamp}.json").write_text(json.dumps(results))
        lines = []
        for i, value in enumerate(values):
            sample = {
                "doc_id": i,
                "doc_hash": (hashes or {}).get(i, f"hash{i}"),
                "filter": "none",
                "metrics": ["pass@1", "mean_tokens", "attempts"],
                "pass@1": value,
                "mean_tokens": 10.0 + i,
                "attempts": [{"attempt": 0}],
            }
            lines.append(json.dumps({**sample, **(metrics or {})}))
        samples = folder / f"samples_{task}_{stamp}.jsonl"
        samples.write_text("\n".join(lines) + "\n")
        return tmp_path / name

    return write


def test_values_differences_and_corrected_p(write_run):
    draws = np.random.default_rng(0)
    base = draws.integers(0, 5, 80) / 4
    better = np.minimum(base + 0.25 * draws.integers(0, 2, 80), 1)
    runs = [read_run(write_run("a", base)), read_run(write_run("b", better))]
    by_metric = {c.metric: c for c in compare_runs(runs)}
    assert set(by_metric) == {"pass@1", "mean_tokens"}
    passed = by_metric["pass@1"]
    assert passed.values[0].value == pytest.approx(base.mean())
    assert passed.values[0].n_questions == 80
    assert passed.differences[0].difference == pytest.approx((better - base).mean())
    assert passed.differences[0].low > 0
    assert passed.p_values[0] < 0.01
    # Tokens have no direction: they are shown and not tested.
    assert by_metric["mean_tokens"].p_values == [None]


def test_chosen_metrics_only(write_run, capsys):
    a, b = (str(write_run(name, [0.0, 1.0, 0.5, 1.0])) for name in "ab")
    assert main(["leaderboard", "compare", a, b, "--metrics", "pass@*"]) == 0
    table = capsys.readouterr().out
    assert "pass@1" in table
    assert "mean_tokens" not in table
    assert main(["leaderboard", "compare", a, b, "--metrics", "maj@*,chess"]) == 2
    assert "--metrics=chess: no such metric in toy_passn" in capsys.readouterr().err


def test_newest_run_of_a_folder_is_read(write_run):
    folder = write_run("a", [0.0] * 5)
    write_run("a", [1.0] * 5, stamp="2026-02-01T00-00-00.000000")
    assert set(read_run(folder).tasks["toy_passn"].values["pass@1"].values()) == {1.0}


def test_different_questions_are_refused_and_named(write_run):
    runs = [
        read_run(write_run("a", [0.0] * 5)),
        read_run(write_run("b", [0.0] * 6, hashes={2: "other"})),
    ]
    with pytest.raises(UserError, match=r"differ in 2 questions \(doc_id 2, 5\)"):
        compare_runs(runs)


def test_runs_without_a_common_task_are_refused(write_run):
    runs = [read_run(write_run("a", [0.0])), read_run(write_run("b", [0.0], task="other"))]
    with pytest.raises(UserError, match="no task in common: a has toy_passn; b has other"):
        compare_runs(runs)


def test_command_prints_table_and_draws(write_run, tmp_path, capsys):
    folders = [
        str(write_run(name, values)) for name, values in (("a", [0, 1, 0, 1]), ("b", [1] * 4))
    ]
    picture = tmp_path / "plot" / "pass.png"
    assert main(["leaderboard", "compare", *folders, "--plot", str(picture)]) == 0
    output = capsys.readouterr().out
    assert "0.500" in output
    assert "+0.500" in output
    assert "toy_passn, 4 questions" in output
    assert "over 1 test (pass@1)" in output
    assert output.endswith(f"build {' '.join(folders)} --output board --open\n")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main(["leaderboard", "compare", *folders, "--format", "markdown"]) == 0
    assert "| pass@1 ↑ | 0.500" in capsys.readouterr().out


def test_json_holds_what_the_tables_show(write_run, capsys):
    folders = [
        str(write_run(name, values)) for name, values in (("a", [0, 1, 0, 1]), ("b", [1] * 4))
    ]
    assert main(["leaderboard", "compare", *folders, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["runs"] == ["a", "b"]
    row = next(row for row in found["metrics"] if row["metric"] == "pass@1")
    assert [value["value"] for value in row["values"]] == [0.5, 1.0]
    assert row["differences"][0]["difference"] == 0.5
    assert main(["leaderboard", "check", folders[0], "--baseline", folders[1], "--json"]) in (0, 1)
    found = json.loads(capsys.readouterr().out)
    assert [row["metric"] for row in found["metrics"]] == ["pass@1"]
    assert found["metrics"][0]["verdict"] in (None, "worse")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: folder / "nothing", "no such folder"),
        (lambda folder: _cut(folder, "samples_*.jsonl"), "line 3: not a complete sample"),
        (lambda folder: _cut(folder, "results_*.json"), "not valid JSON"),
        (lambda folder: _remove(folder, "samples_*.jsonl"), "--log_samples"),
        (lambda folder: _remove(folder, "results_*.json"), "holds no results"),
        (lambda folder: folder, "at least two runs"),
    ],
)
def test_damage_is_one_line_and_a_status(write_run, capsys, damage, message):
    sound, damaged = write_run("a", [0, 1, 1]), write_run("b", [0, 1, 1])
    broken = damage(damaged)
    arguments = (
        [str(sound), str(broken)] if broken != damaged or "two" not in message else [str(sound)]
    )
    assert main(["leaderboard", "compare", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def _cut(folder, pattern):
    (path,) = folder.rglob(pattern)
    text = path.read_text().rstrip()
    path.write_text(text[: len(text) - 20])
    return folder


def _remove(folder, pattern):
    (path,) = folder.rglob(pattern)
    path.unlink()
    return folder


def test_names_that_mean_something_to_tables_are_shown(made_up_runs, tmp_path, capsys):
    named = shutil.copytree(made_up_runs["able"], tmp_path / "a|b[red]:fire:")
    arguments = [str(made_up_runs["weak"]), str(named), "--metrics", "pass@1"]
    assert main(["leaderboard", "compare", *arguments, "--format", "markdown"]) == 0
    assert "a\\|b\\[red\\]:fire:" in capsys.readouterr().out
    assert main(["leaderboard", "compare", *arguments]) == 0
    assert "a|b[red]:fire:" in capsys.readouterr().out

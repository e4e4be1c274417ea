"""The study of BOS sinks: what it reads from its files, and a run of it on the shipped model."""

import json

import numpy as np
import pytest

from lm_eval_ext.errors import UserError

TOKENS = [100, 300]


@pytest.fixture
def reading(study_module):
    return study_module("sink_reading")


@pytest.fixture
def study(study_module):
    return study_module("bos_sinks")


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def cell(folder, cells, criterion, losses, ratio=0.125):
    name = f"{criterion}_{ratio:g}.json" if ratio else "dense.json"
    metric = {
        "estimate": float(np.exp(np.mean(losses))),
        "low": 1.0,
        "high": 9.0,
        "values": losses,
        "higher_is_better": False,
    }
    content = {"criterion": criterion, "ratio": ratio, "skip_first": 0}
    write(folder / cells / name, {**content, "metrics": {"perplexity": metric}})


@pytest.fixture
def folder(tmp_path):
    for part in ("choice", "test"):
        write(tmp_path / "texts" / f"{part}.json", {"predicted_tokens": TOKENS})
    return tmp_path


def test_log_perplexity_weights_texts_by_their_tokens(reading, folder):
    cell(folder, "heads", "sink", [1.0, 2.0])
    data = reading.loss_data(folder, "test", "heads", "sink_0.125.json")
    assert reading.mean_loss(**data) == pytest.approx((100 * 1.0 + 300 * 2.0) / 400)
    assert reading.loss_data(folder, "test", "heads", "wanda_0.125.json") is None


def test_the_best_criterion_of_each_kind_is_chosen_on_the_texts_of_choice(reading, folder):
    for name, losses in {"magnitude": [2, 2], "wanda": [3, 3], "ahon": [1.5, 1.6]}.items():
        cell(folder, "choice", name, losses)
    cell(folder, "heads", "wanda", [0.1, 0.1])  # best where it is judged, which must not count
    groups = (("magnitude",), ("wanda", "ahon"))
    assert reading.best_criteria(folder, groups, 0.125) == ("magnitude", "ahon")


def test_a_criterion_that_is_better_on_all_texts_wins(study, reading, folder):
    settings = study.Settings(ratio=0.125)
    plan = study.plan_of(settings)
    for cells in ("choice", "heads"):
        cell(folder, cells, "dense", [0.9, 1.0], ratio=0.0)
        cell(folder, cells, "sink", [1.0, 1.1])
        cell(folder, cells, "magnitude", [2.0, 2.2])
        cell(folder, cells, "ahon", [1.01, 1.111])
    groups = (("magnitude",), ("ahon",))
    text = reading.report(plan, folder, study.WORK, groups, study.DEFAULT)
    verdicts = {row["claim"]: row for row in json.loads((folder / "verdicts.json").read_text())}
    over = {
        kind: verdicts[study.SINK_WINS.format(f"{kind}-based")] for kind in ("weight", "activation")
    }
    assert over["weight"]["verdict"] == "holds"
    # A hundredth of a nat is less than the margin.
    assert over["activation"]["verdict"] == "does not hold"
    assert over["activation"]["found"]["difference"] == pytest.approx(-0.01, abs=1e-3)
    assert verdicts[study.SAME_RANKS]["verdict"] == "not decidable here"
    assert "not run" in text
    assert "Cut, or not finished: scores, choice, primary" in text


@pytest.mark.parametrize(
    ("short", "verdict"),
    [([3.0, 2.0, 1.0, 0.5], "holds"), ([0.5, 1.0, 2.0, 3.0], "does not hold")],
)
def test_equal_ranks_over_lengths_are_an_equivalence(study, reading, folder, short, verdict):
    long = np.array([3.1, 2.1, 1.1, 0.6])
    noise = np.linspace(0, 0.01, 6)[:, None]
    by_segment = np.stack([np.array(short) + noise, long + noise], axis=1)[..., None]
    write(folder / "lengths.json", {"lengths": [64, 2048], "by_segment": by_segment.tolist()})
    measure = reading.length_measure(folder)
    found = measure(0.95)
    assert found.n_questions == 6
    ranks = study.plan_of(study.Settings()).family[2]
    assert ranks.verdict(found.low, found.high) == verdict


def test_heads_that_matter_less_with_a_higher_score_correlate_negatively(reading, folder):
    scores = [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]
    write(folder / "sink_scores.json", {"heads": {"sink": scores}})
    write(folder / "alone" / "dense.json", {"loss": [100.0, 300.0], "tokens": TOKENS})
    for layer, row in enumerate(scores):
        losses = [[100 * (2 - s), 300 * (2 - s)] for s in row]
        write(folder / "alone" / f"layer-{layer:02d}.json", losses)
    text = "\n".join(reading.single_heads(folder))
    assert "all layers: -1.00" in text
    assert "correlate by +1.00" in text
    (folder / "alone" / "layer-02.json").unlink()
    assert reading.single_heads(folder) == []  # not finished


def test_texts_of_the_three_parts_share_none(study_module, monkeypatch, published_data):
    monkeypatch.setenv("LM_EVAL_EXT_DATA", str(published_data))
    parts = study_module("sink_parts")
    texts = {part: list(parts.published_texts(part)) for part in parts.PARTS}
    problems = {part: {text.partition("\n")[0] for text in found} for part, found in texts.items()}
    assert all(len(found) > 1000 for found in texts.values())
    for one, other in (("calibration", "choice"), ("calibration", "test"), ("choice", "test")):
        assert not set(texts[one]) & set(texts[other])
        assert len(problems[one] & problems[other]) < 100  # openings that many problems share
    assert not any("<<" in text for text in texts["test"][:100:2])  # GSM8K's calculator marks


def test_a_resumed_study_must_have_the_same_sizes(study, tmp_path):
    arguments = ["--output", str(tmp_path), "--smoke", "--read"]
    study.main(arguments)
    study.main(arguments)
    with pytest.raises(UserError, match="tokens"):
        study.main([*arguments, "--tokens", "7"])
    with pytest.raises(UserError, match="--parts=chess"):
        study.main([*arguments, "--parts", "chess"])


def test_a_run_on_the_shipped_model_is_not_repeated(study, tmp_path, capsys):
    arguments = ["--output", str(tmp_path), "--smoke", "--parts", "scores,choice,primary"]
    arguments += ["--choice", "4", "--calibration", "4"]
    study.main(arguments)
    first = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    report = capsys.readouterr().out
    study.main(arguments)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == first
    assert capsys.readouterr().out == report
    assert "Chosen on other texts: magnitude (weight-based)" in report
    assert {path.name for path in (tmp_path / "heads").iterdir()} >= {
        "sink_0.125.json",
        "dense.json",
    }
    assert "not finished: lengths" in report
    assert (tmp_path / "plan.md").is_file()
    assert (tmp_path / "pilot.md").is_file()

"""Attempts that are taken from an lm_eval run or another training, and what does not fit them."""

import json
import subprocess

import pytest
from kept_index import LM_EVAL
from safetensors.torch import load_file, save_file

from lm_eval_ext.errors import UserError
from lm_eval_ext.harness import requests as harness
from lm_eval_ext.training.self_training.folders import Stage, read_lines
from lm_eval_ext.training.self_training.job import self_train
from lm_eval_ext.training.self_training.phase import run_phase
from lm_eval_ext.training.self_training.problems import read_problems
from lm_eval_ext.training.self_training.rows import read_rows
from lm_eval_ext.training.self_training.settings import SelfTrainingRuntime

TASK = "tiny_gsm8k_passn"


def train(run, output, taken=None):
    runtime = SelfTrainingRuntime(attempts_from=None if taken is None else str(taken))
    self_train(run, output, runtime=runtime, launch=run_phase)
    return output


def labelled(output):
    return list(read_lines(Stage(output, 1).folder / "labelled.jsonl"))


def settings(output):
    return json.loads((output / "settings.json").read_text())


@pytest.fixture(scope="module")
def star(make_run, tmp_path_factory):
    return train(make_run(method="star", rounds=1), tmp_path_factory.mktemp("runs") / "star")


@pytest.fixture(scope="module")
def evaluated(model_folder, tmp_path_factory):
    """Return an lm_eval run of a model of one layer, and a file of the problems it answered."""
    folder = tmp_path_factory.mktemp("evaluated")
    words = ["--model", "sampled", "--model_args", f"pretrained={model_folder},seed=0"]
    words += ["--tasks", TASK, "--limit", "6", "--metadata", '{"attempts": 3}', "--seed", "0"]
    words += ["--gen_kwargs", "max_gen_toks=8", "--log_samples", "--output_path", folder / "run"]
    subprocess.run([*LM_EVAL, *map(str, words)], check=True)
    docs = harness.task_docs(TASK)[:6]
    path = folder / "problems.jsonl"
    records = [{**doc, "prompt": f"Now: {doc['question']}\nAnswer:"} for doc in docs]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder / "run", path


@pytest.fixture(scope="module")
def run_of_evaluated(evaluated, make_run):
    # The grader of these tests knows other records than these.
    def make(**changes):
        few = {"problems": str(evaluated[1]), "attempts": 3, "held_out_share": 0.0, "rounds": 1}
        return make_run(**{**few, **changes})

    return make


def no_sampling(*arguments, **named):
    raise AssertionError("sampled")


def test_two_trainings_learn_from_the_same_attempts(make_run, star, tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "complete", no_sampling)
    run = make_run(rounds=1, held_out_share=0.3)

    def launch(phase, stage, runtime):
        if stage.held_out:
            monkeypatch.undo()
        run_phase(phase, stage, runtime)

    self_train(run, tmp_path, runtime=SelfTrainingRuntime(attempts_from=str(star)), launch=launch)
    assert labelled(tmp_path) == labelled(star)
    noted = settings(tmp_path)["attempts_from"]
    assert noted["pretrained"] == run.pretrained == settings(star)["pretrained"]
    assert noted["fingerprint"] == Stage(star, 1).counts("generate")["fingerprint"]
    assert noted["seed"] == 0
    manifest = json.loads((tmp_path / "training.json").read_text())
    assert manifest["settings"]["attempts_from"] == noted
    # A third one takes them from the second, and knows the same of them.
    third = train(make_run(rounds=1, method="star"), tmp_path / "third", tmp_path)
    assert labelled(third) == labelled(star)
    assert settings(third)["attempts_from"] == noted


def test_only_self_evaluation_is_learned_from_them(make_run, star, tmp_path, caplog):
    """The second of two stages: a model that was trained before, and attempts of its base."""
    run = make_run(rounds=1, pretrained=str(star / "model"), schedule="eval_only")
    train(run, tmp_path, star)
    rows = read_rows(Stage(tmp_path, 1))
    assert {row.kind for row in rows} == {"eval"}
    assert len(rows) == len(labelled(star))
    assert [line["text"] for line in labelled(tmp_path)] == [x["text"] for x in labelled(star)]
    noted = settings(tmp_path)
    assert noted["pretrained"] == str(star / "model") != noted["attempts_from"]["pretrained"]
    assert f"training starts from {star / 'model'}" in caplog.text
    held_out = Stage(tmp_path, 2, held_out=True).counts("label")
    assert "correct" in held_out


def test_an_evaluation_with_another_prompt_is_learned_from(
    run_of_evaluated, evaluated, tmp_path, monkeypatch, tiny_tokenizer
):
    from lm_eval_ext.grading import Attempt

    def some(family, questions):
        for texts, *_ in questions:
            yield [Attempt(text, i == 0) for i, text in enumerate(texts)]

    monkeypatch.setattr("lm_eval_ext.training.self_training.labels.grade_questions", some)
    monkeypatch.setattr(harness, "complete", no_sampling)
    train(run_of_evaluated(), tmp_path, evaluated[0])
    (samples,) = evaluated[0].rglob("samples_*.jsonl")
    said = [json.loads(line)["resps"][0] for line in samples.read_text().splitlines()]
    lines = labelled(tmp_path)
    assert [line["text"] for line in lines] == [text for texts in said for text in texts]
    problems = {p.number: p.prompt for p in read_problems(tmp_path, held_out=False)}
    for line in lines:
        if line["attempt"] == 0:
            text = tiny_tokenizer.decode(line["prompt_ids"], skip_special_tokens=True)
            assert text == problems[line["problem"]]
            assert text.startswith("Now: ")
    noted = settings(tmp_path)["attempts_from"]
    assert (noted["task"], noted["temperature"], noted["top_k"]) == (TASK, 0.7, 50)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "sampled with seed=0, and this run has 1: give --seed 0"),
        ({"temperature": 1.0}, r"sampled with temperature=0\.7"),
        ({"attempts": 4}, "3 attempts at the problem '.*', and --attempts is 4"),
    ],
)
def test_other_settings_are_refused(run_of_evaluated, evaluated, tmp_path, changes, message):
    with pytest.raises(UserError, match=message) as error:
        train(run_of_evaluated(**changes), tmp_path, evaluated[0])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "settings.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"question": "How many?"}, "0 attempts at the problem 'How many\\?'"),
        ({"answer": "#### -1"}, "another reference answer to the problem"),
    ],
)
def test_other_problems_are_refused(run_of_evaluated, evaluated, tmp_path, changes, message):
    records = [json.loads(line) for line in evaluated[1].read_text().splitlines()]
    records[3] |= changes
    path = tmp_path / "other.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(UserError, match=message):
        train(run_of_evaluated(problems=str(path)), tmp_path / "run", evaluated[0])


def test_fewer_problems_than_were_sampled_will_do(run_of_evaluated, evaluated, tmp_path):
    from lm_eval_ext.training.self_training.problems import load_training_problems
    from lm_eval_ext.training.self_training.taken_attempts import TakenAttempts

    records = {}
    for n in (2, 6):
        run = run_of_evaluated(num_problems=n)
        taken = TakenAttempts(evaluated[0], run, load_training_problems(run))
        records[n] = taken.record()
    assert records[2]["sha256"] != records[6]["sha256"]


def test_unfinished_trainings_and_other_folders_are_refused(make_run, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        train(make_run(), tmp_path / "run", tmp_path / "none")
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(UserError, match="has not sampled all attempts"):
        train(make_run(), tmp_path / "run", tmp_path)


def test_a_model_that_was_changed_in_its_place_is_refused(make_run, model_folder, tmp_path):
    import shutil

    place = tmp_path / "model"
    shutil.copytree(model_folder, place)
    run = make_run(pretrained=str(place), method="star", rounds=1, held_out_share=0.0)
    star = train(run, tmp_path / "star")
    weights = load_file(place / "model.safetensors")
    weights["model.norm.weight"] *= 2
    save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="sampled by other weights"):
        train(run, tmp_path / "again", star)


def test_a_continued_run_notices_other_attempts(make_run, star, tmp_path):
    run = make_run(method="star", rounds=1)
    other = train(make_run(method="star", rounds=1, max_new_tokens=5), tmp_path / "other")
    output = train(run, tmp_path / "run", star)
    with pytest.raises(UserError, match="attempts_from"):
        train(run, output, other)
    with pytest.raises(UserError, match="attempts_from"):
        train(run, output)
    train(run, output, star)


def test_star_has_nothing_to_learn_from_self_evaluation_alone(make_run):
    with pytest.raises(UserError, match="use epicar"):
        make_run(method="star", schedule="eval_only")
    with pytest.raises(UserError, match="schedule=eval_only never has both"):
        make_run(schedule="eval_only", alpha=0.5)

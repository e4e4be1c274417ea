"""Whole runs, all phases in this process."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.self_evaluation.confidence import read_temperature
from lm_eval_ext.training.self_training import attempts, job
from lm_eval_ext.training.self_training.folders import Stage, read_attempts, read_lines
from lm_eval_ext.training.self_training.job import self_train
from lm_eval_ext.training.self_training.models import load_generator
from lm_eval_ext.training.self_training.phase import run_phase
from lm_eval_ext.training.self_training.problems import (
    is_held_out,
    load_training_problems,
    read_problems,
)
from lm_eval_ext.training.self_training.rows import read_rows
from lm_eval_ext.training.self_training.settings import SelfTrainingRuntime

FEW = SelfTrainingRuntime(attempts_per_save=20, checkpoint_steps=3)


def train(run, output, **named):
    self_train(run, output, runtime=FEW, launch=run_phase, **named)


@pytest.fixture(scope="module")
def whole(make_run, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "epicar"
    train(make_run(), output)
    return output


def labelled(stage):
    return list(read_lines(stage.folder / "labelled.jsonl"))


@pytest.mark.parametrize("number", [1, 2])
def test_every_attempt_is_judged_and_correct_ones_are_learned(whole, number):
    stage = Stage(whole, number)
    problems = list(read_problems(whole, held_out=False))
    lines, rows = labelled(stage), read_rows(stage)
    judged = [row for row in rows if row.kind == "eval"]
    assert len(judged) == 4 * len(problems) == len(lines)
    correct = {(line["problem"], line["attempt"]) for line in lines if line["correct"]}
    assert 0 < len(correct) < len(lines)
    yes = max(row.input_ids[-1] for row in judged), min(row.input_ids[-1] for row in judged)
    assert yes[0] != yes[1]
    said_yes = {(r.problem, r.attempt) for r in judged if r.input_ids[-1] == _label(whole, " A")}
    assert said_yes == correct
    learned = {(r.problem, r.attempt) for r in rows if r.kind == "reason"}
    texts = {(line["problem"], line["text"]) for line in lines if line["correct"]}
    assert learned <= correct
    assert len(learned) == len(texts)


def _label(output, text):
    from transformers import AutoTokenizer

    (token,) = AutoTokenizer.from_pretrained(output / "model")(text, add_special_tokens=False)[
        "input_ids"
    ]
    return token


def test_held_out_problems_are_answered_last_and_never_learned(whole):
    held_out = {p.number for p in read_problems(whole, held_out=True)}
    assert 0 < len(held_out) < 16
    assert all(is_held_out(p.prompt, 0.3) for p in read_problems(whole, held_out=True))
    for number in (1, 2):
        assert not held_out & {row.problem for row in read_rows(Stage(whole, number))}
    answered = labelled(Stage(whole, 3, held_out=True))
    assert {line["problem"] for line in answered} == held_out
    assert all(0 < line["probabilities"]["self_eval"] < 1 for line in answered)


def test_temperature_and_tau_are_beside_the_model(whole):
    config = AutoModelForCausalLM.from_pretrained(whole / "model").config
    assert config.num_hidden_layers == 1
    assert config.use_cache  # as in the base model, though the trainer turns it off
    found = json.loads((whole / "temperature.json").read_text())
    assert read_temperature(whole).value == found["temperature"]
    assert found["n_attempts"] == len(labelled(Stage(whole, 3, held_out=True)))
    assert found["self_evaluation"]["labels"] == [" A", " B"]
    assert json.loads((whole / "tau.json").read_text())["k"] == 4


def test_manifest_counts(whole):
    manifest = json.loads((whole / "training.json").read_text())
    assert manifest["settings"]["attempts"] == 4
    for number, counts in enumerate(manifest["rounds"], 1):
        lines = labelled(Stage(whole, number))
        assert counts["sampled"] == counts["eval"] == len(lines)
        assert counts["correct"] == counts["yes"] == sum(line["correct"] for line in lines)
        assert counts["reason"] + counts["dropped"] == counts["correct"]
        assert counts["invalid"] == sum(line["answer"] is None for line in lines)
        assert counts["truncated"] == sum(line["finish_reason"] == "length" for line in lines)
        assert counts["steps"] == -(-(counts["reason"] + counts["eval"]) // 4)
    assert "trl" in manifest["versions"]


def logits_of(model):
    with torch.no_grad():
        return model(torch.tensor([[5, 6, 7, 8]])).logits


def test_a_round_answers_with_the_model_of_the_one_before(make_run, whole):
    run = make_run()
    models = {
        number: load_generator(run, Stage(whole, number), FEW, completes_boxes=False).model
        for number in (1, 2)
    }
    trained = AutoModelForCausalLM.from_pretrained(whole / "round-1" / "model")
    assert torch.equal(logits_of(models[2]), logits_of(trained))
    assert not torch.equal(logits_of(models[1]), logits_of(trained))


def test_rounds_draw_from_other_random_streams(make_run, whole, tmp_path):
    first = labelled(Stage(whole, 1))
    train_generation(make_run(init_from="previous"), tmp_path, number=2, like=whole)
    second = list(read_attempts(Stage(tmp_path, 2)))
    same = [a["text"] == b["text"] for a, b in zip(first, second, strict=True)]
    assert sum(same) < len(same) / 2


def train_generation(run, output, *, number, like):
    """Let a stage answer with the base model, in a folder of its own."""
    (output / "round-1").mkdir()
    (output / "round-1" / "model").symlink_to(run.pretrained)
    (output / "problems.jsonl").symlink_to(like / "problems.jsonl")
    attempts.generate(run, Stage(output, number), FEW)


def test_finished_run_does_nothing(make_run, whole, capsys):
    before = {p: p.stat().st_mtime_ns for p in whole.rglob("*") if p.name != "training.json"}

    def refuse(phase, stage, runtime):
        raise AssertionError(phase)

    self_train(make_run(), whole, runtime=FEW, launch=refuse)
    after = {p: p.stat().st_mtime_ns for p in before}
    assert {p: t for p, t in after.items() if p.name != ".lock" and not p.is_dir()} == {
        p: t for p, t in before.items() if p.name != ".lock" and not p.is_dir()
    }
    assert len(capsys.readouterr().out.splitlines()) == 4  # header, two rounds, the model


def test_star_is_the_loop_without_self_evaluation(make_run, whole, tmp_path):
    train(make_run(method="star", rounds=1), tmp_path)
    ours, theirs = Stage(tmp_path, 1), Stage(whole, 1)
    name = "attempts-0.jsonl"
    assert (ours.folder / name).read_bytes() == (theirs.folder / name).read_bytes()
    assert read_rows(ours) == [row for row in read_rows(theirs) if row.kind == "reason"]
    assert read_temperature(tmp_path).value > 0


@pytest.mark.parametrize(
    "change", [{"attempts": 5}, {"alpha": 0.5}, {"seed": 1}, {"held_out_share": 0.4}], ids=str
)
def test_changed_settings_are_refused(make_run, whole, change):
    (name,) = change
    with pytest.raises(UserError, match=f"holds a run with {name}="):
        train(make_run(**change), whole)


def test_changed_problems_are_refused(make_run, whole, tmp_path, problems_file):
    text = problems_file.read_text()
    problems_file.write_text(text.replace("#### 5", "#### 6"))
    try:
        with pytest.raises(UserError, match="problems_sha256"):
            train(make_run(), whole)
    finally:
        problems_file.write_text(text)


def test_code_needs_consent(make_run, tmp_path):
    run = make_run(problems="tiny_mbpp:train", grader=None, num_problems=4, held_out_share=0)
    with pytest.raises(UserError, match="add --confirm-run-unsafe-code"):
        train(run, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_test_split_is_refused(make_run, tmp_path):
    run = make_run(problems="tiny_math:train+tiny_gsm8k:test", grader=None, num_problems=40)
    with pytest.raises(UserError, match="must not be trained on it: use tiny_gsm8k:train"):
        train(run, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_question_asked_twice_is_on_one_side(make_run, tmp_path):
    path = tmp_path / "problems.jsonl"
    records = [
        {"prompt": f"{start} What is {i} + 1?", "question": f"What is {i} + 1?", "answer": "2"}
        for start in ("Q:", "Please answer.")
        for i in range(40)
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    problems = load_training_problems(make_run(problems=str(path)))
    first, second = ([p.held_out for p in half] for half in (problems[:40], problems[40:]))
    assert first == second == [is_held_out(p.prompt, 0.3) for p in problems[:40]]
    assert second != [is_held_out(p.prompt, 0.3) for p in problems[40:]]


@pytest.mark.parametrize("name", ["seed", "pretrained", "self_eval_labels"])
def test_generator_takes_nothing_that_the_run_decides(make_run, tmp_path, name):
    run = make_run(generator_args=f"dtype=float32,{name}=5")
    with pytest.raises(UserError, match=f"{name} is set by the run itself"):
        load_generator(run, Stage(tmp_path, 1), FEW, completes_boxes=False)


def test_labels_that_do_not_fit_are_found_before_sampling(make_run, tmp_path, monkeypatch):
    monkeypatch.setattr(attempts.harness, "complete", None)
    with pytest.raises(UserError, match="self_eval_labels: ' certainly' is"):
        train(make_run(self_eval_labels=(" A", " certainly")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"generator": "sampeld"}, "generator=sampeld is not a model type"),
        ({"generator_args": "seed=3"}, "seed is set by the run itself"),
        ({"pretrained": "/no/where"}, "pretrained=/no/where: "),
    ],
    ids=str,
)
def test_typo_does_not_lock_the_folder(make_run, tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        train(make_run(**change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("rank", "package"), [(0, "trl"), (2, "peft")])
def test_missing_package_is_found_before_sampling(make_run, tmp_path, monkeypatch, rank, package):
    plain = job.find_spec
    monkeypatch.setattr(job, "find_spec", lambda name: None if name == package else plain(name))
    with pytest.raises(UserError, match=f"'{package}', which is not installed"):
        train(make_run(lora_rank=rank), tmp_path)


def test_second_command_is_kept_out(make_run, tmp_path):
    def nested(phase, stage, runtime):
        with pytest.raises(UserError, match="another command is at work"):
            train(make_run(), stage.output)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        self_train(make_run(), tmp_path, runtime=FEW, launch=nested)


def test_finished_attempts_are_not_made_again(make_run, tmp_path, monkeypatch):
    asked = []
    complete = attempts.harness.complete

    def counting(lm, prompts, **settings):
        asked.append(len(prompts))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return complete(lm, prompts, **settings)

    monkeypatch.setattr(attempts.harness, "complete", counting)
    with pytest.raises(KeyboardInterrupt):
        train(make_run(rounds=1, held_out_share=0), tmp_path)
    train(make_run(rounds=1, held_out_share=0), tmp_path)
    assert asked == [20, 20, 20, 20, 4]  # 64 attempts, the second batch twice


def test_nothing_to_learn_is_said(make_run, tmp_path, monkeypatch):
    from lm_eval_ext.grading import grade_questions

    monkeypatch.setattr(
        "lm_eval_ext.training.self_training.labels.grade_questions", grade_questions
    )
    with pytest.raises(UserError, match="none of 64 attempts is correct"):
        train(make_run(method="star", held_out_share=0), tmp_path)


def test_adapters_answer_in_the_next_round(make_run, tmp_path):
    run = make_run(lora_rank=2, alpha=0.5, learning_rate=0.1, held_out_share=0)
    train(run, tmp_path)
    assert (tmp_path / "adapter" / "adapter_config.json").exists()
    assert not (tmp_path / "model").exists()
    base = AutoModelForCausalLM.from_pretrained(run.pretrained)
    before = logits_of(base)
    adapted = logits_of(PeftModel.from_pretrained(base, tmp_path / "round-1" / "adapter"))
    answering = load_generator(run, Stage(tmp_path, 2), FEW, completes_boxes=False).model
    torch.testing.assert_close(logits_of(answering), adapted)
    assert (adapted - before).abs().max() > 0.01


def test_adapters_are_trained_and_merged(make_run, tmp_path):
    run = make_run(lora_rank=2, merge=True, init_from="previous", held_out_share=0)
    train(run, tmp_path)
    base = AutoModelForCausalLM.from_pretrained(run.pretrained)
    adapted = PeftModel.from_pretrained(base, tmp_path / "adapter").merge_and_unload()
    merged = load_file(tmp_path / "model" / "model.safetensors")
    for name, weight in adapted.state_dict().items():
        if name in merged:
            assert (weight - merged[name]).abs().max() < 1e-6
    first, second = (
        load_file(tmp_path / f"round-{n}" / "adapter" / "adapter_model.safetensors") for n in (1, 2)
    )
    assert any("down_proj" in name for name in first)
    assert any((first[name] != second[name]).any() for name in first)


def test_training_moves_self_eval_to_the_share_of_correct_attempts(make_run, tmp_path):
    from lm_eval_ext.model_wrappers.epicar import EpiCaRLM

    labels = [" B", " A"]  # the untrained model says yes to most
    run = make_run(rounds=1, alpha=0.3, steps=60, self_eval_labels=tuple(labels))
    train(run, tmp_path)
    share = json.loads((tmp_path / "training.json").read_text())["rounds"][0]
    share = share["correct"] / share["sampled"]

    def mean_confidence(folder):
        lm = EpiCaRLM(str(folder), seed=3, self_eval_labels=labels)
        prompts = [p.prompt for p in read_problems(tmp_path, held_out=True) for _ in range(4)]
        found = attempts.harness.complete(
            lm, prompts, do_sample=True, temperature=1.0, max_gen_toks=8
        )
        return sum(g.record.probabilities["self_eval"] for g in found) / len(found)

    before, after = mean_confidence(run.pretrained), mean_confidence(tmp_path / "model")
    assert abs(after - share) < 0.15
    assert abs(before - share) > 0.4

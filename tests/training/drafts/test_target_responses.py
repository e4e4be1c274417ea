import json

import pytest

from lm_eval_ext.errors import UserError
from lm_eval_ext.model_wrappers.sampled import SampledLM
from lm_eval_ext.training.drafts import target_responses
from lm_eval_ext.training.drafts.settings import ResponseSettings
from lm_eval_ext.training.drafts.shards import prompt_hash
from lm_eval_ext.training.drafts.target_responses import (
    drop_unfinished_line,
    examples_of,
    generate_responses,
    read_responses,
)
from lm_eval_ext.training.prompts import load_problems

PROMPTS = [problem.prompt for problem in load_problems("tiny_gsm8k:train", limit=10)]
SETTINGS = ResponseSettings(
    responses_per_prompt=2, temperature=1.0, max_new_tokens=40, stop=("Question:",)
)


@pytest.fixture(scope="module")
def lm():
    return SampledLM("tiny", seed=5, batch_size=32, device="cpu")


@pytest.fixture(scope="module")
def whole(lm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    generate_responses(lm, PROMPTS, SETTINGS, folder=folder)
    return folder


def test_every_prompt_gets_its_attempts(whole):
    found = read_responses(whole)
    assert set(found) == {(prompt_hash(p), i) for p in PROMPTS for i in range(2)}
    assert len({tuple(line["token_ids"]) for line in found.values()}) >= 10
    assert any(line["finish_reason"] == "eos" for line in found.values())


def test_killed_generation_continues_where_it_was(lm, whole, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(target_responses, "_CHUNK", 4)
    complete = target_responses.harness.complete
    asked = []

    def dying(lm, prompts, **kwargs):
        asked.append(len(prompts))
        if len(asked) == 4:
            raise KeyboardInterrupt
        return complete(lm, prompts, **kwargs)

    monkeypatch.setattr(target_responses.harness, "complete", dying)
    with pytest.raises(KeyboardInterrupt):
        generate_responses(lm, PROMPTS, SETTINGS, folder=tmp_path)
    path = tmp_path / "responses-0.jsonl"
    before = path.read_bytes()
    assert before.count(b"\n") == 12
    path.write_bytes(before[:-30])  # a kill in the middle of a line

    monkeypatch.setattr(target_responses, "_CHUNK", 256)
    asked.clear()
    monkeypatch.setattr(
        target_responses.harness,
        "complete",
        lambda *a, **k: asked.append(a[1]) or complete(*a, **k),
    )
    generate_responses(lm, PROMPTS, SETTINGS, folder=tmp_path)
    assert "the last line was cut off" in caplog.text
    # Both attempts of the damaged prompt are drawn again; only the missing one is written.
    assert sorted(set(asked[0])) == sorted(PROMPTS[5:])
    assert path.read_bytes().count(b"\n") == 20
    assert path.read_bytes().startswith(before[: before[:-30].rfind(b"\n") + 1])
    assert read_responses(tmp_path) == read_responses(whole)
    generate_responses(lm, PROMPTS, SETTINGS, folder=tmp_path)
    assert len(asked) == 1


def test_processes_share_the_prompts(lm, whole, tmp_path):
    for rank in (0, 1):
        generate_responses(lm, PROMPTS, SETTINGS, folder=tmp_path, rank=rank, world_size=2)
    counts = [(tmp_path / f"responses-{rank}.jsonl").read_text().count("\n") for rank in (0, 1)]
    assert counts == [10, 10]
    assert read_responses(tmp_path) == read_responses(whole)


def test_examples_hold_what_the_target_read_and_wrote(lm, whole):
    found = read_responses(whole)
    examples = examples_of(lm, PROMPTS, found, 2)
    assert [len(part) for part in examples] == [2] * 10
    for prompt, part in zip(PROMPTS, examples, strict=True):
        for attempt, example in enumerate(part):
            assert list(example.prompt_ids) == lm.tokenizer(prompt)["input_ids"]
            line = found[prompt_hash(prompt), attempt]
            assert list(example.response_ids) == line["token_ids"]
            if line["finish_reason"] == "eos":
                assert example.response_ids[-1] == lm.tokenizer.eos_token_id
                assert lm.tokenizer.eos_token_id not in example.response_ids[:-1]


def test_unfinished_line_is_cut_off(tmp_path):
    path = tmp_path / "responses-0.jsonl"
    assert not drop_unfinished_line(path)
    path.write_text('{"a": 1}\n{"b"')
    assert drop_unfinished_line(path)
    assert path.read_text() == '{"a": 1}\n'
    assert not drop_unfinished_line(path)


def test_damaged_line_is_named(tmp_path):
    path = tmp_path / "responses-0.jsonl"
    good = {"prompt": "x", "attempt": 0, "token_ids": [1], "n_prompt_tokens": 2}
    path.write_text(json.dumps(good) + "\n{not json}\n")
    with pytest.raises(UserError, match="line 2 is not a response"):
        read_responses(tmp_path)
    path.write_text(json.dumps(good) + "\n[]\n")
    with pytest.raises(UserError, match="line 2"):
        read_responses(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"responses_per_prompt": 0}, "responses_per_prompt=0"),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"temperature": 0, "responses_per_prompt": 2}, "2 equal responses"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(UserError, match=message):
        ResponseSettings(**settings)

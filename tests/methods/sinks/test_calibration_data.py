"""Calibration data: what each source gives, and what is on record about it."""

import json

import pytest

from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.sinks.calibration_data import calibration_set, default_source
from lm_eval_ext.model_wrappers.sampled import SampledLM

TEXT = "The tower is 30 meters high.\nIt was built in 1889, and it has 3 floors.\n" * 20


@pytest.fixture(scope="module")
def lm(random_model, tiny_tokenizer):
    return SampledLM(random_model("llama"), tokenizer=tiny_tokenizer, max_length=512)


def test_text_becomes_segments_that_each_begin_with_bos(lm, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    data = calibration_set(lm, str(path), size=5, length=40)
    whole = lm.tokenizer(TEXT)["input_ids"]
    assert [len(prompt) for prompt in data.prompts] == [40] * 5
    assert all(prompt[0] == lm.tokenizer.bos_token_id for prompt in data.prompts)
    assert [t for prompt in data.prompts for t in prompt[1:]] == whole[1 : 1 + 5 * 39]
    record = data.record
    assert record["source"] == str(path)
    assert (record["n_prompts"], record["n_tokens"]) == (5, 200)
    assert (record["token_0_id"], record["token_0_share"]) == (lm.tokenizer.bos_token_id, 1.0)
    assert record["add_bos_token"] is None
    assert json.loads(json.dumps(record)) == record


def test_without_bos_the_first_token_is_the_texts(random_model, tiny_tokenizer, tmp_path):
    import copy

    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer._tokenizer.post_processor = None
    lm = SampledLM(random_model("llama"), tokenizer=tokenizer)
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    data = calibration_set(lm, str(path), size=4, length=30)
    whole = tokenizer(TEXT)["input_ids"]
    assert tokenizer.bos_token_id not in whole
    assert [t for prompt in data.prompts for t in prompt] == whole[:120]
    assert data.record["token_0_share"] < 1


def test_the_hash_is_of_the_tokens(lm, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    one = calibration_set(lm, str(path), size=5, length=40).record["sha256"]
    assert calibration_set(lm, str(path), size=5, length=40).record["sha256"] == one
    assert calibration_set(lm, str(path), size=4, length=40).record["sha256"] != one
    path.write_text(TEXT.replace("30", "31"))
    assert calibration_set(lm, str(path), size=5, length=40).record["sha256"] != one


def test_json_lines_are_strings_or_records(lm, tmp_path):
    path = tmp_path / "texts.jsonl"
    lines = ["A tower stands here.", {"text": "A bridge."}, {"id": 3, "question": "How many?"}]
    path.write_text("\n".join(map(json.dumps, lines)))
    (segment,) = calibration_set(lm, str(path), size=5, length=60).prompts
    text = lm.tokenizer.decode(segment, skip_special_tokens=True)
    assert text == "A tower stands here.A bridge.How many?"
    path.write_text('"fine"\n{"other": 1}\n')
    with pytest.raises(UserError, match="line 2 is not"):
        calibration_set(lm, str(path), size=5)


def test_tiny_problems_come_from_the_split_that_is_named(lm):
    sets = {
        split: set(calibration_set(lm, f"tiny{split}", size=9).prompts)
        for split in ("", ":validation", ":test")
    }
    assert sets[""] == sets[":validation"]
    assert len(sets[""]) == 9
    assert not sets[""] & sets[":test"]
    decoded = [lm.tokenizer.decode(ids, skip_special_tokens=True) for ids in sets[""]]
    assert sum(text.startswith("Question:") and "####" in text for text in decoded) == 3
    with pytest.raises(UserError, match="'dev' is not one of"):
        calibration_set(lm, "tiny:dev", size=9)


def test_tasks_give_their_prompts_evenly_and_once(lm, monkeypatch):
    from lm_eval.tasks import TaskManager

    manager = TaskManager()  # reads thousands of files
    monkeypatch.setattr("lm_eval.tasks.TaskManager", lambda: manager)
    prompts = calibration_set(lm, "tiny_gsm8k_passn+tiny_math_calib", size=6).prompts
    texts = [lm.tokenizer.decode(ids, skip_special_tokens=True) for ids in prompts]
    assert len(set(texts)) == 6
    assert sum(text.endswith("Answer:") for text in texts) == 3
    assert sum(text.endswith("Solution:") for text in texts) == 3
    with pytest.raises(UserError, match="calibration=gsm9k is neither"):
        calibration_set(lm, "gsm9k", size=6)


def test_a_data_set_of_the_hub_is_streamed(lm, monkeypatch):
    asked = []

    def load_dataset(*args, **options):
        asked.append((args, options))
        return ({"text": TEXT} for _ in range(10**9))

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    data = calibration_set(lm, default_source("some/model"), size=100, length=50)
    assert len(data.prompts) == 100
    assert asked == [
        (
            ("Salesforce/wikitext", "wikitext-2-raw-v1"),
            {"split": "train", "streaming": True},
        )
    ]
    calibration_set(lm, "some/set", size=1, length=50)
    assert asked[1] == (("some/set", None), {"split": "train", "streaming": True})

    def no_network(*args, **options):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("datasets.load_dataset", no_network)
    with pytest.raises(UserError, match="no route.*give a local") as error:
        calibration_set(lm, "some/set", size=1)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "options", "line"),
    [
        ("missing.txt", {}, "missing.txt is not there"),
        ("tiny", {"size": 0}, "calibration_size=0"),
        ("x.txt", {"length": 1}, "length=1"),
    ],
)
def test_bad_input_is_one_line(lm, source, options, line):
    with pytest.raises(UserError, match=line):
        calibration_set(lm, source, **{"size": 3, **options})


def test_an_empty_file_is_refused(lm, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(UserError, match="holds no text"):
        calibration_set(lm, str(tmp_path / "empty.txt"), size=3)

import hashlib
import json

import pytest

from lm_eval_ext.data.tiny import formats, problems
from lm_eval_ext.data.tiny.problems import SPLITS, iter_problems, load_split, problem_key, split_of

FIELDS = {
    "gsm8k": {"question", "answer"},
    "math": {"problem", "solution", "answer", "level", "type", "unique_id"},
    "mbpp": {
        "task_id",
        "text",
        "code",
        "test_setup_code",
        "test_list",
        "challenge_test_list",
    },
}
BUILDERS = {
    "gsm8k": problems.gsm8k_dataset,
    "math": problems.math_dataset,
    "mbpp": problems.mbpp_dataset,
}
FINGERPRINTS = {"gsm8k": "34fb5eff758ee67d", "math": "c478119e1df575de", "mbpp": "c448f27742fcdb78"}
families = pytest.mark.parametrize("family", formats.FAMILIES)


@families
def test_splits_are_disjoint_for_different_seeds_too(family):
    keys = {
        split: {problem_key(family, r) for r in load_split(family, split, 500, seed)}
        for seed, split in enumerate(SPLITS)
    }
    prompts = {
        split: {formats.prompt(family, r) for r in load_split(family, split, 500, seed)}
        for seed, split in enumerate(SPLITS)
    }
    for found in (keys, prompts):
        assert not found["train"] & found["validation"]
        assert not found["train"] & found["test"]
        assert not found["validation"] & found["test"]


@families
def test_split_is_read_off_the_problem(family):
    for split in SPLITS:
        for record in load_split(family, split, 50, seed=9):
            assert split_of(problem_key(family, record)) == split


def test_split_shares():
    found = [split_of(str(n)) for n in range(5000)]
    assert abs(found.count("test") / 5000 - 0.1) < 0.02
    assert abs(found.count("validation") / 5000 - 0.1) < 0.02


@families
@pytest.mark.parametrize("split", ["validation", "test"])
def test_evaluation_sets_are_large_and_without_repeats(family, split):
    records = load_split(family, split)
    assert len(records) >= (1000 if family == "gsm8k" else 500)
    assert len({problem_key(family, r) for r in records}) == len(records)


@families
def test_records_have_the_published_fields_and_unique_ids(family):
    records = [r for split in SPLITS for r in load_split(family, split, 40)]
    assert all(set(record) == FIELDS[family] for record in records)
    for identifier in {"task_id", "unique_id"} & FIELDS[family]:
        assert len({record[identifier] for record in records}) == len(records)


@families
def test_deterministic_and_larger_sizes_only_append(family):
    short, long = load_split(family, "test", 20), load_split(family, "test", 60)
    assert short == long[:20]
    assert load_split(family, "test", 20, seed=5) != short


@families
def test_test_split_does_not_drift(family):
    """Published numbers refer to these very problems: a change here needs a new task version."""
    text = json.dumps(load_split(family, "test"), sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == FINGERPRINTS[family]


@families
def test_train_stream_goes_on(family):
    stream = iter_problems(family, "train")
    assert sum(1 for _, record in zip(range(3000), stream, strict=False) if record) == 3000


@families
def test_dataset_builder_ignores_foreign_metadata(family):
    builder = BUILDERS[family]
    dataset = builder(version=1.0, attempts=8, ks=[1, 8], pretrained="tiny")
    assert list(dataset) == list(SPLITS)
    for split in SPLITS:
        assert dataset[split].to_list() == load_split(family, split)
    assert builder(problem_seed=3)["test"][0] == load_split(family, "test", 1, seed=3)[0]


def test_exhausted_split_says_so(monkeypatch):
    monkeypatch.setattr(problems, "_MAX_MISSES", 200)
    monkeypatch.setattr(problems, "math_problem", lambda *_: {"problem": "same", "type": "A"})
    with pytest.raises(ValueError, match=r"has only . problems"):
        load_split("math", split_of("same") if split_of("same") != "train" else "test", 5)


def test_bad_names_are_refused():
    with pytest.raises(ValueError, match=r"family='aime'.*gsm8k, math, mbpp"):
        load_split("aime", "test", 1)
    with pytest.raises(ValueError, match=r"split='dev'.*train, validation, test"):
        load_split("gsm8k", "dev", 1)


@families
def test_jinja_templates_match_the_functions(family):
    import jinja2

    for record in load_split(family, "test", 5):
        rendered = jinja2.Template(formats.DOC_TO_TEXT[family], keep_trailing_newline=True)
        assert rendered.render(**record) == formats.prompt(family, record)
        rendered = jinja2.Template(formats.DOC_TO_TARGET[family], keep_trailing_newline=True)
        assert rendered.render(**record) == formats.target(family, record)

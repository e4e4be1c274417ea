"""The split of MAWPS: computed again, and without a leak however words are masked."""

import json
import re
from collections import Counter

import pytest

from lm_eval_ext.data.datasets import load_split, read_json_lines
from lm_eval_ext.data.exemplars import ONE_STEP
from lm_eval_ext.data.word_problems import SPLIT_FILE
from mawps_split import compute, groups, halves, masked_words, names, similar_pairs

NEAR_DUPLICATE = 0.8


def test_pairs_are_those_of_the_definition():
    sets = [frozenset(text) for text in ("abcd", "abcde", "abxy", "abcd", "z", "abc")]
    for threshold in (0.5, 0.75, 0.8, 1.0):
        expected = {
            (i, j)
            for i, one in enumerate(sets)
            for j, other in enumerate(sets)
            if len(one & other) / len(one | other) >= threshold
        }
        assert set(similar_pairs(sets, sets, threshold)) == expected


def test_names_are_the_words_that_are_large_inside_sentences():
    texts = [
        "Yesterday Ann met Mark. Then Ann left Paris.",
        "The mark was low. He got a mark of 3.",
    ]
    assert names(texts) == {"Ann", "Paris"}


def test_a_chain_of_near_duplicates_is_one_group():
    texts = ["a b c d e f g h i", "a b c d e f g h j", "a b c d e f g k j", "l m n o p"]
    assert sorted(groups(texts, frozenset()), key=len) == [[3], [0, 1, 2]]


def test_each_subset_is_halved():
    problems = [
        {"subset": "one" if i < 40 else "two", "question": f"{chr(97 + i % 26) * (i + 1)} ?"}
        for i in range(60)
    ]
    sides = halves(problems, frozenset())
    assert sorted(sides["train"] + sides["test"]) == list(range(60))
    for side in sides.values():
        assert Counter(problems[i]["subset"] for i in side) == {"one": 20, "two": 10}


@pytest.fixture(scope="module")
def records(published_data):
    return [read_json_lines(published_data / f"{name}.jsonl") for name in ("mawps", "svamp")]


def test_the_kept_hashes_are_those_of_the_recipe(records):
    assert json.loads(SPLIT_FILE.read_text(encoding="utf-8")) == compute(*records)


def test_no_problem_is_lost_and_none_is_on_both_sides(records):
    kept = {name: set(hashes) for name, hashes in json.loads(SPLIT_FILE.read_text()).items()}
    assert not kept["train"] & kept["test"]
    assert len(kept["train"] | kept["test"]) == 1272


def all_words(text):
    return frozenset(re.findall(r"[a-z]+|0", re.sub(r"[0-9][0-9.,]*", "0", text.lower())))


def large_words_masked(text):
    text = re.sub(r"[0-9][0-9.,]*", "0", text)
    return frozenset(re.findall(r"[a-z]+|N|0|[.,?$]", re.sub(r"[A-Z][A-Za-z]*", "N", text)))


@pytest.fixture(scope="module", params=["names", "all words", "large words"])
def mask(request, records):
    """Return a way to mask a text, none of them exactly one of the split's."""
    if request.param == "names":
        known = names([row["question"] for row in records[0]])
        return lambda text: masked_words(text, known)
    return all_words if request.param == "all words" else large_words_masked


def words_of(name, side, mask, folder):
    return [mask(doc["question"]) for doc in load_split(name, side, data_folder=str(folder))]


@pytest.mark.parametrize("name", ["mawps", "mawps_singleop"])
def test_no_masked_text_and_no_near_duplicate_is_on_both_sides(published_data, mask, name):
    train = words_of("mawps", "train", mask, published_data)
    test = words_of(name, "test", mask, published_data)
    assert not set(train) & set(test)
    assert not list(similar_pairs(test, train, NEAR_DUPLICATE))


def test_an_untwinned_question_of_svamp_has_no_near_duplicate_in_mawps(published_data, mask):
    mawps = [w for s in ("train", "test") for w in words_of("mawps", s, mask, published_data)]
    untwinned = words_of("svamp_untwinned", "test", mask, published_data)
    assert not list(similar_pairs(untwinned, mawps, NEAR_DUPLICATE))
    assert list(similar_pairs(words_of("svamp", "test", mask, published_data), mawps, 0.8))


def test_the_shots_are_no_near_duplicates_of_questions(published_data, mask):
    shots = [mask(question) for question, _, _ in ONE_STEP]
    for name, side in (("mawps", "train"), ("mawps", "test"), ("svamp", "test")):
        assert not list(similar_pairs(shots, words_of(name, side, mask, published_data), 0.6))

"""Generated functions satisfy their asserts, and the asserts can tell functions apart."""

import itertools
import random
import re

import pytest

from lm_eval_ext.data.tiny.code_problems import LEVELS, code_problem


def passes(code: str, tests: list[str]) -> bool:
    scope: dict = {}
    exec(code, scope)
    try:
        for test in tests:
            exec(test, scope)
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize("level", LEVELS)
def test_code_passes_its_three_different_asserts(level):
    rng = random.Random(level)
    for _ in range(200):
        record = code_problem(rng, level)
        assert len(set(record["test_list"])) == 3
        assert record["test_setup_code"] == ""
        assert record["challenge_test_list"] == []
        assert passes(record["code"], record["test_list"]), record


def test_asserts_reject_a_constant_function():
    rng = random.Random(0)
    for _ in range(200):
        record = code_problem(rng, rng.choice(LEVELS))
        head = record["code"].split("\n")[0]
        result = record["test_list"][0].split(" == ", 1)[1]
        assert not passes(f"{head}\n    return {result}", record["test_list"])


def test_asserts_usually_reject_another_function_of_the_same_name():
    rng = random.Random(3)
    records = [code_problem(rng, rng.choice(LEVELS)) for _ in range(300)]
    accepted = tried = 0
    for first, second in itertools.pairwise(records):
        same_head = first["code"].split("\n")[0] == second["code"].split("\n")[0]
        if same_head and first["code"] != second["code"]:
            tried += 1
            accepted += passes(first["code"], second["test_list"])
    assert tried >= 10
    assert accepted <= 0.2 * tried


def test_plain_descriptions_state_every_constant():
    rng = random.Random(5)
    for _ in range(300):
        record = code_problem(rng, 2)
        body = record["code"].split("return ")[1]
        body = re.sub(r"\[::-1\]|\[1:\]|\[:-1\]|%2==[01]|==0|max\(\[0\]\+", "", body)
        for constant in re.findall(r"\d+", body):
            assert re.search(rf"\b{constant}\b", record["text"]), record


def test_hard_descriptions_hide_one():
    rng = random.Random(6)
    records = [code_problem(rng, 5) for _ in range(300)]
    assert sum("fixed" in record["text"] for record in records) > 100


@pytest.mark.parametrize("level", [0, 6])
def test_out_of_range_is_refused(level):
    with pytest.raises(ValueError, match=f"level={level}"):
        code_problem(random.Random(0), level)

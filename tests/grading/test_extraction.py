"""Candidates for the answer of a completion, the last first."""

from hypothesis import given
from hypothesis import strategies as st

from lm_eval_ext.grading.extraction import (
    MAX_CANDIDATES,
    MAX_LENGTH,
    after_thinking,
    announced,
    boxed,
    hash_marked,
    headed,
)


def test_candidates_come_from_the_last_to_the_first():
    assert list(hash_marked("#### 1\n#### 2\n")) == [" 2", " 1"]
    assert list(boxed(r"\boxed{1} \fbox{2}")) == ["2", "1"]
    assert list(announced("The answer is 1. My answer: 2")) == ["2", "1. My answer: 2"]


def test_what_stands_below_a_heading_comes_out():
    assert list(hash_marked("####\n\n 1 \n2")) == ["1 "]
    assert list(headed("# Answer\n1\n**Final Answer**\n\n2\n3")) == ["2", "1"]
    assert list(headed("# Answer\n1\nThe answer is 2.\n")) == []
    assert list(headed("an answer\n1")) == []
    assert list(headed("# Answer")) == []
    assert list(headed("# Answer\n")) == [""]


def test_braces_are_matched():
    assert list(boxed(r"\boxed{\frac{1}{\text{a\}b}}}")) == [r"\frac{1}{\text{a\}b}}"]
    assert list(boxed(r"\boxed{1 \boxed{2}}")) == ["2", r"1 \boxed{2}"]
    assert list(boxed(r"\boxed{1")) == []


@given(
    st.text(alphabet="abc {}\\", max_size=30).filter(lambda s: s.count("{") == s.count("}") == 0)
)
def test_what_is_boxed_comes_out(inside):
    # A backslash before the closing brace would escape it.
    assert list(boxed(f"so \\boxed{{{inside}}} it is")) == (
        [] if inside.endswith("\\") else [inside]
    )


def test_the_work_is_bounded():
    assert len(list(hash_marked("#### 1\n" * 1000))) == MAX_CANDIDATES
    assert len(list(boxed("\\boxed{1}" * 1000))) == MAX_CANDIDATES
    assert len(list(announced("The answer is 1.\n" * 1000))) == MAX_CANDIDATES
    assert len(list(headed("# Answer\n1\n" * 1000))) == MAX_CANDIDATES
    assert list(boxed("\\boxed{" + "1" * MAX_LENGTH + "}")) == []
    assert len(next(announced("The answer is " + "1" * 1000))) <= MAX_LENGTH


def test_only_what_follows_the_thinking_counts():
    assert after_thinking("no thinking") == "no thinking"
    assert after_thinking("<think>a</think>b</think>c") == "c"
    assert after_thinking("  <think>never closed") == ""
    assert after_thinking("mentions <think> in passing") == "mentions <think> in passing"

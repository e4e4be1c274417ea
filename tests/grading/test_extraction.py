"""Candidates for the answer of a completion, the last first."""

from lm_eval_ext.grading.extraction import (
    MAX_CANDIDATES,
    MAX_LENGTH,
    announced,
    hash_marked,
    headed,
    tagged,
)


def test_candidates_come_from_the_last_to_the_first():
    assert list(hash_marked("#### 1\n#### 2\n")) == [" 2", " 1"]
    assert list(announced("The answer is 1. My answer: 2")) == ["2", "1. My answer: 2"]


def test_what_stands_below_a_heading_comes_out():
    assert list(hash_marked("####\n\n 1 \n2")) == ["1 "]
    assert list(headed("# Answer\n1\n**Final Answer**\n\n2\n3")) == ["2", "1"]
    assert list(headed("# Answer\n1\nThe answer is 2.\n")) == []
    assert list(headed("an answer\n1")) == []
    assert list(headed("# Answer")) == []
    assert list(headed("# Answer\n")) == [""]


def test_what_stands_between_closed_tags_comes_out():
    text = "<answer>1</answer> <ANSWER>\n2\n</ANSWER> <final_answer>3</final_answer>"
    assert list(tagged(text)) == ["3", "2", "1"]
    assert list(tagged("<answer> </answer> <answer>1")) == []
    assert list(tagged("</answer>1<answer>")) == []
    assert list(tagged("<answer>1<answer>2</answer>")) == ["2"]


def test_the_sentence_before_a_hope_is_announced():
    text = "Two cases.\nThe largest $n$ is $34$. I hope it is correct."
    assert list(announced(text)) == ["The largest $n$ is $34$."]
    assert list(announced("The answer is 1. I hope it is correct.")) == ["1. I hope it is correct."]


def test_the_work_is_bounded():
    assert len(list(hash_marked("#### 1\n" * 1000))) == MAX_CANDIDATES
    assert len(list(announced("The answer is 1.\n" * 1000))) == MAX_CANDIDATES
    assert len(list(headed("# Answer\n1\n" * 1000))) == MAX_CANDIDATES
    assert len(list(tagged("<answer>1</answer>" * 1000))) == MAX_CANDIDATES
    assert list(tagged(f"<answer>{'1' * (MAX_LENGTH + 1)}</answer>")) == []
    assert len(next(announced("The answer is " + "1" * 1000))) <= MAX_LENGTH

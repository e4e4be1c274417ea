"""Rows hold the tokens that the wrapper feeds at test time."""

import random

import pytest

from lm_eval_ext.engine import attempt_texts
from lm_eval_ext.model_wrappers.epicar import EpiCaRLM
from lm_eval_ext.training.self_training.attempts import Batch, Limits, _answer, response_text
from lm_eval_ext.training.self_training.problems import TrainingProblem
from lm_eval_ext.training.self_training.rows import IGNORED, RowBuilder, balanced, reasoning_lines
from lm_eval_ext.training.self_training.settings import RowSettings

PROMPTS = [
    "Question: What is 3 + 4?\nAnswer:",
    "Problem: " + "Compute $2+3$. " * 12 + "\nSolution:",
]


def problem(number, prompt, completes_boxes):
    stop = ("e", "Question:")
    return TrainingProblem(number, prompt, {}, "gsm8k", stop, 12, completes_boxes, False)


@pytest.mark.parametrize("max_length", [256, 96])
@pytest.mark.parametrize("completes_boxes", [False, True])
def test_training_rows_are_what_the_wrapper_reads(
    model_folder, make_run, max_length, completes_boxes
):
    named = {"box_completion": True} if completes_boxes else {}
    lm = EpiCaRLM(str(model_folder), seed=1, max_length=max_length, **named)
    layout = lm._finisher.evaluation.layout
    read, plain = set(), layout.request

    def recording(asked, response_ids):
        request = plain(asked, response_ids)
        read.add(request.prompt_ids)
        return request

    layout.request = recording
    problems = [problem(i, prompt, completes_boxes) for i, prompt in enumerate(PROMPTS)]
    batch = Batch(Limits(completes_boxes, problems[0].stop, 12), problems)
    lines = list(_answer(lm, batch, make_run(attempts=6)))
    assert len(lines) == 12
    assert any(line["box_completed"] for line in lines) == completes_boxes
    prompts = {line["problem"]: line["prompt_ids"] for line in lines if "prompt_ids" in line}
    builder = RowBuilder(lm.tokenizer, RowSettings(), max_length=max_length)
    rows = [
        builder.judge({**line, "correct": i % 2 == 0}, prompts[line["problem"]])
        for i, line in enumerate(lines)
    ]
    assert {row.input_ids[:-1] for row in rows} == read
    assert any(row.was_cut for row in rows) == (max_length == 96)
    for i, row in enumerate(rows):
        assert row.input_ids[-1] == layout.label_ids[i % 2]
        assert row.labels == [IGNORED] * (len(row.input_ids) - 1) + [layout.label_ids[i % 2]]
        assert len(row.input_ids) <= max_length


@pytest.fixture
def builder(tiny_tokenizer):
    def make(max_length=512, **settings):
        return RowBuilder(tiny_tokenizer, RowSettings(**settings), max_length=max_length)

    return make


def attempt(text, *, correct=True, number=0, of=0, finish_reason="eos"):
    return {
        "problem": of, "attempt": number, "text": text, "correct": correct,
        "finish_reason": finish_reason,
    }  # fmt: skip


def test_solutions_end_where_the_attempt_ended(builder, tiny_tokenizer):
    prompt_ids = tiny_tokenizer("1 + 1 =")["input_ids"]
    row = builder().reason(attempt(" 2"), prompt_ids)
    two = tiny_tokenizer(" 2", add_special_tokens=False)["input_ids"]
    assert row.input_ids == (*prompt_ids, *two, tiny_tokenizer.eos_token_id)
    assert row.labels == [IGNORED] * len(prompt_ids) + [*two, tiny_tokenizer.eos_token_id]
    cut_off = builder().reason(attempt(" 2", finish_reason="length"), prompt_ids)
    assert cut_off.input_ids == (*prompt_ids, *two)


@pytest.mark.parametrize("max_length", [26, 30, 40, 80])
def test_cutting_from_the_left_keeps_the_label(builder, tiny_tokenizer, max_length):
    prompt_ids = list(range(5, 55))
    line = attempt(" 2 + 2 = 4", correct=False)
    whole, short = (builder(max_length=n).judge(line, prompt_ids) for n in (512, max_length))
    assert short.input_ids == whole.input_ids[-max_length:]
    assert short.labels[-1] == whole.labels[-1] == tiny_tokenizer(" B")["input_ids"][-1]
    assert short.was_cut == (len(whole.input_ids) > max_length)
    assert sum(label != IGNORED for label in short.labels) == 1
    solution = builder(max_length=max_length).reason(line, prompt_ids)
    uncut = builder().reason(line, prompt_ids)
    assert solution.input_ids == uncut.input_ids[-max_length:]
    assert solution.labels == uncut.labels[-max_length:]


def test_own_template_and_labels(builder, tiny_tokenizer):
    made = builder(self_eval_prompt="Right?", self_eval_labels=("1", "2"))
    row = made.judge(attempt(" 2"), [5, 6])
    assert tiny_tokenizer.decode(row.input_ids[2:]) == " 2\nRight?1"


def test_duplicates_are_dropped_among_solutions_of_a_problem():
    lines = [
        attempt("x", number=0), attempt("x", number=1), attempt("y", number=2),
        attempt("x", number=3, correct=False), attempt("x", of=1),
    ]  # fmt: skip
    kept = reasoning_lines(lines, dedup=True)
    assert [(line["problem"], line["attempt"]) for line in kept] == [(0, 0), (0, 2), (1, 0)]
    assert len(reasoning_lines(lines, dedup=False)) == 4


@pytest.mark.parametrize(("balance", "n"), [("none", 10), ("undersample", 6), ("oversample", 14)])
def test_balance(balance, n):
    lines = [attempt("x", number=i, correct=i < 3) for i in range(10)]
    kept = balanced(lines, balance, random.Random(0))
    assert len(kept) == n
    share = sum(line["correct"] for line in kept)
    assert share == (3 if balance == "none" else n // 2)
    assert all(line in lines for line in kept)
    assert balanced(lines[3:], balance, random.Random(0)) == lines[3:]


def test_thinking_is_part_of_the_response(model_folder):
    lm = EpiCaRLM(str(model_folder), think_end_token="</think>", seed=0)
    from lm_eval_ext.models.generation import Generation, GenerationRecord

    written = "so 4</think> It is 4."
    ids = tuple(lm.tokenizer(written, add_special_tokens=False)["input_ids"])
    visible = attempt_texts.visible_text(lm, ids, [])
    assert visible.strip() == "It is 4."
    generation = Generation(visible, GenerationRecord(token_ids=ids))
    assert response_text(lm, generation, [], None, completed=False) == written
    added = "\nThe final answer is \\boxed{4}"
    inside = tuple(lm.tokenizer("4}", add_special_tokens=False)["input_ids"])
    completed = Generation(visible + added, GenerationRecord(token_ids=ids + inside))
    assert response_text(lm, completed, [], None, completed=True) == written + added

"""Time the math grader against calling math-verify in a loop.

    python benchmarks/math_grader.py [--quick]

Both grade the same 16 attempts at each question. The peer is what a task's ``process_results``
does with math-verify: `parse` the reference answer and the whole completion, then `verify`, with
its default settings, once per attempt. Ours is `lm_eval_ext.grading.grade_many`, one question per
call, from as many threads as it has workers. Workers are started, and both sides are warmed up,
before the clock runs.

Half of the questions have integers for answers, the others fractions, roots, intervals, sets,
tuples, polynomials and matrices. The attempts at a question are a mixture of the reference answer,
other spellings of it, a few wrong answers that recur, and completions without an answer. With
``LM_EVAL_EXT_DATA`` set, the reference answers of MATH-500 are used instead; other spellings of
those are made by changing their typography.

Verdicts per second of both sides are printed, how many verdicts differ (the peer also takes numbers
that are announced nowhere), and a line with their ratio. `--quick` grades 40 questions instead of
400.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from lm_eval_ext.grading import grade_many
from lm_eval_ext.grading import math as math_grader

ATTEMPTS = 16


class Question(NamedTuple):
    """A reference answer and completions of a model."""

    gold: str
    completions: list[str]


def generated_answers(rng: random.Random) -> tuple[str, list[str], list[str]]:
    """Return a reference answer, other spellings of it, and wrong answers."""
    a, b, c = rng.randint(2, 9), rng.randint(11, 40), rng.choice([2, 3, 5, 7])
    kinds: list[tuple[str, list[str], list[str]]] = [
        (
            rf"\frac{{{a}}}{{{b}}}",
            [rf"\dfrac{{{a}}}{{{b}}}", f"{a}/{b}"],
            [rf"\frac{{{b}}}{{{a}}}"],
        ),
        (rf"{a}\sqrt{{{c}}}", [rf"\sqrt{{{a * a * c}}}"], [rf"{a + 1}\sqrt{{{c}}}", str(a * c)]),
        (f"({a},{b}]", [rf"\left({a}, {b}\right]"], [f"[{a},{b}]", f"({a},{b})"]),
        (rf"\{{{a},{b}\}}", [f"{b}, {a}"], [rf"\{{{a},{b + 1}\}}", f"{a}"]),
        (f"({a},{b},{c})", [rf"\left({a},\, {b},\, {c}\right)"], [f"({b},{a},{c})"]),
        (f"x^2+{a}x+{b}", [f"{b}+{a}x+x^2"], [f"x^2-{a}x+{b}", f"x^2+{b}x+{a}"]),
        (
            rf"\begin{{pmatrix}}{a}&{b}\\{c}&1\end{{pmatrix}}",
            [rf"\begin{{bmatrix}} {a} & {b} \\ {c} & 1 \end{{bmatrix}}"],
            [rf"\begin{{pmatrix}}{a}&{c}\\{b}&1\end{{pmatrix}}"],
        ),
        (rf"\frac{{{a}\pi}}{{{b}}}", [rf"\frac{{{a}}}{{{b}}}\pi"], [rf"\frac{{\pi}}{{{b}}}"]),
    ]
    if rng.random() < 0.5:
        number = rng.randint(2, 2000)
        return str(number), [f"{number}.0", rf"{number}\text{{ cm}}"], [str(number + a), str(b)]
    return rng.choice(kinds)


def spaced(answer: str) -> str:
    """Return an answer in other typography."""
    return answer.replace(r"\frac", r"\dfrac").replace(",", r",\,").replace("+", " + ")


def make_questions(n_questions: int, seed: int = 0) -> tuple[list[Question], str]:
    """Return questions with 16 completions each, and what they are made from."""
    rng = random.Random(seed)
    folder = os.environ.get("LM_EVAL_EXT_DATA")
    if folder:
        lines = (Path(folder) / "math500.jsonl").read_text(encoding="utf-8").splitlines()
        golds = [json.loads(line)["answer"] for line in lines]
        rng.shuffle(golds)
        answers = [(g, [spaced(g)], rng.sample(golds, 3)) for g in golds[:n_questions]]
    else:
        answers = [generated_answers(rng) for _ in range(n_questions)]
    questions = []
    for gold, others, wrong in answers:
        ability = rng.random()
        attempts = []
        for _ in range(ATTEMPTS):
            if rng.random() < 0.05:
                attempts.append("First we expand the square and then we run out of")
                continue
            right = rng.random() < ability
            answer = rng.choice([gold, gold, gold, *others]) if right else rng.choice(wrong)
            form = rng.choice([r"so it is $\boxed{%s}$.", "The final answer is $%s$."])
            attempts.append("We expand, compare and solve, step by step, " + form % answer)
        questions.append(Question(gold, attempts))
    return questions, "MATH-500 answers" if folder else "generated answers"


def ours(questions: list[Question]) -> list[list[bool]]:
    """Grade all questions in threads."""

    def grade_one(question: Question) -> list[bool]:
        attempts = grade_many("math", question.completions, {"answer": question.gold})
        return [attempt.correct for attempt in attempts]

    with ThreadPoolExecutor(math_grader.max_concurrency()) as executor:
        return list(executor.map(grade_one, questions))


def peers(questions: list[Question]) -> list[list[bool]]:
    """Grade all questions with one call of math-verify after the other."""
    from math_verify import parse, verify

    return [
        [bool(verify(parse(f"${q.gold}$"), parse(text))) for text in q.completions]
        for q in questions
    ]


def verdicts_per_second(
    grade: Callable[[list[Question]], list[list[bool]]], questions: list[Question], name: str
) -> tuple[float, list[list[bool]]]:
    """Return the speed of one side, and its verdicts."""
    grade(make_questions(8, seed=1)[0])
    start = time.perf_counter()
    verdicts = grade(questions)
    seconds = time.perf_counter() - start
    rate = len(questions) * ATTEMPTS / seconds
    print(f"{name}: {rate:,.0f} verdicts per second, {seconds:.2f} s")
    return rate, verdicts


def main() -> None:
    """Run both sides and end with their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the questions")
    logging.disable(logging.WARNING)
    questions, source = make_questions(40 if parser.parse_args().quick else 400)
    print(f"{len(questions)} questions x {ATTEMPTS} attempts, {source}")
    workers = math_grader.max_concurrency()
    fast, found = verdicts_per_second(ours, questions, f"grade_many, {workers} workers")
    slow, expected = verdicts_per_second(peers, questions, "math-verify in a loop")
    ours_flat, peers_flat = (list(chain.from_iterable(side)) for side in (found, expected))
    n_differ = sum(one != other for one, other in zip(ours_flat, peers_flat, strict=True))
    print(f"right: {sum(ours_flat)} of {len(ours_flat)}; verdicts that differ: {n_differ}")
    print(
        f"ratio: {fast / slow:.1f} (ours / peer, verdicts per second of the math grader and of "
        f"math-verify in a loop, n = {len(ours_flat)})"
    )


if __name__ == "__main__":
    main()

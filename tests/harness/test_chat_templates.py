"""The line before a run whose tasks and chat template do not fit."""

import logging
import sys
from types import SimpleNamespace

import pytest

from lm_eval_ext.harness.chat_templates import about_chat, with_chat_check


def model(template="{{ messages }}"):
    return SimpleNamespace(tokenizer=SimpleNamespace(chat_template=template), rank=0)


CHAT, PLAIN, THEIRS = (SimpleNamespace(chat=True), SimpleNamespace(chat=False), SimpleNamespace())
TASKS = {"tasks": {"gsm8k_passn_chat": CHAT, "gsm8k_passn": PLAIN, "gsm8k": THEIRS}}


@pytest.mark.parametrize(
    ("lm", "tasks", "is_applied", "told"),
    [
        (model(), TASKS, False, "gsm8k_passn_chat: written for a chat template"),
        (model(), TASKS, True, "gsm8k_passn: written for plain completion"),
        (model(), {"group": {"gsm8k_passn_chat": CHAT}}, False, "add --apply_chat_template"),
        (model(), {"tasks": {"gsm8k": THEIRS}}, False, None),
        (model(), {"tasks": {"gsm8k_passn": PLAIN}}, False, None),
        (model(), {"tasks": {"gsm8k_passn_chat": CHAT}}, True, None),
        (model(None), TASKS, False, None),
        (SimpleNamespace(), TASKS, False, None),
        (model(), None, False, None),
    ],
)
def test_what_is_said(lm, tasks, is_applied, told):
    line = about_chat(lm, tasks, is_applied)
    assert line is None if told is None else told in line


def test_it_is_said_once_and_first(caplog):
    evaluated = []
    evaluate = with_chat_check(lambda *a, **named: evaluated.append((caplog.messages[:], named)))
    with caplog.at_level(logging.WARNING):
        evaluate(lm=model(), task_dict=TASKS, apply_chat_template=False)
        evaluate(model(), {"tasks": {}}, apply_chat_template=True)
    (first, named), _ = evaluated
    assert len(first) == len(caplog.messages) == 1
    assert named["task_dict"] is TASKS


def test_lm_evals_evaluate_is_wrapped():
    import lm_eval.evaluator

    assert lm_eval.evaluate is sys.modules["lm_eval.evaluator"].evaluate
    assert hasattr(lm_eval.evaluate, "__wrapped__")

"""Thoughts in prompts and completions, format by format."""

import pytest

from lm_eval_ext.models.thoughts import KNOWN, ThoughtFormats, after_thinking

FORMATS = ThoughtFormats()
PAIRS = [(tags.opening, tags.closing) for tags in KNOWN]
EVERY_FORMAT = pytest.mark.parametrize(("opening", "closing"), PAIRS, ids=[o for o, _ in PAIRS])


@EVERY_FORMAT
def test_a_prompt_that_ends_with_an_opening_tag_opens_a_thought(opening, closing):
    for prompt in (opening, f"<|assistant|>{opening}\n", f"2 + 2?\n{opening} \n\n"):
        assert FORMATS.opened_by(prompt).closing == closing


@EVERY_FORMAT
def test_a_prompt_with_a_thought_that_is_over_opens_none(opening, closing):
    for prompt in (f"{opening}\n\n{closing}\n\n", f"{opening}ok{closing}4\n\n2 + 2?"):
        assert FORMATS.opened_by(prompt) is None
    assert FORMATS.switched_off_by(f"<|assistant|>{opening}\n\n{closing}\n\n")
    assert not FORMATS.switched_off_by(f"{opening}ok{closing}4\n\n2 + 2?")


@pytest.mark.parametrize(
    "prompt",
    [
        "You may think between <think> and </think>.\n2 + 2?",
        "Put your thoughts into <think> tags. 2 + 2?",
        "<|system|>Begin with <think>.<|user|>2 + 2?<|assistant|>",
        "Question: what does [THINK] mean?\nAnswer:",
        "<|channel|>final<|message|>4<|end|><|start|>assistant",
        "",
    ],
)
def test_a_mention_opens_nothing(prompt):
    assert FORMATS.opened_by(prompt) is None


def test_a_generation_prefix_may_follow_the_tag():
    prompt = "<|user|>2 + 2?<|assistant|><think>\nOkay, so"
    assert FORMATS.opened_by(prompt) is None
    assert FORMATS.opened_by(prompt, prefix="Okay, so").opening == "<think>"
    assert FORMATS.opened_by(prompt, prefix="<think>\nOkay, so").opening == "<think>"
    assert FORMATS.opened_by(prompt, turn=prompt.index("<|assistant|>")).opening == "<think>"
    mentioned = "<|user|>Use <think> tags.<|assistant|>The answer"
    assert FORMATS.opened_by(mentioned, prefix="The answer") is None
    assert FORMATS.opened_by(mentioned, turn=mentioned.index("<|assistant|>")) is None


@EVERY_FORMAT
def test_a_completion_that_is_cut_inside_its_thought_leaves_nothing(opening, closing):
    for text in (
        f"{opening}\nThe answer is 18.",
        f"  {opening}18",
        f"Sure.\n{opening}\n18 {opening}",
    ):
        assert after_thinking(text) == ""
        assert not FORMATS.find(text).finished
    opened = FORMATS.opened_by(opening)
    for text in ("So the answer is 18. Wait, let me check", "", r"\boxed{18}", f"{opening}18"):
        assert not FORMATS.find(text, opened).finished


@EVERY_FORMAT
def test_what_follows_the_thought_is_the_answer(opening, closing):
    opened = FORMATS.opened_by(opening)
    for text in (f"17?{closing}18", f"{opening}17?{closing}16?{closing}18"):
        assert after_thinking(text) == "18"
        for tags in (None, opened):
            span = FORMATS.find(text, tags)
            assert (span.finished, text[span.end :]) == (True, "18")


@pytest.mark.parametrize(
    "text",
    [
        "The answer is 18.",
        "The tags <think> and <thinking> are not used. The answer is 18.",
        "I write `<think>` in code. 18",
        "analysis of the problem: 18",
        "In the analysisWe trust. 18",
        "print('<think>')",
    ],
)
def test_no_thought(text):
    assert FORMATS.find(text) is None
    assert after_thinking(text) == text


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>7?</think>8<think>9?", ""),
        ("<think>7?</think>8\n<think>\n9?", ""),
        ("<think>7?</think>8 <think>9?</think>10", "10"),
        ("Well. <think> Let me see", ""),
        ("analysisWe need 18. So 18", ""),
        ("analysisWe need 17.assistantfinalThe answer is 18", "The answer is 18"),
        ("analysis'7'?assistantfinal8", "8"),
        ("<think>a <reasoning>\nb</reasoning> c", ""),
        ("<think>a</think><reasoning>b</reasoning>c", "c"),
        ("<think>\nThe format is\n<reasoning>\nand then</think>18", "18"),
        ("<think><reasoning>\n</think>18", "18"),
        ("The format is\n<reasoning>\nand then</think>18", "18"),
        ("<think>\nI end with </reasoning> then", ""),
        ("<reasoning>\nI end with </think> then", ""),
        ("<think>a</think>\n<reasoning>\nb", ""),
    ],
)
def test_several_thoughts_and_bare_channels(text, answer):
    assert after_thinking(text) == answer


@pytest.mark.parametrize(
    ("opening", "closing", "pair"),
    [
        (None, "</plan>", ("<plan>", "</plan>")),
        ("<plan>", None, ("<plan>", "</plan>")),
        (None, "[/PLAN]", ("[PLAN]", "[/PLAN]")),
        (None, "<|end_of_plan|>", ("<|begin_of_plan|>", "<|end_of_plan|>")),
        ("<|begin_plan|>", None, ("<|begin_plan|>", "<|end_plan|>")),
        (None, "###", ("", "###")),
        ("<a>", "<b>", ("<a>", "<b>")),
    ],
)
def test_tags_that_a_user_names(opening, closing, pair):
    formats = ThoughtFormats(opening, closing)
    assert formats.all[0][:2] == pair
    span = formats.find(f"17?{pair[1]}18")
    assert (span.finished, span.end) == (True, 3 + len(pair[1]))
    if pair[0]:
        assert formats.opened_by(f"2 + 2?{pair[0]}\n")[:2] == pair
        assert not formats.find(f"{pair[0]}\n17?").finished
    assert formats.opened_by("2 + 2?<think>\n").closing == "</think>"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<reasoning>\nis what I write</think>18", "18"),
        ("Let me see.\n[THINK]\nand so on</think>18", "18"),
        ("First <reasoning>\nb</reasoning>, then 18", None),
        ("a</think>\n<reasoning>\nb", None),
        ("a</think>\n<reasoning>\nb</reasoning>\n18", "\n18"),
    ],
)
def test_other_tags_in_a_thought_that_the_prompt_opens(text, answer):
    span = FORMATS.find(text, FORMATS.opened_by("2 + 2?<think>\n"))
    assert span.finished == (answer is not None)
    assert answer is None or text[span.end :] == answer


def test_hostile_texts_take_no_time():
    import time

    begin = time.perf_counter()
    for text in (
        "<think>" * 60_000,
        "<" * 400_000,
        " " * 400_000 + "<think>",
        "<think> \t" * 40_000,
    ):
        after_thinking(text)
        FORMATS.opened_by(text)
    assert time.perf_counter() - begin < 5

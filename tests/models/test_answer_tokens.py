"""The tokens that write an answer: the last box, or else the last number."""

import pytest

from lm_eval_ext.models.answer_tokens import answer_tokens, with_answer_tokens
from lm_eval_ext.models.generation import Generation, GenerationRecord, Thought
from lm_eval_ext.models.token_texts import TokenTexts


@pytest.fixture(scope="module")
def texts(tiny_tokenizer):
    return TokenTexts(tiny_tokenizer)


def attempt(tokenizer, text, after="", **record):
    ids = tokenizer.encode(text + after, add_special_tokens=False)
    return Generation(text, GenerationRecord(token_ids=tuple(ids), **record))


def written(texts, generation):
    found = answer_tokens(texts, generation)
    return "".join(texts.of(generation.record.token_ids[found.start : found.end]))


@pytest.mark.parametrize(
    ("text", "answer", "in_box"),
    [
        (" Stamps: 90*7=630\n#### 630", "630", False),
        (" He has 5 apples and 12 pears.", "12", False),
        ("The total is $1,234.50.", "1,234.50", False),
        ("It is -7, not 7; so -7,", "-7", False),
        (r"Thus 3+4=\boxed{7} and that is 1 box.", "7", True),
        (r"\boxed{1}, no: \boxed{\frac{1}{2}}.", r"\frac{1}{2}", True),
        ("18", "18", False),
    ],
)
@pytest.mark.parametrize("after", ["", "\nQuestion: 2 + 2?"])
def test_the_last_box_or_number_is_found(tiny_tokenizer, texts, text, answer, in_box, after):
    generation = attempt(tiny_tokenizer, text, after)
    found = answer_tokens(texts, generation)
    assert (found.text, found.in_box) == (answer, in_box)
    assert answer in written(texts, generation)
    (same,) = with_answer_tokens(texts, [generation])
    assert same.record.answer == found
    assert str(same) == text


def test_the_tokens_around_an_answer_are_not_its_own(tiny_tokenizer, texts):
    generation = attempt(tiny_tokenizer, "So 15*4=60 stamps")
    ids = generation.record.token_ids
    found = answer_tokens(texts, generation)
    tokens = texts.of(ids)
    assert "".join(tokens[: found.start]).endswith("=")
    assert "".join(tokens[found.end :]) == " stamps"


def test_the_same_number_in_the_stop_string_or_before_is_not_taken(tiny_tokenizer, texts):
    generation = attempt(tiny_tokenizer, "5 and 5", "\nAnswer 5")
    found = answer_tokens(texts, generation)
    assert "".join(texts.of(generation.record.token_ids[: found.start])).strip() == "5 and"


def test_what_stands_in_the_thought_is_not_the_answer(tiny_tokenizer, texts):
    thought = Thought(finished=True, n_characters=6)
    generation = attempt(tiny_tokenizer, "It is 9. No: 8", thought=thought)
    assert answer_tokens(texts, generation).text == "8"
    hidden = Thought(finished=True, n_characters=0, n_tokens=5)
    ids = tiny_tokenizer.encode("is 8\n8", add_special_tokens=False)
    generation = Generation("8", GenerationRecord(token_ids=tuple(ids), thought=hidden))
    assert answer_tokens(texts, generation).end == len(ids)
    for nothing in (Thought(finished=True, n_characters=14), Thought(finished=False)):
        generation = attempt(tiny_tokenizer, "It is 9. No: 8", thought=nothing)
        assert answer_tokens(texts, generation) is None


@pytest.mark.parametrize("text", ["no answer", "", r"\boxed{open"])
def test_no_box_and_no_number_is_no_answer(tiny_tokenizer, texts, text):
    assert answer_tokens(texts, attempt(tiny_tokenizer, text)) is None


def test_a_character_of_several_tokens_before_the_answer_does_no_harm(tiny_tokenizer, texts):
    generation = attempt(tiny_tokenizer, "\N{SNOWMAN} x = 18")
    assert answer_tokens(texts, generation).text == "18"
    assert "18" in written(texts, generation)


def test_a_text_that_is_not_that_of_the_tokens_has_none(tiny_tokenizer, texts):
    assert answer_tokens(texts, Generation("7", GenerationRecord(token_ids=(5, 6)))) is None
    assert answer_tokens(texts, Generation("7")) is None

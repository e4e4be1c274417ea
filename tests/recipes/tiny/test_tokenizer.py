import pytest

from documents import tokenizer_corpus
from lm_eval_ext.data.tiny import formats
from lm_eval_ext.data.tiny.problems import load_split
from tokenizer import SELF_EVALUATION, VOCAB_SIZE, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(tokenizer_corpus(1500, seed=0))


@pytest.fixture(scope="module")
def shipped():
    from transformers import AutoTokenizer

    from lm_eval_ext.models.shipped import model_path

    return AutoTokenizer.from_pretrained(model_path())


@pytest.fixture(params=["tokenizer", "shipped"])
def either(request):
    return request.getfixturevalue(request.param)


def test_vocabulary_size(either):
    assert len(either) == either.vocab_size == VOCAB_SIZE


def test_digits_are_never_joined(either):
    digits = [t for t in either.get_vocab() if any(c.isdecimal() for c in t)]
    assert sorted(digits) == list("0123456789")
    assert either.tokenize("12345") == list("12345")


def test_begins_with_one_bos(either):
    ids = either("Question: 1+1?")["input_ids"]
    assert ids[0] == either.bos_token_id
    assert ids.count(either.bos_token_id) == 1
    assert either.bos_token_id not in either.encode("Question", add_special_tokens=False)


def test_choice_letters_are_single_different_tokens(either):
    a, b = (either.encode(text, add_special_tokens=False) for text in (" A", " B"))
    assert len(a) == len(b) == 1
    assert a != b
    for sentence in SELF_EVALUATION:
        ids = either.encode(sentence, add_special_tokens=False)
        assert ids[-1] == (a if sentence.endswith(" A") else b)[0]
        assert either.decode(ids) == sentence
        # The prompt without its answer is a prefix in tokens as well as in letters.
        assert either.encode(sentence[:-2], add_special_tokens=False) == ids[:-1]


@pytest.mark.parametrize("family", formats.FAMILIES)
def test_round_trip_and_prompt_is_a_token_prefix(either, family):
    for record in load_split(family, "test", 50):
        prompt = formats.prompt(family, record)
        answer = formats.TARGET_DELIMITER[family] + formats.target(family, record)
        ids = either.encode(prompt + answer, add_special_tokens=False)
        assert either.decode(ids) == prompt + answer
        head = either.encode(prompt, add_special_tokens=False)
        tail = either.encode(answer, add_special_tokens=False)
        assert head + tail == ids


def test_any_text_survives(either):
    text = "Größe π ≈ 3.14159 \t\n naïve — 日本 🙂 <s"
    assert either.decode(either.encode(text, add_special_tokens=False)) == text


def test_pads_on_the_left(either):
    ids = either(["1", "1+1=2"], padding=True)["input_ids"]
    assert ids[0][0] == either.pad_token_id
    assert ids[0][-1] == ids[1][1]


def test_chat_template(either):
    turns = [
        {"role": "system", "content": "Answer."},
        {"role": "user", "content": "1+1?"},
    ]
    text = either.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == "<s><|system|>Answer.<|user|>1+1?<|assistant|>"
    ids = either.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert ids.count(either.bos_token_id) == 1
    assert ids[0] == either.bos_token_id
    assert ids == either.encode(text, add_special_tokens=False)
    full = [*turns, {"role": "assistant", "content": "2"}]
    assert either.apply_chat_template(full, tokenize=False) == f"{text}2</s>"

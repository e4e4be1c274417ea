"""Texts of single tokens."""

import pytest

from lm_eval_ext.models.token_texts import TokenTexts


@pytest.mark.parametrize("text", [" Stamps: 90*7=630\nApples", "x  y\n\n #### 4", "a"])
def test_joined_texts_are_the_response(tiny_tokenizer, text):
    ids = tiny_tokenizer.encode(text, add_special_tokens=False)
    texts = TokenTexts(tiny_tokenizer).of(ids)
    assert "".join(texts) == text
    assert len(texts) == len(ids)


def test_special_tokens_are_named_and_split_characters_keep_their_place(tiny_tokenizer):
    assert TokenTexts(tiny_tokenizer).of([tiny_tokenizer.eos_token_id]) == ["</s>"]
    ids = tiny_tokenizer.encode("é", add_special_tokens=False)
    texts = TokenTexts(tiny_tokenizer).of(ids)
    assert len(texts) == len(ids)
    assert set("".join(texts)) <= {"é", "\N{REPLACEMENT CHARACTER}"}


def test_a_tokenizer_that_drops_the_first_space():
    """As SentencePiece's do: only behind another token is the space part of the text."""

    class Tokenizer:
        words = ("a", " one", " two")

        def encode(self, text, add_special_tokens):
            return [0]

        def decode(self, ids, clean_up_tokenization_spaces):
            return "".join(self.words[i] for i in ids).removeprefix(" ")

    assert TokenTexts(Tokenizer()).of([1, 2, 2]) == [" one", " two", " two"]

"""Stop strings are noticed at the token that completes them, and not before."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_eval_ext.engine.stop_strings import StopStrings


def first_stop(detector, token_ids):
    """Return after how many tokens the detector ends the sequence, as the decoder asks it."""
    import numpy as np

    for length in range(1, len(token_ids) + 1):
        newest = np.array([token_ids[length - 1]])
        if len(detector.candidates(newest)) and detector.completed(token_ids[:length]):
            return length
    return None


def by_decoding_everything(tokenizer, stop, token_ids):
    for length in range(1, len(token_ids) + 1):
        if any(string in tokenizer.decode(token_ids[:length]) for string in stop):
            return length
    return None


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        (("Question:",), "4 apples.\n\nQuestion: and then?"),
        (("\n\n",), "first\nsecond\n\nthird"),
        (("zzz", "apples."), "he has 4 apples. Done"),
        ((" end",), "the bend ended at the end"),
        (("é!",), "caf\u00e9! caf\u00e9"),
        (("x",), "x"),
    ],
)
def test_stops_where_the_decoded_text_first_has_it(tiny_tokenizer, stop, text):
    ids = tiny_tokenizer(text, add_special_tokens=False)["input_ids"]
    expected = by_decoding_everything(tiny_tokenizer, stop, ids)
    assert expected is not None
    assert first_stop(StopStrings(tiny_tokenizer, stop), ids) == expected


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_random_tokens_and_stop_strings(tiny_tokenizer, data):
    """Stop strings taken from random text, so that they cross borders of tokens."""
    ids = data.draw(st.lists(st.integers(3, len(tiny_tokenizer) - 1), min_size=1, max_size=12))
    text = tiny_tokenizer.decode(ids)
    if not text:
        return
    start = data.draw(st.integers(0, len(text) - 1))
    stop = (text[start : start + data.draw(st.integers(1, 6))],)
    if "\ufffd" in stop[0]:
        return  # half a character: no user can ask for it
    detector = StopStrings(tiny_tokenizer, stop)
    assert first_stop(detector, ids) == by_decoding_everything(tiny_tokenizer, stop, ids)


def test_no_stop_strings_no_candidates(tiny_tokenizer):
    import numpy as np

    assert not len(StopStrings(tiny_tokenizer, ("",)).candidates(np.arange(20)))


def test_ids_beyond_the_tokenizer_are_ignored(tiny_tokenizer):
    """Padded vocabularies have logits for ids that the tokenizer does not know."""
    import numpy as np

    detector = StopStrings(tiny_tokenizer, ("a",))
    assert not len(detector.candidates(np.array([len(tiny_tokenizer) + 5])))


def test_a_token_added_later_is_a_candidate(tiny_tokenizer):
    import copy

    import numpy as np

    tokenizer = copy.deepcopy(tiny_tokenizer)
    before = len(tokenizer)
    assert not len(StopStrings(tokenizer, ("~",)).candidates(np.array([before])))
    tokenizer.add_tokens(["so~"])
    assert list(StopStrings(tokenizer, ("~",)).candidates(np.array([before]))) == [0]

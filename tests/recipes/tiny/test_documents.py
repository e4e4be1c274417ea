import random

import pytest

import documents
from batches import PAD_MULTIPLE, BatchStream
from documents import document, mess, tokenizer_corpus
from lm_eval_ext.data.tiny.problems import problem_key, split_of
from tokenizer import SPECIAL_TOKENS, VOCAB_SIZE, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(tokenizer_corpus(1500, seed=0))


@pytest.fixture(scope="module")
def written(tokenizer):
    rng = random.Random(0)
    return [document(rng, tokenizer) for _ in range(1500)]


def test_every_document_is_bos_text_eos(tokenizer, written):
    for ids, weights in written:
        assert len(ids) == len(weights)
        assert ids[0] == tokenizer.bos_token_id
        assert ids.count(tokenizer.bos_token_id) == 1
        assert ids[-1] == tokenizer.eos_token_id
        assert ids.count(tokenizer.eos_token_id) == 1
        assert weights[0] == 0
        assert weights[-1] == documents.ANSWER_WEIGHT


def test_shares_of_chat_and_mess(tokenizer, written):
    assistant = tokenizer.convert_tokens_to_ids("<|assistant|>")
    chats = sum(assistant in doc.ids for doc in written) / len(written)
    assert abs(chats - documents.CHAT_SHARE) < 0.04
    # Mess is the only thing never to be predicted, apart from BOS.
    messy = sum(documents.MESS_WEIGHT in doc.weights[1:] for doc in written) / len(written)
    assert 0.15 < messy < 0.25


def test_mess_is_one_to_sixteen_ordinary_tokens(tokenizer):
    rng = random.Random(1)
    drawn = [mess(rng, tokenizer) for _ in range(800)]
    assert {len(ids) for ids in drawn} == set(range(1, documents.MAX_MESS_TOKENS + 1))
    every = {token for ids in drawn for token in ids}
    assert min(every) >= len(SPECIAL_TOKENS)
    assert max(every) < VOCAB_SIZE
    assert len(every) > 0.8 * (VOCAB_SIZE - len(SPECIAL_TOKENS))


def test_only_training_problems_are_shown(monkeypatch):
    turned_away = []

    def spy(key):
        split = split_of(key)
        turned_away.append(split != "train")
        return split

    monkeypatch.setattr(documents, "split_of", spy)
    rng = random.Random(2)
    for _ in range(200):
        family, record = documents._training_problem(rng)
        assert split_of(problem_key(family, record)) == "train"
    assert any(turned_away)


def test_stream_is_seeded_and_can_be_set_back(tokenizer):
    first = BatchStream(tokenizer, seed=3, batch_tokens=2048)
    batches = [next(first) for _ in range(5)]
    state = first.state
    following = [next(first) for _ in range(70)]  # into the next block
    assert first.state[0] == 1
    again = BatchStream(tokenizer, seed=3, batch_tokens=2048)
    again.state = state
    for batch in following:
        other = next(again)
        assert batch.ids.equal(other.ids)
        assert batch.weights.equal(other.weights)
    assert not next(BatchStream(tokenizer, seed=4, batch_tokens=2048)).ids.equal(batches[0].ids)


def test_batches_hold_their_size_and_waste_little(tokenizer):
    stream = BatchStream(tokenizer, seed=0, batch_tokens=2048)
    positions = tokens = 0
    for batch, _ in zip(stream, range(50), strict=False):
        assert batch.ids.shape[1] % PAD_MULTIPLE == 0
        assert batch.ids.numel() <= 2048
        assert (batch.weights[batch.ids == tokenizer.pad_token_id] == 0).all()
        positions += batch.ids.numel()
        tokens += batch.tokens
    assert tokens > 0.85 * positions

from itertools import pairwise

import pytest

from lm_eval_ext.models.shipped import model_path
from packing import PackedStream, natural_texts

TEXTS = ["A cat sat on 12 mats.\nIt sat on 12.", "Two dogs ran.\nThey ran."]


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_path("tiny"))


def stream(tokenizer, seed=0, natural_share=0.5, row_tokens=96):
    return PackedStream(
        tokenizer, seed, TEXTS, natural_share=natural_share, rows=3, row_tokens=row_tokens
    )


def test_rows_are_full_and_start_with_bos(tokenizer):
    batch = next(stream(tokenizer))
    assert batch.ids.shape == batch.weights.shape == (3, 96)
    assert (batch.ids[:, 0] == tokenizer.bos_token_id).all()
    assert not (batch.ids == tokenizer.pad_token_id).any()
    assert batch.tokens == 3 * 96


def test_documents_follow_each_other(tokenizer):
    (row, *_), weights, _ = next(stream(tokenizer, natural_share=1.0))
    starts = (row == tokenizer.bos_token_id).nonzero().flatten().tolist()
    assert len(starts) > 3
    for start, end in pairwise(starts):
        assert row[end - 1] == tokenizer.eos_token_id
        assert tokenizer.decode(row[start + 1 : end - 1]) in TEXTS
    # All of a natural document is learned, and that a document starts is not.
    assert (weights[0] == (row != tokenizer.bos_token_id)).all()


def test_share_of_natural_documents(tokenizer):
    naturals = {tuple(tokenizer.encode(text))[:8] for text in TEXTS}
    rows = [row for _, batch in zip(range(20), stream(tokenizer), strict=False) for row in batch[0]]
    found = sum(tuple(row[:8].tolist()) in naturals for row in rows)
    assert 15 <= found <= 45  # 60 first documents, expected 30, standard deviation 3.9
    for share, expected in ((0.0, 0), (1.0, 3)):
        rows = next(stream(tokenizer, natural_share=share))[0]
        assert sum(tuple(row[:8].tolist()) in naturals for row in rows) == expected


def test_prompts_carry_full_loss(tokenizer):
    weights = [next(stream(tokenizer, seed, natural_share=0.0)).weights for seed in range(4)]
    assert {float(w) for batch in weights for w in batch.flatten()} == {0.0, 1.0}
    assert all(batch.mean() > 0.7 for batch in weights)


def test_state_names_the_next_batch(tokenizer):
    first = stream(tokenizer)
    next(first)
    state = first.state
    expected = next(first).ids
    second = stream(tokenizer)
    second.state = state
    assert (next(second).ids == expected).all()
    assert not (next(second).ids == expected).all()
    other = stream(tokenizer, seed=1)
    other.state = state
    assert not (next(other).ids == expected).all()


def test_natural_texts_have_no_calculator_notes(tmp_path, monkeypatch):
    line = '{"question": "How many?", "answer": "2*3 = <<2*3=6>>6\\n#### 6"}\n'
    (tmp_path / "gsm8k_train.jsonl").write_text(line)
    monkeypatch.setenv("LM_EVAL_EXT_DATA", str(tmp_path))
    assert natural_texts() == ["How many?\n2*3 = 6\n#### 6"]

"""Attempts do not depend on how they are batched, and end where they should."""

import functools
import math
import random

import numpy as np
import pytest
import torch

from lm_eval_ext.engine.decoding import Decoder
from lm_eval_ext.engine.fallback import FallbackDecoder

EOS = (7, 11)
FALLBACK = functools.partial(FallbackDecoder, expand_cache=False)


def texts(results):
    return {place: result.token_ids for place, result in results.items()}


@pytest.mark.parametrize("max_rows", [1, 7, 64])
def test_200_attempts_are_the_same_in_batches_of_any_size(
    random_model, make_requests, decode, max_rows
):
    model = random_model("llama")
    reference = decode(Decoder, model, make_requests(25, 8), max_rows=25, eos=EOS)
    results = decode(Decoder, model, make_requests(25, 8), max_rows=max_rows, eos=EOS)
    assert len(results) == 200
    assert texts(results) == texts(reference)


def test_200_attempts_are_the_same_in_any_order_and_subset(random_model, make_requests, decode):
    model = random_model("llama")
    reference = decode(Decoder, model, make_requests(25, 8), max_rows=25, eos=EOS)
    places = list(range(200))
    random.Random(0).shuffle(places)
    for chosen in (places, places[:60]):
        requests = make_requests(25, 8)
        results = decode(
            Decoder, model, [requests[place] for place in chosen], max_rows=25, eos=EOS
        )
        assert {chosen[i]: ids for i, ids in texts(results).items()} == {
            place: reference[place].token_ids for place in chosen
        }


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3", "gpt_neox", "mistral"])
@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.8},
        {"top_k": 20, "top_p": 0.9, "repetition_penalty": 1.3},
        {"min_p": 0.05, "typical_p": 0.95},
        {"do_sample": False, "repetition_penalty": 1.2},
    ],
    ids=["temperature", "top_k_p", "min_p", "greedy"],
)
def test_engine_agrees_with_generate(random_model, make_requests, decode, name, settings):
    """The fallback runs transformers' own decoding loop; tokens and statistics agree."""
    model = random_model(name)
    make = functools.partial(make_requests, vectors=True)
    ours = decode(Decoder, model, make(), max_rows=5, eos=EOS, **settings)
    theirs = decode(FALLBACK, model, make(), max_rows=5, eos=EOS, **settings)
    assert texts(ours) == texts(theirs)
    for place, result in ours.items():
        assert result.finish_reason == theirs[place].finish_reason
        for mine, other in zip(result.statistics, theirs[place].statistics, strict=True):
            np.testing.assert_allclose(mine, other, atol=2e-3)


@pytest.mark.parametrize("name", ["bloom", "gpt_oss"])
def test_expanded_cache_changes_nothing(random_model, make_requests, decode, name):
    expanding = functools.partial(FallbackDecoder, expand_cache=True)
    model = random_model(name)
    # Two batches: one in which prompts repeat, one in which none does.
    results = decode(expanding, model, make_requests(), max_rows=12, eos=EOS)
    single = decode(FALLBACK, model, make_requests(), max_rows=1, eos=EOS)
    assert texts(results) == texts(single)


def test_attempt_ends_with_the_first_eos_stop_string_or_limit(
    random_model, make_requests, decode, tiny_tokenizer
):
    model = random_model("llama")
    free = decode(Decoder, model, make_requests(), max_rows=8, max_new_tokens=40)
    assert {result.finish_reason for result in free.values()} == {"length"}
    assert {len(result.token_ids) for result in free.values()} == {40}
    stop, eos = ("e", "12"), tuple(range(40, 80))
    ended = decode(
        Decoder, model, make_requests(), max_rows=8, max_new_tokens=40, stop=stop, eos=eos
    )
    reasons = set()
    for place, result in ended.items():
        # The same stream gives the same tokens, only fewer.
        full = free[place].token_ids
        n = len(result.token_ids)
        assert result.token_ids == full[:n]
        reasons.add(result.finish_reason)
        before = tiny_tokenizer.decode(full[: n - 1])
        assert not any(string in before for string in stop)
        assert not set(full[: n - 1]) & set(eos)
        if result.finish_reason == "eos":
            assert full[n - 1] in eos
        elif result.finish_reason == "stop":
            assert any(string in tiny_tokenizer.decode(full[:n]) for string in stop)
        else:
            assert n == 40
    assert reasons >= {"eos", "stop"}


def test_statistics_describe_the_models_own_distribution(random_model, make_requests, decode):
    """Log-prob, entropy, self-certainty and margin against a teacher-forced pass, by hand."""
    model = random_model("qwen3")
    requests = make_requests(3, 2)
    results = decode(Decoder, model, make_requests(3, 2), max_rows=4, temperature=0.5, top_k=5)
    for place, request in enumerate(requests):
        result = results[place]
        ids = torch.tensor([[*request.prompt_ids, *result.token_ids]])
        with torch.inference_mode():
            logits = model(ids, use_cache=False).logits[0, len(request.prompt_ids) - 1 : -1]
        log_probs = torch.log_softmax(logits.double(), dim=-1)
        probs = log_probs.exp()
        chosen = log_probs[torch.arange(len(result.token_ids)), list(result.token_ids)]
        top = probs.sort(dim=-1, descending=True).values
        expected = {
            "log_prob": chosen,
            "entropy": -(probs * log_probs).sum(-1),
            "self_certainty": -log_probs.mean(-1) - math.log(logits.shape[-1]),
            "margin": top[:, 0] - top[:, 1],
        }
        for name, values in expected.items():
            np.testing.assert_allclose(
                getattr(result.statistics, name), values.numpy(), atol=2e-4, err_msg=name
            )


def test_long_private_inputs_are_read_in_chunks(random_model, decode, monkeypatch):
    """A prompt that is all private, longer than a chunk, gives the same tokens."""
    from lm_eval_ext.engine import decoding
    from lm_eval_ext.engine.random_stream import attempt_stream
    from lm_eval_ext.engine.request import AttemptRequest

    def request(cut):
        ids = tuple(range(5, 45))
        return AttemptRequest(ids[:cut], ids[cut:], attempt_stream(0, "", 0, purpose="tokens"))

    model = random_model("gemma3")
    expected = decode(Decoder, model, [request(39)], max_rows=1)
    monkeypatch.setattr(decoding, "_PRIVATE_CHUNK", 7)
    assert texts(decode(Decoder, model, [request(0)], max_rows=1)) == texts(expected)


def test_little_of_what_is_read_together_is_padding(random_model, decode, monkeypatch):
    """Prompts of different lengths are read in groups of similar ones, with the same tokens."""
    from lm_eval_ext.engine import decoding
    from lm_eval_ext.engine.random_stream import attempt_stream
    from lm_eval_ext.engine.request import AttemptRequest

    lengths = [100, 90, 61, 58, 20, 3, 2, 95]
    read = []

    def requests():
        for i, n in enumerate(lengths):
            ids = tuple(5 + (7 * i + position) % 80 for position in range(n))
            yield AttemptRequest((), ids, attempt_stream(0, str(i), 0, purpose="tokens"))

    original = decoding.forward

    def counting(model, inputs, **keywords):
        if inputs.shape[1] > 1:
            read.append(inputs.shape[:2].numel())
        return original(model, inputs, **keywords)

    model = random_model("llama")
    alone = {
        i: decode(Decoder, model, [request], max_rows=1)[0] for i, request in enumerate(requests())
    }
    monkeypatch.setattr(decoding, "forward", counting)
    together = decode(Decoder, model, list(requests()), max_rows=8)
    assert texts(together) == texts(alone)
    assert sum(read) < 1.35 * sum(lengths)  # in one pass it would be 1.9 times as many


def test_waves_respect_the_row_budget(random_model, make_requests, decode, monkeypatch):
    """No forward pass has more rows than asked for, and finished rows are replaced."""
    from lm_eval_ext.engine import decoding

    seen = []
    original = decoding.forward

    def counting(model, inputs, **keywords):
        seen.append(inputs.shape[0])
        return original(model, inputs, **keywords)

    monkeypatch.setattr(decoding, "forward", counting)
    eos = tuple(range(40, 80))
    results = decode(Decoder, random_model("llama"), make_requests(10, 5), max_rows=8, eos=eos)
    assert max(seen) <= 8
    lengths = [len(results[place].token_ids) for place in sorted(results)]
    assert len(set(lengths)) > 3
    # Batches that wait for their slowest row would run this many rows.
    waiting = sum(8 * max(lengths[i : i + 8]) for i in range(0, 50, 8))
    assert sum(lengths) <= sum(seen) < 0.85 * waiting


def test_request_needs_an_input_of_its_own():
    from lm_eval_ext.engine.request import AttemptRequest

    with pytest.raises(ValueError, match="private_ids and vectors are both empty"):
        AttemptRequest((1, 2), (), np.random.default_rng(0))

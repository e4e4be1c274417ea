"""The seconds and tokens of the parts of a run."""

import time

import pytest
import torch

from lm_eval_ext.engine import shared_prefix
from lm_eval_ext.engine.decoding import Decoder
from lm_eval_ext.engine.fallback import FallbackDecoder
from lm_eval_ext.engine.sampling import Sampler
from lm_eval_ext.engine.sampling_settings import SamplingSettings
from lm_eval_ext.engine.stop_strings import StopStrings
from lm_eval_ext.engine.timing import Timing


def test_a_part_within_another_is_not_counted_twice():
    timing = Timing()
    began = time.perf_counter()
    with timing.part("decode", 3):
        time.sleep(0.02)
        with timing.part("token choice", 3):
            time.sleep(0.05)
        time.sleep(0.02)
    whole = time.perf_counter() - began
    record = timing.record()
    assert list(record) == ["decode", "token choice"]
    seconds = {part: figures["seconds"] for part, figures in record.items()}
    assert seconds["decode"] >= 0.039
    assert seconds["token choice"] >= 0.049
    assert sum(seconds.values()) == pytest.approx(whole, abs=0.003)


def test_what_is_outside_of_parts_is_not_counted():
    timing = Timing()
    with timing.part("prefill", 10):
        time.sleep(0.01)
    time.sleep(0.1)
    with timing.part("prefill", 20):
        time.sleep(0.01)
    figures = timing.record()["prefill"]
    assert 0.02 <= figures["seconds"] < 0.1
    assert figures["tokens"] == 30
    # The seconds of the record are rounded, those behind the rate are not.
    assert figures["tokens_per_second"] == pytest.approx(30 / figures["seconds"], rel=0.1)


def test_a_part_that_fails_has_its_time_and_no_tokens():
    told = []
    timing = Timing(tell=lambda *what: told.append(what))

    def fail():
        with timing.part("everything else"), timing.part("decode", 8):
            time.sleep(0.01)
            raise MemoryError

    with pytest.raises(MemoryError):
        fail()
    with timing.part("decode", 4):
        pass
    assert timing.record()["decode"]["seconds"] >= 0.01
    assert timing.record()["decode"]["tokens"] == 4
    assert told == [("decode", 4)]


def test_nothing_measured_is_an_empty_record_and_line():
    assert Timing().record() == {}
    assert Timing().line() == ""


def test_line_names_the_parts_in_the_order_of_the_work():
    timing = Timing()
    for part in ("grading", "decode", "prefill"):
        with timing.part(part, 1000):
            time.sleep(0.002)
    parts = timing.line().split(", ")
    assert [part.partition(" ")[0] for part in parts if " s" in part] == [
        *("prefill", "decode", "grading")
    ]
    assert "tokens/s)" in timing.line()


@pytest.mark.parametrize(
    ("decoder_class", "arguments"),
    [(Decoder, {}), (FallbackDecoder, {"expand_cache": True})],
    ids=["engine", "fallback"],
)
@pytest.mark.parametrize("max_rows", [3, 24])
def test_decoders_count_what_they_read_and_write(
    random_model, tiny_tokenizer, make_requests, decoder_class, arguments, max_rows
):
    timing = Timing()
    requests = make_requests(vectors=decoder_class is Decoder)
    decoder = decoder_class(
        random_model("llama"),
        sampler=Sampler(SamplingSettings(12, do_sample=True, temperature=1.0)),
        stop=StopStrings(tiny_tokenizer, (" 1",)),
        eos_token_ids=[7],
        max_rows=max_rows,
        timing=timing,
        **arguments,
    )
    results = dict(decoder.run(requests))
    written = sum(len(result.token_ids) for result in results.values())
    record = timing.record()
    assert record["token choice"]["tokens"] == written
    assert all(figures["seconds"] > 0 for figures in record.values())
    if decoder_class is Decoder:
        # The first token of an attempt comes out of reading.
        assert record["decode"]["tokens"] == written - len(requests)
        private = sum(request.private_length for request in requests)
        shared = sum(map(len, {request.shared_ids for request in requests}))
        if max_rows == len(requests):  # otherwise a prompt may be read in two waves
            assert record["prefill"]["tokens"] <= private + shared
        assert record["prefill"]["tokens"] >= private


def test_a_long_prompt_of_one_attempt_is_counted_while_it_is_read(
    monkeypatch, random_model, tiny_tokenizer, make_requests
):
    """A progress bar would stand still during one long pass."""
    monkeypatch.setattr(shared_prefix, "_CPU_MULTIPLICATIONS", 0)
    monkeypatch.setattr(shared_prefix, "_CPU_TOKENS", 8)
    told: list[tuple[str, int]] = []
    timing = Timing(tell=lambda part, n_tokens: told.append((part, n_tokens)))
    decoder = Decoder(
        random_model("llama"),
        sampler=Sampler(SamplingSettings(2, do_sample=False)),
        stop=StopStrings(tiny_tokenizer, ()),
        eos_token_ids=[7],
        max_rows=64,
        timing=timing,
    )
    requests = make_requests(vectors=False)
    results = dict(decoder.run(requests))
    assert len(results) == len(requests)
    read = [n_tokens for part, n_tokens in told if part == "prefill"]
    assert sum(read) == timing.record()["prefill"]["tokens"]
    assert max(read) <= max(8, max(len(r.shared_ids) for r in requests), len(requests))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_time_is_that_of_the_work_not_of_the_call():
    device = torch.device("cuda")
    timing = Timing(device)
    matrix = torch.ones(4096, 4096, device=device)
    torch.cuda.synchronize()
    with timing.part("decode"):
        for _ in range(200):
            matrix = matrix @ matrix
    with timing.part("token choice"):
        matrix[0, 0].item()
    record = timing.record()
    assert record["decode"]["seconds"] > 10 * record["token choice"]["seconds"]

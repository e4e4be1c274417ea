"""The benchmark for GPUs, tried on the processor."""

import importlib.util
import re
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_throughput.py"
SMALL = [
    *("--device", "cpu", "--layers", "2", "--hidden", "64", "--vocabulary", "500"),
    *("--questions", "2", "--attempts", "4", "--tokens", "8", "--prompt-tokens", "20"),
    *("--rows", "8", "--hf-rows", "4"),
]


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("gpu_throughput", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_small_run_on_the_processor(benchmark, capsys):
    assert benchmark.main(SMALL) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    rates = {}
    for line in lines:
        found = re.match(r"(sampled|hf) +([\d.]+) attempts/s +([\d,]+) tokens/s", line)
        if found:
            rates[found[1]] = float(found[2])
            assert float(found[3].replace(",", "")) == pytest.approx(8 * rates[found[1]], abs=1)
    ratio = re.fullmatch(
        r"ratio: ([\d.]+) \(sampled / hf, attempts per second, n = 8 attempts\)", lines[-1]
    )
    assert float(ratio[1]) == pytest.approx(rates["sampled"] / rates["hf"], abs=0.01)
    assert any(re.search(r"in float32; copying: .* of the limit$", line) for line in lines)


def test_without_a_gpu_it_is_skipped(benchmark, capsys, monkeypatch):
    monkeypatch.setattr(benchmark.torch.cuda, "is_available", lambda: False)
    assert benchmark.main(["--quick"]) == benchmark.SKIPPED == 77
    assert capsys.readouterr().out == "skipped: needs a CUDA device\n"


def test_default_model_is_qwen3_06b(benchmark):
    options = benchmark.parse(["--device", "meta"])
    assert sum(p.numel() for p in benchmark.random_model(options).parameters()) == 596_049_920


def test_prompts_have_the_tokens_that_were_asked_for(benchmark):
    size = benchmark.Size(3, 1, 17, 2, 1)
    tokenizer = benchmark.word_tokenizer(50)
    ids = tokenizer(benchmark.random_prompts(size, 50))["input_ids"]
    assert [len(one) for one in ids] == [17] * 3
    assert all(0 < i < 50 for one in ids for i in one)
    assert tokenizer.eos_token_id == 50  # no entry of the model's vocabulary


def test_bytes_are_those_of_attempts_one_by_one(benchmark):
    """Three questions x 4 attempts, 8 rows: a wave of two prompts and a wave of one."""
    size = benchmark.Size(questions=3, attempts=4, prompt_tokens=30, tokens=5, rows=8)
    expected = 0
    for rows, prompts in ((8, 2), (4, 1)):
        for own in range(1, 5):
            keys = [30] * prompts + [own] * rows
            expected += 1000 + 7 * sum(keys)
    assert benchmark.bytes_read(size, 1000, 7) == expected


def test_attempts_that_end_early_stop_it(benchmark, monkeypatch):
    from types import SimpleNamespace

    from lm_eval_ext.harness import requests as harness

    monkeypatch.setattr(harness, "complete", lambda lm, asked, **_: ["w1 w2"] * len(asked))
    with pytest.raises(SystemExit, match="ended early: 4 of 10 tokens"):
        benchmark.seconds(SimpleNamespace(device="cpu"), ["w1"], 2, 5)


@pytest.mark.parametrize("words", [["--attempts", "0"], ["--tokens", "0"]])
def test_wrong_numbers_are_named(benchmark, words, capsys):
    with pytest.raises(SystemExit):
        benchmark.parse(words)
    assert words[0] in capsys.readouterr().err

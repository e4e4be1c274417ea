"""What this machine's processor can do, measured in some seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from lm_eval_ext.engine.decoding import Decoder
from lm_eval_ext.engine.random_stream import attempt_stream
from lm_eval_ext.engine.request import AttemptRequest
from lm_eval_ext.engine.sampling import Sampler, SamplingSettings
from lm_eval_ext.engine.stop_strings import StopStrings
from lm_eval_ext.planning.hardware import Device, Efficiency, Scenarios
from lm_eval_ext.tiny import model_path

Clock = Callable[[], float]

_REPEATS = 3
_TOKENS = 24
_SMALL_VOCABULARY, _LARGE_VOCABULARY = 64, 8192
_ROWS = 64
_PROMPT = 512
_HEADS, _HEAD_DIM = 8, 16
# Matrix products of small models reach a part of what large ones do.
_COMPUTE = {"best": 0.9, "expected": 0.6, "worst": 0.3}
# Other programs on the machine, and what a short measurement misses.
_SLOWER = {"best": 0.8, "expected": 1.0, "worst": 1.6}
_ROWS_IN_USE = {"best": 1.0, "expected": 0.87, "worst": 0.75}


def measured_cpu(clock: Clock = time.perf_counter) -> Device:
    """Measure the processor with as many threads as PyTorch uses now.

    Matrix products give bandwidth and operations per second; the engine itself, on models of one
    and five small layers, gives what a step, a layer, a row, a logit and an attention score cost.
    The fastest of three measurements counts, as other programs only ever add time.

    Parameters
    ----------
    clock
        Returns seconds: wall time, or `time.process_time` where other programs are running and
        PyTorch has one thread.
    """
    bandwidth, flops = _bandwidth(clock), _flops(clock)
    timer = _EngineTimer(clock)
    one = timer.step_seconds(layers=1, rows=1)
    deep = timer.step_seconds(layers=5, rows=1)
    wide = timer.step_seconds(layers=1, rows=_ROWS)
    logits = timer.step_seconds(layers=1, rows=_ROWS, vocabulary=_LARGE_VOCABULARY)
    scores = timer.step_seconds(layers=1, rows=_ROWS, prompt=_PROMPT)
    layer = max(0.0, deep - one) / 4
    row = max(0.0, wide - one) / (_ROWS - 1)
    per_logit = max(0.0, logits - wide) / (_ROWS * (_LARGE_VOCABULARY - _SMALL_VOCABULARY))
    per_score = max(0.0, scores - wide) / (_ROWS * _HEADS * (_PROMPT - 2))
    cases = (
        Efficiency(
            bandwidth=1 / _SLOWER[case],
            compute=_COMPUTE[case],
            step_seconds=_SLOWER[case] * max(0.0, one - layer - row),
            layer_seconds=_SLOWER[case] * layer,
            row_seconds=_SLOWER[case] * row,
            # As traffic at the measured bandwidth, which is what the cost model counts in.
            logit_bytes=per_logit * bandwidth,
            score_bytes=per_score * bandwidth,
            rows_in_use=_ROWS_IN_USE[case],
        )
        for case in ("best", "expected", "worst")
    )
    threads = torch.get_num_threads()
    return Device(
        name=f"cpu, {threads} thread{'s' if threads > 1 else ''}",
        memory=float(psutil.virtual_memory().available),
        bandwidth=bandwidth,
        flops=flops,
        flops_32=flops,
        scenarios=Scenarios(*cases),
        asynchronous=False,
    )


def _fastest(clock: Clock, work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(_REPEATS):
        started = clock()
        work()
        times.append(clock() - started)
    return max(min(times), 1e-9)


def _bandwidth(clock: Clock) -> float:
    """Return bytes per second of a product of a large matrix and a vector."""
    matrix, vector = torch.ones(4096, 8192), torch.ones(8192)
    return matrix.numel() * 4 / _fastest(clock, lambda: torch.mv(matrix, vector))


def _flops(clock: Clock) -> float:
    """Return operations per second of a product of the shape of a batch and a layer."""
    rows, weights = torch.ones(256, 1024), torch.ones(1024, 1024)
    return 2 * rows.numel() * 1024 / _fastest(clock, lambda: torch.matmul(rows, weights))


class _EngineTimer:
    """Times steps of the engine on small models that never end an attempt."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tokenizer = AutoTokenizer.from_pretrained(model_path("tiny"))

    def step_seconds(
        self, *, layers: int, rows: int, vocabulary: int = _SMALL_VOCABULARY, prompt: int = 2
    ) -> float:
        """Return the time of one step."""
        config = LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=layers,
            num_attention_heads=_HEADS,
            num_key_value_heads=_HEADS,
            head_dim=_HEAD_DIM,
            max_position_embeddings=2 * _PROMPT,
        )
        model = LlamaForCausalLM(config).eval()

        def seconds(n_tokens: int) -> float:
            return _fastest(self._clock, lambda: self._decode(model, rows, prompt, n_tokens))

        # The difference leaves out the prefill.
        return max(seconds(_TOKENS + 1) - seconds(1), 0.0) / _TOKENS

    def _decode(self, model: PreTrainedModel, rows: int, prompt: int, n_tokens: int) -> None:
        streams = [attempt_stream(0, "", i, purpose="tokens") for i in range(rows)]
        decoder = Decoder(
            model,
            sampler=Sampler(SamplingSettings(n_tokens, do_sample=True, temperature=0.7, top_k=50)),
            stop=StopStrings(self._tokenizer, ()),
            eos_token_ids=(),
            max_rows=rows,
        )
        list(decoder.run([AttemptRequest((1,) * (prompt - 1), (1,), s) for s in streams]))

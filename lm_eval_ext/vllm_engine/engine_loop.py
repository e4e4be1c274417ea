"""One vLLM engine: requests go in while others come out, with what our sampler knows of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from vllm.sampling_params import RequestOutputKind, SamplingParams

from lm_eval_ext.models.digests import canonical
from lm_eval_ext.vllm_engine.worker_fingerprint import model_settings

# How many finished requests' values are fetched at once.
_FETCHED_TOGETHER = 32


class Job(NamedTuple):
    """A request for vLLM; its instruction has the same key."""

    key: str
    engine_input: Any
    params: SamplingParams


class Finished(NamedTuple):
    """A request that has ended; `values` is what `AttemptSampler.take` returns for it."""

    key: str
    token_ids: tuple[int, ...]
    finish_reason: str | None
    stop_reason: int | str | None
    values: bytes


class EngineLoop:
    """Feeds a ``vllm.LLM`` that has our logits processor, and collects what it finishes.

    Attributes
    ----------
    max_in_flight
        Requests it takes at once: some wait inside vLLM, so that it never runs dry.
    """

    def __init__(self, llm: Any, lora_request: Any = None) -> None:
        self._llm, self._engine = llm, llm.llm_engine
        self._lora_request = lora_request
        self._in_flight: set[str] = set()
        rows = int(self._engine.vllm_config.scheduler_config.max_num_seqs)
        self.max_in_flight = rows + max(1, rows // 4)

    def facts(self) -> dict[str, Any]:
        """Return ``dtype``, ``vocab_size``, ``max_in_flight`` and `model_settings` of the model."""
        config = self._engine.vllm_config.model_config
        return {
            "dtype": str(config.dtype).removeprefix("torch."),
            "vocab_size": int(config.get_vocab_size()),
            "max_in_flight": self.max_in_flight,
            # As text: what a configuration may hold need not go through Ray.
            "model_settings": canonical(model_settings(self._engine.vllm_config)),
        }

    def advance(self, jobs: Sequence[Job]) -> list[Finished]:
        """Take new requests in, if any, and run until some are finished, or all."""
        for job in jobs:
            job.params.output_kind = RequestOutputKind.FINAL_ONLY
            self._engine.add_request(
                job.key, job.engine_input, job.params, lora_request=self._lora_request
            )
            self._in_flight.add(job.key)
        outputs: list[Any] = []
        while len(outputs) < min(_FETCHED_TOGETHER, len(self._in_flight)):
            outputs += [output for output in self._engine.step() if output.finished]
        keys = [output.request_id for output in outputs]
        self._in_flight.difference_update(keys)
        values: dict[str, bytes] = {}
        for answer in self.ask("lm_eval_ext_take", keys):
            values.update(answer)
        return [_finished(output, values[output.request_id]) for output in outputs]

    def drop(self) -> None:
        """Give up every request, and forget what was sampled after a stop string."""
        if self._in_flight:
            self._engine.abort_request(list(self._in_flight))
            self._in_flight.clear()
        self.ask("lm_eval_ext_forget")

    def ask(self, method: str, *arguments: Any) -> list[Any]:
        """Return the answers of the workers to a method of `AttemptWorker`."""
        return list(self._llm.collective_rpc(method, args=arguments))


def _finished(output: Any, values: bytes) -> Finished:
    sample = output.outputs[0]
    token_ids = tuple(int(i) for i in sample.token_ids)
    return Finished(output.request_id, token_ids, sample.finish_reason, sample.stop_reason, values)

"""Several vLLM engines behind one: data parallelism with Ray, as lm-eval does it.

lm-eval starts its replicas for every call and ends them after it. Attempts go in and come out one
by one, so these stay until a loglikelihood request needs their place.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval_ext.errors import UserError
from lm_eval_ext.vllm_engine.engine_loop import EngineLoop, Finished, Job

# Ray hands the driver's environment on, and vLLM would take a replica for a part of a group.
_OF_A_GROUP = ("VLLM_DP_RANK", "VLLM_DP_RANK_LOCAL", "VLLM_DP_SIZE", "VLLM_DP_MASTER_IP")


class Replicas:
    """Engines in Ray actors, made with `model_args`, with the methods of one `EngineLoop`."""

    def __init__(self, count: int, model_args: Mapping[str, Any], lora_request: Any = None) -> None:
        # A replica inside a Ray actor chooses its own executor: Ray's would wait for its actor.
        self._model_args = {
            k: v for k, v in model_args.items() if k != "distributed_executor_backend"
        }
        self._count, self._lora_request = count, lora_request
        self._actors: list[Any] = []
        self._queued: list[list[Job]] = [[] for _ in range(count)]
        self._in_flight = [0] * count
        self._running: dict[Any, int] = {}  # Ray's reference of a call -> number of the replica
        self._facts: dict[str, Any] = {}

    def facts(self) -> dict[str, Any]:
        """Return `EngineLoop.facts` for all of them together."""
        self._start()
        return {**self._facts, "max_in_flight": self.max_in_flight}

    @property
    def max_in_flight(self) -> int:
        """Requests they take at once."""
        self._start()
        return self._count * int(self._facts["max_in_flight"])

    def advance(self, jobs: Sequence[Job]) -> list[Finished]:
        """Take requests in and run until some are finished; see `EngineLoop.advance`."""
        import ray

        self._start()
        for job in jobs:
            least = min(range(self._count), key=self._in_flight.__getitem__)
            self._queued[least].append(job)
            self._in_flight[least] += 1
        busy = set(self._running.values())
        for number in range(self._count):
            if number not in busy and self._in_flight[number]:
                call = self._actors[number].advance.remote(self._queued[number])
                self._running[call] = number
                self._queued[number] = []
        if not self._running:
            return []
        (call, *_), _ = ray.wait(list(self._running), num_returns=1)
        number = self._running.pop(call)
        finished: list[Finished] = self._get(call)
        self._in_flight[number] -= len(finished)
        return finished

    def drop(self) -> None:
        """Give up every request; see `EngineLoop.drop`."""
        if not self._actors:
            return
        self._get(list(self._running))
        self._get([actor.drop.remote() for actor in self._actors])
        self._running.clear()
        self._queued = [[] for _ in range(self._count)]
        self._in_flight = [0] * self._count

    def ask(self, method: str, *arguments: Any) -> list[Any]:
        """Return the answers of the first replica's workers; all replicas hold the same model."""
        self._start()
        answers: list[Any] = self._get(self._actors[0].ask.remote(method, *arguments))
        return answers

    def close(self) -> None:
        """End the replicas; they start again when they are needed."""
        import ray

        self._actors.clear()
        if ray.is_initialized():
            ray.shutdown()

    def _start(self) -> None:
        if self._actors:
            return
        import ray
        from vllm.platforms import current_platform

        gpus = 0 if current_platform.is_cpu() else self._model_args["tensor_parallel_size"]
        actor = ray.remote(num_gpus=gpus)(_Replica)
        self._actors = [
            actor.remote(self._model_args, self._lora_request) for _ in range(self._count)
        ]
        self._facts = self._get([actor.facts.remote() for actor in self._actors])[0]

    def _get(self, calls: Any) -> Any:
        """Return the answers of calls, or end all replicas where one is gone."""
        import ray

        try:
            return ray.get(calls)
        except ray.exceptions.RayActorError as error:
            self._running.clear()
            self.close()
            reason = str(error).strip().splitlines()[-1].strip().rstrip(".")
            raise UserError(
                f"data_parallel_size={self._count}: a replica of vLLM is gone ({reason}); run the "
                "same command again, which with store= resumes"
            ) from error


class _Replica(EngineLoop):
    """An engine loop that makes its engine, inside a Ray actor."""

    def __init__(self, model_args: dict[str, Any], lora_request: Any) -> None:
        from vllm import LLM

        from lm_eval_ext.vllm_engine.loading import RUNNER, model_runner

        for name in _OF_A_GROUP:
            os.environ.pop(name, None)
        os.environ[RUNNER] = str(model_runner(model_args) - 1)
        super().__init__(LLM(**model_args), lora_request)

"""Resume with fewer rows where memory runs out."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch

from lm_eval_ext.engine.request import AttemptRequest, AttemptResult
from lm_eval_ext.errors import UserError

logger = logging.getLogger(__name__)

# What PyTorch's allocators say in a plain RuntimeError, and the libraries it calls, in lower case.
_COMPLAINTS = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "_alloc_failed",  # CUBLAS_STATUS_ALLOC_FAILED and its like of cuDNN, cuSOLVER
    "_allocation_failed",  # CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED
)


class RunsAttempts(Protocol):
    """A decoder."""

    def run(self, requests: Sequence[AttemptRequest]) -> Iterator[tuple[int, AttemptResult]]:
        """Yield (index of the request, result) in any order."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on a GPU or a CPU.

    Examples
    --------
    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))
    True
    >>> is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling ..."))
    True
    >>> is_out_of_memory(RuntimeError("shapes do not match"))
    False
    """
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(
        complaint in str(error).lower() for complaint in _COMPLAINTS
    )


class RowBudget:
    """The `limit` of attempts decoded at once: None at first, halved when memory runs out."""

    def __init__(self) -> None:
        self.limit: int | None = None

    def decode(
        self,
        make_decoder: Callable[[int], RunsAttempts],
        requests: Sequence[AttemptRequest],
        rows: int,
    ) -> Iterator[tuple[int, AttemptResult]]:
        """Yield (index of the request, result); when memory runs out, retry with half the rows.

        Raises
        ------
        UserError
            If memory does not suffice for one attempt.
        """
        before = [request.stream.bit_generator.state for request in requests]
        waiting = list(range(len(requests)))
        while True:
            rows = min(rows, len(waiting), self.limit or rows)
            done: set[int] = set()
            reason = None
            try:
                for j, result in make_decoder(rows).run([requests[i] for i in waiting]):
                    done.add(waiting[j])
                    yield waiting[j], result
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error).partition("\n")[0]
            if reason is None:
                return
            # Out of the handler: its traceback kept the tensors of the failed pass.
            waiting = [i for i in waiting if i not in done]
            self._halve(min(rows, len(waiting)), reason)
            for i in waiting:  # from the first draw: the text is that of the attempt's stream
                requests[i].stream.bit_generator.state = before[i]

    def _halve(self, rows: int, reason: str) -> None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if rows <= 1:
            raise UserError(
                f"memory does not suffice for one attempt at a time ({reason}): lower max_gen_toks "
                "(--gen_kwargs max_gen_toks=...), choose a smaller dtype, or free memory"
            )
        self.limit = rows // 2
        logger.warning(
            "memory ran out with %d attempts at once (%s): resuming with %d",
            rows,
            reason,
            self.limit,
        )


def annotated_within_memory(
    annotate: Callable[[Sequence[Any], list[Any]], list[Any]],
    requests: Sequence[Any],
    attempts: list[Any],
) -> list[Any]:
    """Return attempts annotated, in halves where memory does not suffice for all."""
    try:
        return annotate(requests, attempts)
    except Exception as error:
        if not is_out_of_memory(error) or len(requests) < 2:
            raise
    half = len(requests) // 2
    logger.warning("memory ran out: annotating %d attempts in halves", len(requests))
    return [
        *annotated_within_memory(annotate, requests[:half], attempts[:half]),
        *annotated_within_memory(annotate, requests[half:], attempts[half:]),
    ]

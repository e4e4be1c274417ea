"""A model that reads finished responses, packed where it can and plainly where it cannot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from lm_eval_ext.engine.memory import free_bytes
from lm_eval_ext.engine.packed import (
    packed_logits,
    packed_misfit,
    packed_mode,
    plain_logits,
)
from lm_eval_ext.engine.packed_layout import ForcedAttempt, PackedAttempts, n_common
from lm_eval_ext.engine.packed_weights import packed_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# More tokens per pass than this only fill the CPU's cache; a GPU wants more to be busy.
_MOST_TOKENS_ON_CPU = 2048
_MOST_TOKENS_ON_GPU = 16384
# Share of the free memory that the logits of a pass may fill, all models together.
_USABLE_SHARE = 0.2


class ForcedModel:
    """Gives the logits along finished responses.

    Attributes
    ----------
    misfit
        Why packed passes do not fit the model, or None: see `lm_eval_ext.engine.packed`.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.misfit = packed_misfit(model)

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Prepare the model for any number of passes.

        Passes are long, where packing weights saves nothing; those decoding has packed are used.
        """
        with packed_weights(self.model):
            if self.misfit is not None:
                yield
                return
            with packed_mode(self.model):
                yield

    def logits(self, attempts: Sequence[ForcedAttempt], packed: PackedAttempts) -> torch.Tensor:
        """Return the logits that predict the response tokens, shape (n_tokens, vocabulary)."""
        if self.misfit is not None:
            return plain_logits(self.model, attempts)
        return packed_logits(self.model, packed)

    @property
    def n_bytes(self) -> int:
        """Memory of the parameters."""
        return sum(p.numel() * p.element_size() for p in self.model.parameters())


def tokens_per_pass(device: torch.device, *, width: int, n_logits: int) -> int:
    """Return how many tokens to read at once.

    Parameters
    ----------
    device
        Where the logits are compared.
    width
        Size of the vocabulary.
    n_logits
        How many logits of the vocabulary are held per token, all models together.
    """
    most = _MOST_TOKENS_ON_CPU if device.type == "cpu" else _MOST_TOKENS_ON_GPU
    fitting = _USABLE_SHARE * free_bytes(device) / (4 * width * n_logits)
    return max(1, min(most, int(fitting)))


def blocks(attempts: Sequence[ForcedAttempt], max_tokens: int) -> Iterator[list[int]]:
    """Yield the places of attempts to read together: those of a prompt first, then equal lengths.

    Parameters
    ----------
    attempts
        The attempts.
    max_tokens
        Most tokens of a block, prompts and what they have in common counted once; an attempt longer
        than that is alone.
    """
    longest: dict[tuple[int, ...], int] = {}
    for attempt in attempts:
        length = len(attempt.response_ids)
        longest[attempt.prompt_ids] = max(length, longest.get(attempt.prompt_ids, 0))
    order = sorted(
        range(len(attempts)),
        key=lambda i: (
            -longest[attempts[i].prompt_ids],
            attempts[i].prompt_ids,
            -len(attempts[i].response_ids),
        ),
    )
    block: list[int] = []
    prompts: list[tuple[int, ...]] = []
    n_responses = 0
    for i in order:
        prompt_ids, response_ids = attempts[i]
        new = prompts if prompt_ids in prompts[-1:] else [*prompts, prompt_ids]
        if block and n_responses + len(response_ids) + _n_tokens(new) > max_tokens:
            yield block
            block, new, n_responses = [], [prompt_ids], 0
        block.append(i)
        prompts = new
        n_responses += len(response_ids)
    if block:
        yield block


def _n_tokens(prompts: Sequence[tuple[int, ...]]) -> int:
    """Return the tokens of distinct prompts, what they have in common counted once."""
    return sum(map(len, prompts)) - n_common(prompts) * (len(prompts) - 1)

"""What random soft prompts do to the first generated tokens.

The entropy of the mixture over draws r splits exactly into

.. math:: H(E_r p_r) = E_r H(p_r) + I(y; r)

The first term grows when each draw makes the model less certain, as a higher temperature would;
the second when draws disagree, so that attempts branch. Only the split tells the two apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from lm_eval_ext.engine.attention_override import attention_override
from lm_eval_ext.engine.request import AttemptRequest
from lm_eval_ext.engine.teacher_forcing import teacher_forced_logits
from lm_eval_ext.metrics.checks import FloatArray
from lm_eval_ext.model_wrappers.sampled import SampledLM

_MAX_ROWS = 64


class EntropySplit(NamedTuple):
    """Entropy of the next token and its two parts, nats, each of shape (n_tokens,).

    Parameters
    ----------
    total
        Entropy of the mean distribution over draws.
    within
        Mean entropy of each draw's distribution: how flat draws are.
    between
        Mutual information of token and draw: how much draws disagree; at least 0.
    """

    total: FloatArray
    within: FloatArray
    between: FloatArray


def split_entropy(log_probs: torch.Tensor) -> EntropySplit:
    """Split the entropy of a mixture over draws.

    Parameters
    ----------
    log_probs
        Shape (n_draws, n_tokens, vocabulary), float64.

    Examples
    --------
    >>> opposite = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]], dtype=torch.float64).log()
    >>> split = split_entropy(opposite)
    >>> [round(float(part[0]), 4) for part in split]
    [0.6931, 0.0, 0.6931]
    """
    mixture = torch.logsumexp(log_probs, dim=0) - np.log(log_probs.shape[0])
    total = torch.special.entr(mixture.exp()).sum(-1)
    within = torch.special.entr(log_probs.exp()).sum(-1).mean(0)
    return EntropySplit(total.numpy(), within.numpy(), (total - within).clamp_min(0).numpy())


def entropy_along(
    lm: SampledLM, prompt: str, token_ids: Sequence[int], *, n_draws: int
) -> EntropySplit:
    """Return the entropy split at each position of a fixed continuation.

    Parameters
    ----------
    lm
        The model; a wrapper without randomness in its input has no entropy between draws.
    prompt
        The rendered prompt.
    token_ids
        The continuation every draw is made to follow.
    n_draws
        Number of draws.
    """
    requests = _requests(lm, prompt, n_draws)
    logits = teacher_forced_logits(
        lm.model, requests, [list(token_ids)] * n_draws, max_rows=_MAX_ROWS
    )
    return split_entropy(
        torch.stack([torch.log_softmax(row.cpu().double(), dim=-1) for row in logits])
    )


@torch.inference_mode()
def attention_on_vectors(lm: SampledLM, prompt: str, token_ids: Sequence[int]) -> FloatArray:
    """Return the attention that injected positions get, at each position of a continuation.

    Mean over layers and heads, from the attention weights of an eager forward pass, for the first
    draw.

    Returns
    -------
    numpy.ndarray
        Shape (n_tokens,), in [0, 1]: entry t belongs to the position that predicts token t.
    """
    (request,) = _requests(lm, prompt, 1)
    if request.vectors is None:
        return np.zeros(len(token_ids))
    embed = lm.model.get_input_embeddings()

    def embedded(ids: Sequence[int]) -> torch.Tensor:
        return embed(torch.tensor(ids, dtype=torch.int64, device=lm.model.device))

    inputs = torch.cat(
        [
            embedded(request.shared_ids),
            request.vectors.draw().to(embed.weight),
            embedded([*request.private_ids, *token_ids[:-1]]),
        ]
    )
    first = len(request.shared_ids)
    vectors = slice(first, first + request.n_vectors)
    with attention_override(lm.model, name="eager"):
        output = lm.model(inputs_embeds=inputs[None], output_attentions=True, use_cache=False)
    mass = [
        layer[0, :, -len(token_ids) :, vectors].cpu().double().sum(-1).mean(0).numpy()
        for layer in output.attentions
    ]
    return np.mean(mass, axis=0)


def distinct_prefixes(attempts: Sequence[Sequence[int]], n_tokens: int) -> FloatArray:
    """Return the share of distinct beginnings among attempts, for 1 to `n_tokens` tokens.

    Parameters
    ----------
    attempts
        Token ids of the attempts at one question.
    n_tokens
        Longest beginning.

    Returns
    -------
    numpy.ndarray
        Shape (n_tokens,), in (0, 1]; 1 where no two attempts begin alike.

    Examples
    --------
    >>> distinct_prefixes([(1, 2), (1, 3), (1, 2)], 2).round(2).tolist()
    [0.33, 0.67]
    """
    return np.array(
        [
            len({tuple(ids[:length]) for ids in attempts}) / len(attempts)
            for length in range(1, n_tokens + 1)
        ]
    )


def _requests(lm: SampledLM, prompt: str, n_draws: int) -> list[AttemptRequest]:
    token_ids = lm.prompt_token_ids(prompt)
    return [lm.attempt_request(prompt, token_ids, draw) for draw in range(n_draws)]

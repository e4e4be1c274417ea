"""Losses are the model's own, padded batches or not, and the interval is over sequences."""

import numpy as np
import pytest
import torch

from lm_eval_ext.commands.prune.perplexity import perplexity, token_nll
from lm_eval_ext.metrics import t_interval


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt_neox"])
def test_losses_are_those_of_one_sequence_at_a_time(random_model, name):
    model = random_model(name)
    generator = torch.Generator().manual_seed(0)
    sequences = [torch.randint(5, 700, (n,), generator=generator) for n in (4, 30, 2, 11)]
    ours = token_nll(model, [sequence.tolist() for sequence in sequences])
    for values, sequence in zip(ours, sequences, strict=True):
        with torch.inference_mode():
            loss = model(input_ids=sequence[None], labels=sequence[None]).loss
        assert values.shape == (len(sequence) - 1,)
        assert values.mean() == pytest.approx(float(loss), abs=1e-5)


def test_perplexity_is_per_token_and_its_interval_over_sequences():
    rng = np.random.default_rng(0)
    nll = [rng.exponential(size=n) + i for i, n in enumerate((5, 20, 9))]
    found = perplexity(nll)
    tokens = np.concatenate(nll)
    assert found.mean_nll == pytest.approx(tokens.mean())
    assert found.estimate == pytest.approx(np.exp(tokens.mean()))
    assert (found.n_sequences, found.n_tokens) == (3, 34)
    expected = t_interval(tokens, np.repeat([0, 1, 2], [5, 20, 9]))
    assert np.log([found.low, found.high]) == pytest.approx([expected.low, expected.high])

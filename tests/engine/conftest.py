"""Fixtures for the engine: attempts over random prompts, and a way to run a decoder."""

import numpy as np
import pytest

from lm_eval_ext.engine.random_stream import attempt_stream
from lm_eval_ext.engine.request import AttemptRequest, Vectors, common_prefix_split


@pytest.fixture(scope="session")
def make_requests():
    """Return a function that makes the same attempts every time it is called.

    Prompts differ in length, one is a single token (nothing to share); with ``vectors`` a third of
    the attempts carries some.
    """

    def make(n_prompts=6, n_attempts=4, *, hidden_size=64, vectors=False, vocabulary=90):
        import torch

        draws = np.random.default_rng(0)
        requests = []
        for prompt_number in range(n_prompts):
            length = 1 if prompt_number == 0 else int(draws.integers(2, 24))
            token_ids = [int(i) for i in draws.integers(5, vocabulary, length)]
            for attempt in range(n_attempts):
                shared, private = common_prefix_split(token_ids)
                injected = None
                if vectors and prompt_number % 3 == 1:
                    generator = torch.Generator().manual_seed(attempt)
                    drawn = torch.randn(1 + attempt % 3, hidden_size, generator=generator)
                    injected = Vectors(len(drawn), drawn.clone)
                stream = attempt_stream(0, str(token_ids), attempt, purpose="tokens")
                requests.append(AttemptRequest(shared, private, stream, injected))
        return requests

    return make


@pytest.fixture(scope="session")
def decode(tiny_tokenizer):
    """Return a function that runs a decoder class over attempts: results by place."""
    from lm_eval_ext.engine.sampling import Sampler
    from lm_eval_ext.engine.sampling_settings import SamplingSettings
    from lm_eval_ext.engine.stop_strings import StopStrings

    def run(decoder_class, model, requests, *, max_rows, stop=(), eos=(), **settings):
        values = {"max_new_tokens": 16, "do_sample": True, "stop": stop, **settings}
        decoder = decoder_class(
            model,
            sampler=Sampler(SamplingSettings(**values)),
            stop=StopStrings(tiny_tokenizer, stop),
            eos_token_ids=eos,
            max_rows=max_rows,
        )
        return dict(decoder.run(requests))

    return run

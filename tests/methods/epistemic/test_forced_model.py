"""How responses are divided into passes."""

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_ext.engine.packed import ForcedAttempt
from lm_eval_ext.methods.epistemic.forced_model import blocks, tokens_per_pass

ATTEMPTS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(1, 40)).map(
        lambda pair: ForcedAttempt((7,) * (3 * pair[0] + 1), (5,) * pair[1])
    ),
    max_size=30,
)


@given(attempts=ATTEMPTS, max_tokens=st.integers(1, 120))
def test_blocks_hold_every_attempt_once_and_few_tokens(attempts, max_tokens):
    found = list(blocks(attempts, max_tokens))
    assert sorted(i for block in found for i in block) == list(range(len(attempts)))
    for block in found:
        prompts = {attempts[i].prompt_ids for i in block}
        n_tokens = sum(len(attempts[i].response_ids) for i in block) + sum(map(len, prompts))
        assert len(block) == 1 or n_tokens <= max_tokens


def test_attempts_of_a_prompt_stand_together():
    attempts = [ForcedAttempt((i % 3,), (5,) * (i + 1)) for i in range(12)]
    (block,) = blocks(attempts, 1000)
    prompts = [attempts[i].prompt_ids for i in block]
    assert len([a for a, b in itertools.pairwise(prompts) if a != b]) == 2


def test_a_large_vocabulary_means_fewer_tokens():
    small, large = (
        tokens_per_pass(torch.device("cpu"), width=width, n_logits=5) for width in (100, 10**9)
    )
    assert small == 2048
    assert 1 <= large < small

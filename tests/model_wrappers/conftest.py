"""Requests for attempts."""

import pytest
from lm_eval.api.instance import Instance

QUESTIONS = [
    "Question: Ann has 3 apples and buys 4 more. How many has she?\nAnswer:",
    "Question: A box holds 12 eggs. How many eggs are in 7 boxes?\nAnswer:",
    "Problem: Compute 2+3.\nSolution:",
    "x",
]


@pytest.fixture(scope="session")
def make_requests():
    """Return a function that asks for attempts the way lm-eval does."""

    def make(prompts=None, n_attempts=3, **settings):
        values = {"do_sample": True, "temperature": 0.8, "max_gen_toks": 12, "until": ["Question"]}
        values.update(settings)
        requests = []
        for number, prompt in enumerate(QUESTIONS if prompts is None else prompts):
            instance = Instance(
                "generate_until", {}, (prompt, dict(values)), 0, ("task", number, n_attempts)
            )
            requests += [instance] * n_attempts
        return requests

    return make

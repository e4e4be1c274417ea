"""Small models that keep their attempts."""

import pytest

PROMPTS = [
    "Question: Ann has 3 apples and buys 4 more. How many has she?\nAnswer:",
    "Question: A box holds 12 eggs. How many eggs are in 7 boxes?\nAnswer:",
    "Problem: Compute 2+3.\nSolution:",
    "x",
]


@pytest.fixture(scope="session")
def make_lm(wrappers, random_model, tiny_tokenizer):
    """Return a function that makes a wrapper around a random model."""

    def make(name="sampled", *, architecture="llama", **arguments):
        settings = {"seed": 0, "batch_size": 4, **arguments}
        if name == "draft-eu":
            settings.setdefault("drafts", "tiny")
        if name == "sink-pruned":
            settings.setdefault("calibration", "tiny")
            settings.setdefault("calibration_size", 4)
        settings.setdefault("tokenizer", tiny_tokenizer)
        return wrappers[name](random_model(architecture), **settings)

    return make


@pytest.fixture(scope="session")
def complete():
    """Return a function that samples attempts at four prompts."""
    from lm_eval_ext.harness import requests as harness

    def run(lm, n_attempts=3, prompts=PROMPTS, **settings):
        asked = [prompt for prompt in prompts for _ in range(n_attempts)]
        values = {"do_sample": True, "temperature": 0.8, "max_gen_toks": 12, **settings}
        return harness.complete(lm, asked, **values)

    return run


@pytest.fixture(scope="session")
def encoded():
    """Return a function that spells out attempts, bit for bit."""
    from lm_eval_ext.store.encoding import encode_generation

    return lambda generations: [encode_generation(one) for one in generations]


@pytest.fixture
def store_lines():
    """Return a function that returns the lines of a store's files."""

    def lines(folder):
        return [line for path in sorted(folder.glob("*.jsonl")) for line in path.open("rb")]

    return lines

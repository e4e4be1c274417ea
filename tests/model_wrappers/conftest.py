"""Every wrapper, with the settings under which it must change nothing."""

import pytest
from lm_eval.api.instance import Instance

QUESTIONS = [
    "Question: Ann has 3 apples and buys 4 more. How many has she?\nAnswer:",
    "Question: A box holds 12 eggs. How many eggs are in 7 boxes?\nAnswer:",
    "Problem: Compute 2+3.\nSolution:",
    "x",
]

# (class, arguments that make it a wrapper, arguments that make it `sampled`). A new wrapper adds
# a line here and gets every test of the matrix.
WRAPPERS = {
    "sampled": ("sampled:SampledLM", {}, {}),
    "rsp": ("rsp:RSP", {"length": 4}, {"length": 0}),
    "draft-eu": ("draft_eu:DraftEU", {"drafts": "tiny"}, {"drafts": "tiny+tiny"}),
    "epicar": ("epicar:EpiCaRLM", {"calibration_temperature": 2.0}, {"self_eval": True}),
    "sink-pruned": (
        "sink_pruned:SinkPrunedLM",
        {"ratio": 0.25, "calibration": "tiny"},
        {"ratio": 0},
    ),
}


@pytest.fixture(scope="session")
def wrapper_class():
    """Return a function that imports a wrapper's class by name."""
    import importlib

    def find(name):
        module, _, class_name = WRAPPERS[name][0].partition(":")
        return getattr(importlib.import_module(f"lm_eval_ext.model_wrappers.{module}"), class_name)

    return find


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


def pytest_generate_tests(metafunc):
    """Run a test that asks for ``wrapper_name`` or ``method`` once per wrapper."""
    if "wrapper_name" in metafunc.fixturenames:
        metafunc.parametrize("wrapper_name", WRAPPERS)
    if "method" in metafunc.fixturenames:
        # All but the control itself, with their neutral arguments.
        methods = {name: neutral for name, (_, _, neutral) in WRAPPERS.items() if neutral}
        metafunc.parametrize("method", methods.items(), ids=methods)


@pytest.fixture
def arguments(wrapper_name):
    """Return the wrapper's own arguments."""
    return WRAPPERS[wrapper_name][1]


@pytest.fixture
def neutral_arguments(wrapper_name):
    """Return the arguments under which the wrapper changes nothing."""
    return WRAPPERS[wrapper_name][2]

"""Names of models are resolved wherever a model can be named."""

from types import SimpleNamespace

import pytest

from lm_eval_ext.errors import UserError
from lm_eval_ext.models.fetching import CACHE_VARIABLE, FETCHED
from lm_eval_ext.models.model_loading import MODEL_NAMES, model_location
from lm_eval_ext.models.shipped import SHIPPED, model_path


def dapo_model(name):
    pytest.importorskip("trl")
    from lm_eval_ext.training.dapo.job import DapoRuntime, _Run

    _Run(SimpleNamespace(pretrained=name), SimpleNamespace(path=None), DapoRuntime())


def base_model(name):
    from lm_eval_ext.training.self_training.models import base_model

    base_model(SimpleNamespace(pretrained=name))


def planned(name):
    from lm_eval_ext.commands.plan.model_shape import read_shape

    read_shape(name)


def planned_prompts(name):
    from lm_eval_ext.commands.plan.task_workload import _mean_tokens

    _mean_tokens(["a prompt"], name)


def drafts(name):
    from lm_eval_ext.methods.epistemic.drafts import draft_names

    draft_names(f"tiny+{name}")


def draft_init(name):
    from lm_eval_ext.training.drafts.initialization import build_draft

    build_draft(name, target=None, tokenizer=None, seed=0)


def wrapper(name):
    from lm_eval_ext.model_wrappers.sampled import SampledLM

    SampledLM(name)


def pruned(name):
    from lm_eval_ext.commands.prune.options import ModelOptions
    from lm_eval_ext.commands.prune.subject import load_subject

    load_subject(ModelOptions(pretrained=name))


def path(name):
    from lm_eval_ext.commands.path import PathOptions, run

    run(PathOptions(name))


PLACES = {
    "pretrained": [wrapper, pruned, base_model, dapo_model, model_location],
    "--pretrained": [planned, planned_prompts],
    "drafts": [drafts],
    "draft_init": [draft_init],
    "name": [path],
}


@pytest.mark.parametrize(
    ("argument", "place"), [(name, place) for name, places in PLACES.items() for place in places]
)
@pytest.mark.parametrize("name", FETCHED)
def test_a_model_that_is_not_fetched_names_the_command(
    tmp_path, monkeypatch, name, argument, place
):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    said = f"^{argument}={name}: not in the cache {tmp_path} yet; run lm-eval-ext fetch {name}$"
    with pytest.raises(UserError, match=said):
        place(name)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_models_lie_in_the_package(name):
    assert model_location(name) == model_path(name)


@pytest.mark.parametrize("name", ["some/model", "./smollm2", "HuggingFaceTB/SmolLM2-135M", ""])
def test_other_texts_stay(name):
    """The published model in bfloat16 keeps its Hub id."""
    assert model_location(name) == name


def test_names_are_told_apart():
    assert len(set(MODEL_NAMES)) == len(SHIPPED) + len(FETCHED)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            {"pretrained": "models/small.Q8.gguf"},
            "is one file: give its folder and its name, pretrained=models,gguf_file=small.Q8.gguf",
        ),
        ({"pretrained": "small.gguf"}, "pretrained=.,gguf_file=small.gguf"),
        ({"pretrained": "tinny"}, r"\(did you mean tiny\?\)"),
        ({"dtipe": "float32"}, "unexpected keyword argument 'dtipe': did you mean dtype?"),
    ],
)
def test_a_mistake_is_answered_with_what_was_meant(monkeypatch, arguments, said):
    from lm_eval_ext.model_wrappers.sampled import SampledLM

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=said):
        SampledLM(**{"pretrained": "tiny", "device": "cpu", **arguments})


def test_a_gpu_that_is_not_there_is_said_to_be_missing(monkeypatch):
    import torch

    from lm_eval_ext.model_wrappers.sampled import SampledLM

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="^device=cuda: torch finds no GPU here"):
        SampledLM("tiny", device="cuda")

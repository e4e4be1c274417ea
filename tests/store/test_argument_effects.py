"""A setting nobody has thought of keys for changes the key."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from lm_eval.models.huggingface import HFLM

from lm_eval_ext.errors import UserError
from lm_eval_ext.harness import bridge
from lm_eval_ext.model_wrappers.rsp import RSP
from lm_eval_ext.model_wrappers.sampled import SampledLM
from lm_eval_ext.store.argument_effects import NO_EFFECT, SAMPLED_ARGUMENTS, Effect


class Stronger(SampledLM):
    """As a user writes one: no declaration, no key_settings."""

    def __init__(self, pretrained, *, strength=1.0, what=None, **arguments):
        super().__init__(pretrained, **arguments)
        self.strength = strength

    def token_stream(self, prompt, attempt):
        return super().token_stream(f"{prompt}{self.strength}", attempt)


class StrongerStill(Stronger):
    def __init__(self, pretrained, *, more=0, **arguments):
        super().__init__(pretrained, **arguments)


class FromTheRest(SampledLM):
    def __init__(self, pretrained, **arguments):
        self.depth = arguments.pop("depth", 1)
        super().__init__(pretrained, **arguments)


class OwnScale(RSP):
    """Takes an argument of its base's name and does not pass it on."""

    def __init__(self, pretrained, *, scale=1.0, **arguments):
        super().__init__(pretrained, **arguments)
        self.own_scale = scale


class PassesOn(RSP):
    argument_effects: ClassVar = {}

    def __init__(self, pretrained, *, scale=1.0, **arguments):
        super().__init__(pretrained, scale=scale, **arguments)


class OldStyle(SampledLM):
    def __init__(self, pretrained, *, twist=0, pace=1, **arguments):
        super().__init__(pretrained, **arguments)
        self.twist = twist

    def key_settings(self):
        return {"twist": self.twist} if self.twist else {}


class Declared(SampledLM):
    argument_effects: ClassVar = {
        "twist": Effect("text", "twist"),
        "flavor": Effect("text"),
        "note": Effect("annotation"),
        "pace": NO_EFFECT,
    }

    def __init__(self, pretrained, *, twist=0, flavor="a", note="b", pace=1, **arguments):
        super().__init__(pretrained, **arguments)
        self.twist = twist

    def key_settings(self):
        return {"twist": self.twist} if self.twist else {}

    def annotate(self, requests, generations):
        return [one.annotated(extra={"note": 1}) for one in generations]


class OnlyAnnotates(SampledLM):
    def annotate(self, requests, generations):
        return [one.annotated(extra={"seen": 1}) for one in generations]


class Samples(SampledLM):
    """Changes how attempts are sampled, and has no argument."""

    def token_stream(self, prompt, attempt):
        return super().token_stream(prompt, attempt + 1)


@pytest.fixture
def names(random_model, tiny_tokenizer, tmp_path, complete):
    """Return a function that gives the names of both contexts of a wrapper."""

    def of(kind, **arguments):
        lm = kind(
            random_model("llama"), tokenizer=tiny_tokenizer, seed=0, batch_size=4,
            store=tmp_path, **arguments,
        )  # fmt: skip
        from lm_eval_ext.engine.sampling_settings import resolve_settings
        from lm_eval_ext.store.run_contexts import run_contexts

        settings = resolve_settings({}, max_new_tokens=4, stop=(), model_defaults=None)
        found = run_contexts(lm, settings)
        return found.text.name, found.final.name

    return of


@dataclass
class Shape:
    width: int = 1


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        (Stronger, {}, {"strength": 2.0}),
        (Stronger, {"strength": 0.5}, {"strength": 2.0}),
        (Stronger, {"what": "a"}, {"what": "b"}),
        (Stronger, {"what": [1, 2]}, {"what": [2, 1]}),
        (Stronger, {"what": torch.zeros(2000)}, {"what": torch.arange(2000.0)}),
        (Stronger, {"what": torch.zeros(4)}, {"what": torch.zeros(2, 2)}),
        (Stronger, {"what": np.zeros(2000)}, {"what": np.arange(2000.0)}),
        (Stronger, {"what": Path("a")}, {"what": Path("b")}),
        (Stronger, {"what": Shape(1)}, {"what": Shape(2)}),
        (Stronger, {"what": np.mean}, {"what": np.median}),
        (Stronger, {"what": {"a": {1, 2}}}, {"what": {"a": {1, 3}}}),
        (StrongerStill, {}, {"more": 1}),
        (StrongerStill, {}, {"strength": 2.0}),
        (FromTheRest, {}, {"depth": 2}),
        (OwnScale, {}, {"scale": 2.0}),
        (OldStyle, {}, {"twist": 1}),
        (OldStyle, {}, {"pace": 2}),  # undeclared
        (Declared, {}, {"twist": 1}),
        (Declared, {}, {"flavor": "b"}),
        (PassesOn, {}, {"scale": 2.0}),
    ],
)
def test_two_settings_have_two_keys(names, kind, one, other):
    assert names(kind, **one)[0] != names(kind, **other)[0]


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        (Stronger, {}, {"strength": 1.0}),
        (Stronger, {"what": torch.zeros(9)}, {"what": torch.zeros(9)}),
        (Stronger, {"what": {3, 1, 2}}, {"what": {1, 2, 3}}),
        (Stronger, {}, {"max_batch_size": 3}),
        (StrongerStill, {"more": 0}, {}),
        (Declared, {}, {"pace": 2}),
        (PassesOn, {"length": 0}, {"length": 0, "scale": 2.0}),
    ],
)
def test_the_same_settings_have_one_key(names, kind, one, other):
    assert names(kind, **one) == names(kind, **other)


def test_a_class_that_declares_nothing_is_not_taken_for_its_base(names):
    plain = names(SampledLM)
    assert len({plain, names(Stronger), names(StrongerStill), names(Samples)}) == 4
    assert names(PassesOn, length=0)[0] == names(RSP, length=0)[0] == plain[0]


def test_an_annotation_leaves_the_text_where_it_is(names):
    one, other = names(Declared), names(Declared, note="c")
    assert one[0] == other[0]
    assert one[1] != other[1]


def test_a_setting_is_kept_apart_in_a_store(random_model, tiny_tokenizer, complete, tmp_path):
    def run(strength):
        lm = Stronger(
            random_model("llama"), strength=strength, tokenizer=tiny_tokenizer, seed=0,
            batch_size=4, store=tmp_path,
        )  # fmt: skip
        return complete(lm), lm.store.n_appended

    (one, n_one), (other, n_other), (again, n_again) = run(1.0), run(2.0), run(1.0)
    assert one != other
    assert one == again
    assert (n_one, n_other, n_again) == (12, 12, 0)


def test_annotations_nobody_declared_are_kept_with_the_attempts(
    random_model, tiny_tokenizer, complete, tmp_path
):
    for n_appended in (24, 0):  # texts and annotated ones
        lm = OnlyAnnotates(
            random_model("llama"), tokenizer=tiny_tokenizer, seed=0, batch_size=4, store=tmp_path
        )
        assert all(one.record.extra == {"seen": 1} for one in complete(lm))
        assert lm.store.n_appended == n_appended


@pytest.mark.parametrize("value", [object(), lambda x: x, [object()], iter(())])
def test_what_has_no_text_is_one_line(names, value):
    with pytest.raises(UserError, match=r"what=.* of Stronger cannot .*argument_effects") as error:
        names(Stronger, what=value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("effect", ["text", ("text", None), Effect("txt")])
def test_a_wrong_declaration_is_refused_with_the_class(effect):
    with pytest.raises(TypeError, match="Wrong.argument_effects: it must be an Effect of kind"):
        type("Wrong", (SampledLM,), {"argument_effects": {"it": effect}})


def test_every_argument_of_lm_evals_class_is_declared():
    stated = set(inspect.signature(HFLM.__init__).parameters) - {"self", "kwargs"}
    assert stated <= SAMPLED_ARGUMENTS.keys()


def test_every_shipped_wrapper_is_in_the_list_of_the_tests_and_declares(wrappers):
    names = {entry.name for entry in bridge.entry_points("lm_eval.models")}
    assert {name for name in names if not name.endswith("-vllm")} == set(wrappers)
    for wrapper in wrappers.values():
        assert "argument_effects" in vars(wrapper)


def test_calling_a_wrapper_wrongly_says_what_it_always_said():
    with pytest.raises(TypeError, match="pretrained"):
        Stronger(strength=2)

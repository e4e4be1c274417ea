"""A generation is a string wherever lm-eval wants one, and keeps its record."""

import copy
import json
import pickle

import dill
import numpy as np
import pytest

from lm_eval_ext.models.generation import Generation, GenerationRecord, TokenStatistics


@pytest.fixture
def generation():
    columns = [np.arange(2, dtype=np.float32) + i for i in range(4)]
    record = GenerationRecord(
        attempt=3, token_ids=(5, 8), finish_reason="stop", statistics=TokenStatistics(*columns)
    )
    return Generation("The answer is 4.", record)


@pytest.mark.parametrize("module", [pickle, dill], ids=["pickle", "dill"])
def test_pickling_keeps_the_record(generation, module):
    restored = module.loads(module.dumps(generation))
    assert type(restored) is Generation
    assert restored == "The answer is 4."
    assert restored.record.attempt == 3
    np.testing.assert_array_equal(restored.record.statistics.margin, [3, 4])


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_copying_keeps_the_record(generation, duplicate):
    assert duplicate(generation).record.token_ids == (5, 8)


def test_lm_eval_may_rebuild_it_from_a_gold_answer(generation):
    """ConfigurableTask does ``type(result)(gold)`` before it compares."""
    assert type(generation)(42) == "42"
    assert type(generation)().record == GenerationRecord()


def test_it_is_a_plain_string_in_json(generation):
    assert json.loads(json.dumps([generation])) == ["The answer is 4."]


def test_take_first_keeps_the_record(generation):
    from lm_eval.api.registry import get_filter
    from lm_eval.filters.selection import TakeFirstFilter

    assert get_filter("take_first") is TakeFirstFilter
    (taken,) = TakeFirstFilter().apply([[generation, "other"]], [{}])
    assert taken.record.attempt == 3


def test_text_and_annotations_can_be_replaced(generation):
    changed = (
        generation.with_text("4")
        .annotated(probabilities={"self_eval": 0.5})
        .annotated(
            uncertainties={"draft_eu": 1.0},
            token_scores={"eu": np.float32([0.25, 0.75])},
            extra={"n_drafts": 4},
        )
    )
    assert changed == "4"
    assert changed.record.probabilities == {"self_eval": 0.5}
    assert changed.record.uncertainties == {"draft_eu": 1.0}
    assert changed.record.token_scores["eu"].tolist() == [0.25, 0.75]
    assert changed.record.extra == {"n_drafts": 4}
    assert changed.record.token_ids == (5, 8)
    assert generation.record.probabilities == generation.record.extra == {}


@pytest.mark.parametrize("probability", [-0.1, 1.5, float("nan")])
def test_an_impossible_probability_is_refused(generation, probability):
    with pytest.raises(ValueError, match="self_eval.*must be in"):
        generation.annotated(probabilities={"self_eval": probability})


def test_a_source_is_a_probability_or_an_uncertainty(generation):
    with pytest.raises(ValueError, match="'x' is a probability and an uncertainty"):
        generation.annotated(probabilities={"x": 0.5}).annotated(uncertainties={"x": 0.5})


def test_token_scores_must_fit_the_tokens(generation):
    with pytest.raises(ValueError, match="one value for each of the 2 tokens"):
        generation.annotated(token_scores={"eu": np.float32([0.25])})

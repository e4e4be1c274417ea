"""The highest go, as many as the ratio says, never from the first or last block."""

import itertools

import numpy as np
import pytest

from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.sinks.block_layout import Layout
from lm_eval_ext.methods.sinks.selection import Removal, select, select_evenly


def layout(n_layers=6, n_heads=4, n_kv_heads=2):
    return Layout(None, (None,) * n_layers, n_heads, n_kv_heads, None)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ratio", [0.0, 0.05, 0.125, 0.25, 0.4, 0.6])
@pytest.mark.parametrize("skip_first", [0, 1])
def test_no_other_choice_of_heads_scores_higher(seed, ratio, skip_first):
    # Few values, so that ties occur.
    scores = np.random.default_rng(seed).integers(0, 5, (6, 4)).astype(float)
    count = round(ratio * 24)
    if count > (4 - skip_first) * 4:
        pytest.skip("refused")
    removal = select(scores, ratio=ratio, unit="head", layout=layout(), skip_first=skip_first)
    assert len(set(removal.heads)) == count
    assert not removal.blocks
    allowed = [(i, h) for i in range(1 + skip_first, 5) for h in range(4)]
    expected = sorted(allowed, key=lambda place: (-scores[place], place))[:count]
    assert removal.heads == tuple(sorted(expected))


def test_groups_go_by_their_mean():
    scores = np.zeros((3, 4))
    scores[1] = [0.9, 0.0, 0.5, 0.5]
    removal = select(scores, ratio=1 / 6, unit="kv_group", layout=layout(3))
    assert removal.heads == ((1, 2), (1, 3))


def test_attention_goes_as_a_whole():
    scores = np.zeros((4, 4))
    scores[1, 0], scores[2] = 1.0, 0.3
    removal = select(scores, ratio=0.25, unit="attention", layout=layout(4))
    assert removal.heads == tuple((2, head) for head in range(4))


@pytest.mark.parametrize("scores", list(itertools.permutations([1.0, 2.0, 3.0, 4.0])))
def test_blocks_go_whole(scores):
    removal = select(np.array(scores), ratio=0.25, unit="block", layout=layout(4))
    assert removal.blocks == ((1,) if scores[1] > scores[2] else (2,))
    assert not removal.heads


@pytest.mark.parametrize("seed", range(4))
def test_even_removal_leaves_every_layer_alike(seed):
    scores = np.random.default_rng(seed).random((5, 12))
    big = layout(5, 12, 3)
    groups = select_evenly(scores, ratio=1 / 3, unit="kv_group", layout=big)
    heads = select_evenly(scores, ratio=0.25, unit="head", layout=big)
    for layer in range(5):
        (worst,) = {head // 4 for head in groups.heads_of(layer)}
        assert len(groups.heads_of(layer)) == 4
        assert worst == scores[layer].reshape(3, 4).mean(axis=1).argmax()
        expected = [4 * g + scores[layer, 4 * g : 4 * g + 4].argmax() for g in range(3)]
        assert heads.heads_of(layer) == expected


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"ratio": 0.7}, "removes 17 of 24 heads, but only 16"),
        ({"ratio": 0.5, "skip_first": 2}, "only 8 are outside the first 3"),
        ({"ratio": 1.0}, "ratio=1.0 must be"),
        ({"ratio": -0.1}, "ratio=-0.1 must be"),
        ({"ratio": "half"}, "ratio='half' must be"),
        ({"ratio": True}, "ratio=True must be"),
    ],
)
def test_impossible_ratios_are_one_line(options, line):
    with pytest.raises(UserError, match=line):
        select(np.zeros((6, 4)), unit="head", layout=layout(), **options)


def test_scores_of_another_model_and_nan_are_refused():
    with pytest.raises(UserError, match="do not belong to this model"):
        select(np.zeros((5, 4)), ratio=0.1, unit="head", layout=layout())
    scores = np.zeros((6, 4))
    scores[2, 2] = np.nan
    with pytest.raises(UserError, match="not a number"):
        select(scores, ratio=0.1, unit="head", layout=layout())


def test_even_removal_of_all_or_of_blocks_is_refused():
    with pytest.raises(UserError, match="would remove all 2 heads of a group"):
        select_evenly(np.zeros((6, 4)), ratio=0.9, unit="head", layout=layout())
    with pytest.raises(UserError, match="would remove all 2 kv_groups of a layer"):
        select_evenly(np.zeros((6, 4)), ratio=0.9, unit="kv_group", layout=layout())
    with pytest.raises(UserError, match="needs unit=head or unit=kv_group"):
        select_evenly(np.zeros((6, 4)), ratio=0.5, unit="attention", layout=layout())


def test_a_removal_says_what_it_takes_out():
    assert (
        Removal(heads=((0, 1), (3, 0), (3, 2))).described() == "3 heads (layer 0: 1; layer 3: 0, 2)"
    )
    assert Removal(blocks=(1, 2)).described() == "2 blocks (1, 2)"
    assert Removal().described() == "0 heads (none)"

import pytest

from lm_eval_ext.errors import UserError
from lm_eval_ext.training.drafts.shards import prompt_hash, split_prompts


@pytest.mark.parametrize(("n_prompts", "n_drafts"), [(4, 4), (10, 4), (101, 3), (5, 1)])
def test_disjoint_shards_cover_every_prompt_once(n_prompts, n_drafts):
    shards = split_prompts(n_prompts, n_drafts, "disjoint", seed=3)
    assert len(shards) == n_drafts
    assert sorted(i for shard in shards for i in shard) == list(range(n_prompts))
    sizes = [len(shard) for shard in shards]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("split", ["disjoint", "bootstrap"])
def test_the_seed_decides_the_shards(split):
    first = split_prompts(200, 4, split, seed=0)
    assert first == split_prompts(200, 4, split, seed=0)
    assert first != split_prompts(200, 4, split, seed=1)


def test_disjoint_shards_are_no_stretches_of_the_source():
    # Sources are often sorted by difficulty or topic.
    (first, *_) = split_prompts(400, 4, "disjoint", seed=0)
    assert 150 < sum(first) / len(first) < 250
    assert max(first) - min(first) > 300


def test_same_gives_all_prompts_to_all():
    assert split_prompts(6, 3, "same", seed=0) == [tuple(range(6))] * 3


def test_bootstrap_draws_with_replacement_for_each_draft():
    shards = split_prompts(1000, 3, "bootstrap", seed=0)
    assert all(len(shard) == 1000 for shard in shards)
    for shard in shards:
        # 1 - 1/e of the prompts on average, standard deviation about 10.
        assert 570 < len(set(shard)) < 700
    assert len(set(shards)) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, 4, "disjoint"), "3 prompts cannot be divided among 4 drafts"),
        ((0, 1, "same"), "0 prompts"),
        ((3, 0, "same"), "num_drafts=0"),
        ((3, 1, "random"), "split='random'"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(UserError, match=message):
        split_prompts(*arguments, seed=0)


def test_hash_names_a_prompt():
    assert len(prompt_hash("a")) == 16
    assert prompt_hash("a") != prompt_hash("b")
    assert prompt_hash("\ud800")  # a lone surrogate, which UTF-8 cannot hold

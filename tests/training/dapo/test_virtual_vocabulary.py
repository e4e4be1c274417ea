import pytest
import torch

from lm_eval_ext.training.dapo.virtual_vocabulary import VirtualVocabulary, virtual_ids_embedded


def test_a_vector_depends_on_seed_and_id_alone(vocabulary):
    ids = [800, 769, 10**9, 768]
    rows = vocabulary.rows(ids)
    for i, virtual_id in enumerate(ids):
        assert torch.equal(vocabulary.rows([virtual_id])[0], rows[i])
    assert len({tuple(row.tolist()) for row in rows}) == 4
    other = VirtualVocabulary(768, 3, vocabulary.hidden, mean=0.0, std=0.5, seed=8)
    assert not torch.isclose(other.rows(ids), rows).any(dim=1).all()


def test_rollouts_share_no_id(vocabulary):
    ids = [i for number in range(50) for i in vocabulary.ids(number)]
    assert len(set(ids)) == 50 * 3
    assert min(ids) == 768


def test_vectors_have_the_moments():
    vocabulary = VirtualVocabulary(10, 1, 64, mean=0.25, std=2.0, seed=0)
    rows = vocabulary.rows(range(10, 1010))
    assert rows.mean() == pytest.approx(0.25, abs=5 * 2 / 64_000**0.5)
    assert rows.std() == pytest.approx(2.0, rel=0.02)


def test_model_reads_virtual_ids_as_their_vectors(toy, vocabulary):
    ids = torch.tensor([[5, 6, 768, 769, 770, 9], [5, 6, 771, 772, 773, 9]])
    table = toy.get_input_embeddings().weight
    vectors = table[ids.clamp_max(767)].detach().clone()
    vectors[0, 2:5], vectors[1, 2:5] = (
        vocabulary.rows([768, 769, 770]),
        vocabulary.rows(range(771, 774)),
    )
    with virtual_ids_embedded(toy, vocabulary):
        read = toy(input_ids=ids).logits
    assert torch.allclose(read, toy(inputs_embeds=vectors).logits, atol=1e-5)
    assert read.shape[-1] == 768  # and so they are never sampled
    with pytest.raises(IndexError):  # the hooks are gone
        toy(input_ids=ids)


def test_no_gradient_flows_from_a_vector_into_the_table(toy, vocabulary):
    with virtual_ids_embedded(toy, vocabulary):
        embeddings = toy.get_input_embeddings()
        embeddings(torch.tensor([[768, 5]])).sum().backward()
    touched = embeddings.weight.grad.abs().sum(dim=1).nonzero().flatten().tolist()
    assert touched == [5]

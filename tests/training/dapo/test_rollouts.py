import pytest
import torch

from lm_eval_ext.training.dapo.rollouts import RolloutLM, RolloutSettings
from lm_eval_ext.training.dapo.virtual_vocabulary import VirtualVocabulary, virtual_ids_embedded


@pytest.fixture
def policy(toy, tiny_tokenizer):
    """Return a function that makes the toy roll out."""

    def make(vocabulary, **settings):
        settings = RolloutSettings(**{"max_new_tokens": 12, "max_rows": 5, **settings})
        return RolloutLM(toy, tiny_tokenizer, settings, vocabulary=vocabulary, seed=1)

    return make


def training_log_probs(model, rollouts, vocabulary):
    """Score completions in one batch, prompts padded left and completions padded right."""
    left = max(len(r.prompt_ids) for r in rollouts)
    right = max(len(r.completion_ids) for r in rollouts)
    ids, mask = torch.zeros(2, len(rollouts), left + right, dtype=torch.int64)
    for row, r in enumerate(rollouts):
        columns = slice(left - len(r.prompt_ids), left + len(r.completion_ids))
        ids[row, columns] = torch.tensor(r.prompt_ids + r.completion_ids)
        mask[row, columns] = 1
    with virtual_ids_embedded(model, vocabulary), torch.no_grad():
        log_probs = model(input_ids=ids, attention_mask=mask).logits.log_softmax(-1)
    for row, r in enumerate(rollouts):
        at = range(left - 1, left - 1 + len(r.completion_ids))
        yield torch.stack([log_probs[row, i, t] for i, t in zip(at, r.completion_ids, strict=True)])


@pytest.mark.parametrize("position", ["after_prompt", "prefix"])
def test_sampling_and_training_agree_on_log_probs(policy, toy, problems, vocabulary, position):
    prompts = [problem.prompt for problem in problems[:4] for _ in range(3)]
    rollouts = policy(vocabulary, position=position).roll_out(prompts, range(20, 32))
    assert len({len(r.prompt_ids) for r in rollouts}) == 4
    assert len({len(r.completion_ids) for r in rollouts}) > 3
    scored = list(training_log_probs(toy, rollouts, vocabulary))
    for rollout, log_probs in zip(rollouts, scored, strict=True):
        assert log_probs.tolist() == pytest.approx(list(rollout.log_probs), abs=1e-4)
    # Other vectors are another distribution: the agreement above is not one of all vectors.
    other = VirtualVocabulary(768, 3, vocabulary.hidden, mean=0.0, std=0.5, seed=99)
    wrong = torch.cat(list(training_log_probs(toy, rollouts, other)))
    assert (wrong - torch.cat(scored)).abs().mean() > 0.05


def test_virtual_ids_stand_in_the_prompt_and_nowhere_else(policy, problems, vocabulary):
    lm = policy(vocabulary)
    prompts = [problem.prompt for problem in problems[:2]]
    for number, prompt, rollout in zip((4, 9), prompts, lm.roll_out(prompts, (4, 9)), strict=True):
        assert list(rollout.prompt_ids) == lm.prompt_token_ids(prompt) + vocabulary.ids(number)
        assert all(token < 768 for token in rollout.completion_ids)
        assert len(rollout.completion_ids) <= 12
        assert rollout.text == lm.tokenizer.decode(rollout.completion_ids, skip_special_tokens=True)
    assert lm.prompts_read(prompts, (4, 9)) == [r.prompt_ids for r in lm.roll_out(prompts, (4, 9))]


def test_a_rollout_depends_on_its_number_alone(policy, problems, vocabulary):
    lm, prompt = policy(vocabulary), problems[3].prompt
    alone = lm.roll_out([prompt], [6])[0]
    among = lm.roll_out([problems[0].prompt, prompt, prompt, prompt], [5, 6, 7, 8])
    assert among[1].completion_ids == alone.completion_ids
    assert len({r.completion_ids for r in among[1:]}) == 3


def test_without_vectors_the_prompt_is_the_prompt(policy, problems):
    lm = policy(None)
    rollout = lm.roll_out([problems[0].prompt], [0])[0]
    assert list(rollout.prompt_ids) == lm.prompt_token_ids(problems[0].prompt)


def test_tokens_sampled_elsewhere_end_behind_a_stop_string(policy, tiny_tokenizer):
    lm = policy(None, stop=("Question:",))
    ids = tiny_tokenizer("12\nQuestion: and more", add_special_tokens=False)["input_ids"]
    cut = lm.rollout_of((1, 2), ids)
    assert cut.finish_reason == "stop"
    assert cut.text.strip() == "12"
    assert tiny_tokenizer.decode(cut.completion_ids).endswith("Question:")
    assert lm.rollout_of((1,), ids[:2]).finish_reason == "length"
    assert lm.rollout_of((1,), [5, tiny_tokenizer.eos_token_id]).finish_reason == "eos"


def test_tempered_rollouts_have_no_log_probs_of_the_engine(policy, problems):
    rollout = policy(None, temperature=0.5).roll_out([problems[0].prompt], [0])[0]
    assert rollout.log_probs is None


def test_tempered_rollouts_come_from_the_tempered_distribution(policy, toy, problems):
    lm = policy(None, temperature=0.7, max_new_tokens=1, max_rows=500)
    prompt, n = problems[0].prompt, 2000
    tokens = [r.completion_ids[0] for r in lm.roll_out([prompt] * n, range(n))]
    with torch.no_grad():
        logits = toy(input_ids=torch.tensor([lm.prompt_token_ids(prompt)])).logits[0, -1].double()
    log_probs = (logits / 0.7).log_softmax(-1)
    seen = log_probs[tokens]

    def expected(temperature):
        return float((logits / temperature).softmax(-1) @ log_probs)

    error = float(seen.std() / n**0.5)
    assert abs(float(seen.mean()) - expected(0.7)) < 4 * error
    assert abs(expected(1.0) - expected(0.7)) > 8 * error


def test_no_moments_of_the_table_in_training_are_taken(policy, toy, vocabulary, monkeypatch):
    monkeypatch.setattr(toy.get_input_embeddings(), "num_embeddings", None)
    policy(vocabulary)


def test_training_mode_survives_a_rollout(policy, toy, problems):
    lm = policy(None)
    toy.train()
    lm.roll_out([problems[0].prompt], [0])
    assert toy.training

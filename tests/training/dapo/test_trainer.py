import copy
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from trl import GRPOTrainer

from lm_eval_ext.errors import UserError
from lm_eval_ext.grading import Attempt
from lm_eval_ext.training.dapo.configuration import grpo_config
from lm_eval_ext.training.dapo.settings import Optimization
from lm_eval_ext.training.dapo.trainer import DAPOTrainer
from lm_eval_ext.training.dapo.virtual_vocabulary import virtual_ids_embedded


def losses(trainer):
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.fixture
def updates(monkeypatch):
    """Record the inputs of every loss, the loss among them, and the log-probs of its pass."""
    seen, compute = [], DAPOTrainer._compute_loss

    def record(self, model, inputs):
        loss = compute(self, model, inputs)
        seen.append(({**inputs, "loss": loss.item()}, self._last_pass[0].detach().clone()))
        return loss

    monkeypatch.setattr(DAPOTrainer, "_compute_loss", record)
    return seen


def test_configuration_is_that_of_the_paper(tmp_path):
    config = grpo_config(
        Optimization(updates_per_rollout=3, micro_batch_size=4),
        output=str(tmp_path),
        n_processes=1,
        sampling={"temperature": 0.9, "max_completion_length": 7, "seed": 5},
        runtime={"report_to": "none", "use_cpu": True},
    )
    assert config.loss_type == "dapo"
    assert (config.epsilon, config.epsilon_high) == (0.2, 0.28)
    assert config.beta == 0
    assert config.disable_dropout
    assert not config.mask_truncated_completions
    assert not config.shuffle_dataset
    assert config.num_iterations == 1
    assert config.importance_sampling_level == "token"
    assert config.scale_rewards == "group"
    assert config.gradient_accumulation_steps == 16 * 8 / 4
    assert config.steps_per_generation == 3 * 16 * 8 / 4
    assert (config.temperature, config.max_completion_length, config.seed) == (0.9, 7, 5)


def rollout_of(trainer, inputs, row):
    """Return the number of the rollout that a row of a micro-batch holds."""
    prompt = tuple(inputs["prompt_ids"][row][inputs["prompt_mask"][row].bool()].tolist())
    tokens = tuple(inputs["completion_ids"][row].tolist())
    rollouts = enumerate(trainer._finished)
    return next(
        i
        for i, r in rollouts
        if r.prompt_ids == prompt and tokens[: len(r.completion_ids)] == r.completion_ids
    )


def test_loss_is_that_of_the_paper(make_trainer, graded, updates):
    trainer = make_trainer(
        stop=("e",), steps=2, updates_per_rollout=2, max_new_tokens=5, learning_rate=0.02
    )
    trainer.train()
    rollouts = trainer._finished
    verdicts = np.array([len(r.text) % 2 == 0 for r in rollouts], dtype=float).reshape(-1, 4)
    spread = verdicts.std(axis=1, ddof=1, keepdims=True) + 1e-4
    advantages = ((verdicts - verdicts.mean(axis=1, keepdims=True)) / spread).ravel()
    tokens = sum(len(r.completion_ids) for r in rollouts if r.finish_reason != "length")
    clipped, truncated = {"low": 0, "high": 0}, 0
    assert len(updates) == 4
    for inputs, new in updates:
        total = 0.0
        for row in range(6):
            number = rollout_of(trainer, inputs, row)
            rollout, advantage = rollouts[number], advantages[number]
            assert inputs["advantages"][row].item() == pytest.approx(advantage, rel=1e-4)
            if rollout.finish_reason == "length":
                truncated += 1
                continue
            n = len(rollout.completion_ids)
            ratio = (new[row, :n] - inputs["old_per_token_logps"][row, :n]).exp().numpy()
            cut = np.clip(ratio, 0.8, 1.28)
            total -= np.minimum(ratio * advantage, cut * advantage).sum()
            clipped["low"] += ((ratio < 0.79) & (advantage < 0)).sum()
            clipped["high"] += ((ratio > 1.29) & (advantage > 0)).sum()
        # The tokens of the generation batch, of which an update has half.
        assert inputs["loss"] == pytest.approx(total / (tokens / 2), rel=1e-4, abs=1e-6)
    assert clipped["low"] > 0
    assert clipped["high"] > 0
    assert 0 < truncated < 24


def test_update_and_rollout_have_the_same_temperature(
    make_trainer, toy, graded, vocabulary, updates
):
    before = copy.deepcopy(toy).eval()
    with virtual_ids_embedded(toy, vocabulary):
        trainer = make_trainer(vocabulary, stop=("e",), steps=1, temperature=0.7)
        trainer.train()
    assert trainer.policy.settings.temperature == 0.7
    for inputs, new in updates:
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
        read = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
        with virtual_ids_embedded(before, vocabulary), torch.no_grad():
            logits = before(input_ids=ids, attention_mask=read).logits
        width = inputs["completion_ids"].shape[1]
        log_probs = (logits[:, -width - 1 : -1] / 0.7).log_softmax(-1)
        expected = log_probs.gather(-1, inputs["completion_ids"].unsqueeze(-1)).squeeze(-1)
        mask = inputs["completion_mask"].bool()
        assert mask.any()
        assert new[mask].tolist() == pytest.approx(expected[mask].tolist(), abs=1e-4)


def right_text(completions, **columns):
    return [float(len(text) % 2 == 0) for text in completions]


def no_penalty(completions, **columns):
    return [0.0] * len(completions)


@pytest.mark.parametrize("dynamic_sampling", [True, False])
def test_without_vectors_the_losses_are_those_of_trl(
    make_trainer, toy, graded, monkeypatch, dynamic_sampling
):
    start = {name: tensor.clone() for name, tensor in toy.state_dict().items()}
    ours = make_trainer(
        sampler="transformers", dynamic_sampling=dynamic_sampling, steps=3, max_new_tokens=12
    )
    if dynamic_sampling:  # of no consequence: nothing is dropped
        monkeypatch.setattr("lm_eval_ext.training.dapo.rewards.Group.varies", True)
    ours.train()
    after = weights(toy).clone()
    toy.load_state_dict(start)
    plain = make_trainer(
        cls=GRPOTrainer,
        reward_funcs=[right_text, no_penalty],
        steps=3,
        max_new_tokens=12,
        masks=True,
    )
    plain.train()
    assert len(losses(plain)) == 3
    assert all(loss != 0 for loss in losses(plain))
    assert losses(ours) == losses(plain)
    assert torch.equal(after, weights(toy))
    # Something was truncated, and something was not.
    shares = [line["completions/clipped_ratio"] for line in plain.state.log_history[:3]]
    assert 0 < sum(shares) < 3
    assert shares == [line["completions/clipped_ratio"] for line in ours.state.log_history[:3]]


def test_vectors_are_on_policy_at_the_first_step(make_trainer, toy, graded, vocabulary, updates):
    with virtual_ids_embedded(toy, vocabulary):
        trainer = make_trainer(vocabulary, stop=("e",), steps=1)
        trainer.train()
    assert len(updates) == 2  # two micro-batches of six rollouts
    for inputs, log_probs in updates:
        virtual = vocabulary.is_virtual(inputs["prompt_ids"])
        assert (virtual.sum(dim=1) == 3).all()
        assert not vocabulary.is_virtual(inputs["completion_ids"]).any()
        ratio = (log_probs - inputs["sampling_per_token_logps"]).exp()
        mask = inputs["completion_mask"].bool()
        assert mask.any()
        assert ratio[mask].tolist() == pytest.approx([1] * int(mask.sum()), abs=1e-4)
    assert trainer.state.log_history[0]["log_probs/difference_to_sampling"] < 1e-4
    drawn = torch.cat([inputs["prompt_ids"][:, -3:] for inputs, _ in updates])
    assert len(drawn.unique()) == 12 * 3  # a fresh draw for every rollout


def test_later_updates_of_a_batch_are_clipped_against_the_rollout(
    make_trainer, toy, graded, vocabulary, updates
):
    with virtual_ids_embedded(toy, vocabulary):
        make_trainer(vocabulary, stop=("e",), steps=2, updates_per_rollout=2).train()
    ratios = [(new - inputs["old_per_token_logps"]).exp() for inputs, new in updates]
    masks = [inputs["completion_mask"].bool() for inputs, _ in updates]
    assert ratios[0][masks[0]].tolist() == pytest.approx([1] * int(masks[0].sum()), abs=1e-4)
    assert (ratios[2][masks[2]] - 1).abs().max() > 1e-3
    for inputs, _ in updates:  # old log-probs read the same vectors
        mask = inputs["completion_mask"].bool()
        old, sampled = inputs["old_per_token_logps"], inputs["sampling_per_token_logps"]
        assert old[mask].tolist() == pytest.approx(sampled[mask].tolist(), abs=1e-4)


def test_clean_update_divides_by_the_injected_rollout(
    make_trainer, toy, graded, vocabulary, updates
):
    vocabulary = replace(vocabulary, std=4.0)  # far from the clean distribution
    with virtual_ids_embedded(toy, vocabulary):
        trainer = make_trainer(vocabulary, stop=("e",), steps=1, rsp_update="clean")
        trainer.train()
    for inputs, new in updates:
        assert not vocabulary.is_virtual(inputs["prompt_ids"]).any()
        mask, old = inputs["completion_mask"].bool(), inputs["old_per_token_logps"]
        sampled = inputs["sampling_per_token_logps"]
        assert old[mask].tolist() == pytest.approx(sampled[mask].tolist(), abs=1e-4)
        assert (new - old)[mask].abs().max() > 0.05
        # Padding is on the left alone: the vectors left no hole among the positions.
        assert (inputs["prompt_mask"].diff(dim=1) >= 0).all()
    assert trainer.state.log_history[0]["clip_ratio/region_mean"] > 0


def test_no_group_without_variance_enters_the_update(make_trainer, graded, monkeypatch):
    entered = []
    score = GRPOTrainer._generate_and_score_completions

    def record(self, rows):
        entered.extend([row["verdict"] for row in rows[i : i + 4]] for i in range(0, len(rows), 4))
        return score(self, rows)

    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", record)
    calls = []

    def mixed(family, asked):
        for texts, *_ in asked:
            calls.append(len(texts))
            right = {0: [True] * 4, 1: [False] * 4}.get(len(calls) % 3, [True, False] * 2)
            yield [Attempt(None, correct) for correct in right]

    graded(mixed)
    trainer = make_trainer(stop=("e",), steps=3)
    trainer.train()
    assert len(entered) == 9
    assert all(0 < sum(verdicts) < 4 for verdicts in entered)
    logged = trainer.state.log_history[:3]
    assert all(line["frac_reward_zero_std"] == 0 for line in logged)
    assert all(line["groups/dropped_share"] > 0.5 for line in logged)
    counts = trainer.run_state.counts
    assert counts.groups == len(calls) == trainer.run_state.rolled_out
    assert counts.dropped + counts.surplus + 9 == counts.groups


def test_bound_stops_the_run_before_any_update(make_trainer, toy, graded):
    graded(lambda family, asked: ([Attempt(None, True)] * len(texts) for texts, *_ in asked))
    trainer, before = make_trainer(max_refills=2), weights(toy).clone()
    with pytest.raises(UserError, match=re.escape("max_refills=2 reached: 0 of 3 groups")):
        trainer.train()
    assert torch.equal(before, weights(toy))
    assert trainer.run_state.rolled_out == 3 + 6 + 6


def test_refills_are_further_questions(make_trainer, graded):
    seen, verdicts = [], []

    def spy(questions):
        seen.append([question.prompt for question in questions])
        return roll_out(questions)

    def first_round_wrong(family, asked):
        for texts, *_ in asked:
            verdicts.append(len(verdicts) >= 3)
            yield [Attempt(None, verdicts[-1] and i % 2 == 0) for i in range(len(texts))]

    graded(first_round_wrong)
    trainer = make_trainer(stop=("e",), steps=2)
    roll_out, trainer._roll_out = trainer._roll_out, spy
    trainer.train()
    order = [trainer._questions[i].prompt for i in range(12)]
    assert seen == [order[:3], order[6:12], order[3:6]]


def test_refills_repeat_no_question_of_the_batch_while_there_are_others(make_trainer, graded):
    graded(lambda family, asked: ([Attempt(None, True)] * len(texts) for texts, *_ in asked))
    trainer, rounds = make_trainer(max_refills=3, steps=3), []
    roll_out = trainer._roll_out

    def spy(questions):
        rounds.append([trainer._questions.questions.index(question) for question in questions])
        return roll_out(questions)

    trainer._roll_out = spy
    with pytest.raises(UserError):
        trainer.train()
    # 3 of 12 questions at first, then 6 for the 3 that are missing; those of the refills begin
    # at the tenth place, so they come to the first three again.
    assert [len(numbers) for numbers in rounds] == [3, 6, 6, 6]
    asked = [number for numbers in rounds for number in numbers]
    assert sorted(asked[:12]) == list(range(12))


def test_truncated_rollouts_are_masked_and_stopped_ones_are_not(make_trainer, graded, updates):
    trainer = make_trainer(stop=("e",), steps=1, max_new_tokens=4)
    trainer.train()
    rollouts = trainer._finished
    n_kept = sum(len(r.completion_ids) for r in rollouts if r.finish_reason != "length")
    reasons = {rollout.finish_reason for rollout in rollouts}
    assert {"length", "stop"} <= reasons
    assert sum(int(inputs["completion_mask"].sum()) for inputs, _ in updates) == n_kept
    assert updates[0][0]["num_items_in_batch"] == n_kept
    share = sum(r.finish_reason == "length" for r in rollouts) / len(rollouts)
    logged = trainer.state.log_history[0]
    assert logged["completions/clipped_ratio"] == pytest.approx(share)
    # A stop string ends a rollout as well as an end-of-sequence token.
    ended = [len(r.completion_ids) for r in rollouts if r.finish_reason != "length"]
    assert logged["completions/mean_terminated_length"] == pytest.approx(np.mean(ended))
    assert logged["completions/min_terminated_length"] == min(ended)
    assert logged["completions/max_terminated_length"] == max(ended)


def test_figures_are_means_over_the_tokens_of_a_step(make_trainer, graded, monkeypatch):
    passes, compute = [], DAPOTrainer._compute_loss

    def record(self, model, inputs):
        if not passes:  # a micro-batch that is truncated as a whole
            inputs = {**inputs, "completion_mask": torch.zeros_like(inputs["completion_mask"])}
        loss = compute(self, model, inputs)
        passes.append((inputs, *self._last_pass[:2]))
        return loss

    monkeypatch.setattr(DAPOTrainer, "_compute_loss", record)
    trainer = make_trainer(stop=("e",), steps=2, max_new_tokens=12)
    trainer.train()
    assert len(passes) == 4
    for logged, parts in zip(trainer.state.log_history, (passes[:2], passes[2:]), strict=False):
        masks = [inputs["completion_mask"].bool() for inputs, _, _ in parts]
        entropies = [entropy for _, _, entropy in parts]
        all_tokens = [e[m] for e, m in zip(entropies, masks, strict=True)]
        first = [e[:, :8][m[:, :8]] for e, m in zip(entropies, masks, strict=True)]
        differences = [
            (new - inputs["sampling_per_token_logps"]).abs()[mask]
            for (inputs, new, _), mask in zip(parts, masks, strict=True)
        ]
        for name, values in (
            ("entropy", all_tokens),
            ("entropy/first_tokens", first),
            ("log_probs/difference_to_sampling", differences),
        ):
            assert logged[name] == pytest.approx(torch.cat(values).mean().item(), rel=1e-4), name
    assert passes[0][0]["completion_mask"].sum() == 0
    assert len({int(inputs["completion_mask"].sum()) for inputs, _, _ in passes[2:]}) == 2


def test_overlong_penalty_is_part_of_the_reward(make_trainer, graded):
    trainer = make_trainer(stop=("e",), steps=1, overlong_buffer=10)
    trainer.train()
    rollouts = trainer._finished
    expected = sum(-len(r.completion_ids) / 10 for r in rollouts) / len(rollouts)
    logged = trainer.state.log_history[0]
    assert logged["rewards/overlong_penalty/mean"] == pytest.approx(expected)
    assert logged["reward"] == pytest.approx(expected + logged["rewards/verdict/mean"])


def test_figures_of_a_step_are_logged(make_trainer, graded):
    trainer = make_trainer(stop=("e",), steps=1)
    trainer.train()
    logged = trainer.state.log_history[0]
    assert {
        "reward", "groups/accuracy", "groups/dropped_share", "groups/refills", "entropy",
        "entropy/first_tokens", "completions/mean_length", "clip_ratio/low_mean",
        "clip_ratio/high_mean", "groups/cancelled_share",
    } <= logged.keys()  # fmt: skip
    assert 0 < logged["entropy/first_tokens"] < torch.tensor(768).log()


def test_group_split_over_processes_is_refused(make_trainer, graded, monkeypatch):
    monkeypatch.setattr("accelerate.Accelerator.num_processes", 2)
    with pytest.raises(UserError, match="group_size=4 does not divide the 6 rollouts"):
        make_trainer()


def test_state_of_other_processes_is_refused(make_trainer, graded):
    trainer = make_trainer()
    state = trainer.gather_state()
    with pytest.raises(UserError, match="the run has 2 processes, not 1"):
        trainer.restore_state(state * 2)
    trainer.restore_state(state)
    assert trainer.gather_state() == state

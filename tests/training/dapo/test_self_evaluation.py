"""``--calibrate``: a step on judging the rollouts after each update, and none without it."""

import copy
import math

import pytest
import torch

from lm_eval_ext.grading import Attempt
from lm_eval_ext.training.dapo.self_evaluation import Row, SelfEvaluationStep
from lm_eval_ext.training.dapo.virtual_vocabulary import virtual_ids_embedded


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.fixture
def steps(monkeypatch):
    """Record the rows of every step, and the weights before it."""
    seen, take = [], SelfEvaluationStep.on_optimizer_step

    def record(self, args, state, control, **others):
        seen.append((list(self._parts[0]), weights(self.trainer.policy.model).clone()))
        take(self, args, state, control, **others)

    monkeypatch.setattr(SelfEvaluationStep, "on_optimizer_step", record)
    return seen


def test_it_is_off_unless_asked_for(make_trainer, graded, steps):
    trainer = make_trainer(stop=("e",), steps=1)
    trainer.train()
    assert steps == []
    assert "self_eval/loss" not in trainer.state.log_history[0]


def test_every_rollout_is_judged_once_those_of_dropped_groups_too(make_trainer, graded, steps):
    calls = []

    def mixed(family, asked):
        for texts, *_ in asked:
            calls.append(len(texts))
            right = {0: [True] * 4, 1: [False] * 4}.get(len(calls) % 3, [True, False] * 2)
            yield [Attempt(None, correct) for correct in right]

    graded(mixed)
    trainer = make_trainer(stop=("e",), steps=2, calibrate=True)
    trainer.train()
    yes, no = trainer._self_evaluation.layout.label_ids
    template = trainer._self_evaluation.layout.template_ids
    assert len(steps) == 2
    rows = [row for part, _ in steps for row in part]
    assert len(rows) == 4 * trainer.run_state.rolled_out
    assert trainer.run_state.counts.dropped > 0
    for row in rows:
        assert row.context[-len(template) :] == template
    judged = {True: 0, False: 0}
    for group in trainer._rolled_out:
        for rollout, right in zip(group.rollouts, group.verdicts, strict=True):
            context = trainer._self_evaluation.layout.context_ids(rollout.prompt_ids, rollout.text)
            assert Row(context, yes if right else no) in steps[-1][0]
            judged[bool(right)] += 1
    assert all(judged.values())


def test_the_step_is_the_gradient_of_the_mean_label_loss(make_trainer, toy, graded, steps):
    reference = copy.deepcopy(toy).eval()
    trainer = make_trainer(stop=("e",), steps=1, calibrate=True, optimizer="sgd", max_grad_norm=1e9)
    trainer.train()
    ((rows, before),) = steps
    torch.nn.utils.vector_to_parameters(before, reference.parameters())
    losses = []
    for row in rows:
        logits = reference(torch.tensor([row.context])).logits[0, -1]
        losses.append(-logits.log_softmax(-1)[row.label])
    loss = torch.stack(losses).mean()
    gradients = torch.autograd.grad(loss, list(reference.parameters()), allow_unused=True)
    expected = torch.cat(
        [
            (torch.zeros_like(p) if g is None else g).flatten()
            for g, p in zip(gradients, reference.parameters(), strict=True)
        ]
    )
    change = weights(trainer.policy.model) - before
    torch.testing.assert_close(change, -1e-3 * expected, atol=1e-7, rtol=1e-3)
    logged = trainer.state.log_history[0]
    assert logged["self_eval/loss"] == pytest.approx(loss.item(), rel=1e-4)


def test_the_updates_of_a_batch_divide_its_rollouts(make_trainer, graded, steps):
    trainer = make_trainer(stop=("e",), steps=2, updates_per_rollout=2, calibrate=True)
    trainer.train()
    first, second = (part for part, _ in steps)
    assert len(first) + len(second) == 4 * trainer.run_state.rolled_out
    assert abs(len(first) - len(second)) <= 1


@pytest.mark.parametrize("update", ["same", "clean"])
def test_the_question_is_read_after_what_the_update_reads(
    make_trainer, toy, graded, vocabulary, steps, update
):
    with virtual_ids_embedded(toy, vocabulary):
        make_trainer(vocabulary, stop=("e",), steps=1, rsp_update=update, calibrate=True).train()
    ((rows, _),) = steps
    counts = {sum(i >= vocabulary.first for i in row.context) for row in rows}
    assert counts == {3 if update == "same" else 0}


def test_the_model_learns_how_often_it_is_right(make_trainer, graded):
    """All are right, so nothing but the label can be learned."""
    graded(lambda family, asked: ([Attempt(None, True)] * len(texts) for texts, *_ in asked))
    trainer = make_trainer(
        stop=("e",), steps=8, calibrate=True, dynamic_sampling=False, learning_rate=1e-2
    )
    trainer.train()
    losses = [line["self_eval/loss"] for line in trainer.state.log_history if "loss" in line]
    briers = [line["self_eval/brier"] for line in trainer.state.log_history if "loss" in line]
    assert losses[-1] < losses[0] - 1
    assert briers[-1] < min(0.1, briers[0])
    assert math.isfinite(sum(losses))

import pytest
import torch

from lm_eval_ext.errors import UserError
from lm_eval_ext.training.drafts.distillation import (
    Teacher,
    collate,
    distillation_loss,
    response_logits,
    step_seed,
)
from lm_eval_ext.training.drafts.settings import TeacherSettings
from lm_eval_ext.training.drafts.target_responses import Example


def teachers(n, vocabulary=5, tokens=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, tokens, vocabulary, generator=generator, dtype=torch.float64)
    return logits.softmax(-1)


def gradient(teacher_probs, student_logits, direction):
    logits = student_logits.clone().requires_grad_()
    distillation_loss(teacher_probs, logits, direction).backward()
    return logits.grad


def test_forward_gradient_averages_to_that_of_the_average_teacher():
    # The posterior has 40 equally likely teachers, so the expectation is a plain mean.
    posterior = teachers(40)
    student = torch.randn(3, 5, generator=torch.Generator().manual_seed(9))
    exact = gradient(posterior.mean(0), student, "forward")
    expected = torch.stack([gradient(p, student, "forward") for p in posterior]).mean(0)
    assert exact.abs().max() > 0.01
    torch.testing.assert_close(expected, exact, atol=1e-6, rtol=1e-5)


def test_forward_gradient_of_random_teachers_is_unbiased():
    posterior = teachers(40)
    student = torch.randn(3, 5, generator=torch.Generator().manual_seed(9))
    exact = gradient(posterior.mean(0), student, "forward")
    draws = torch.randint(40, (4000,), generator=torch.Generator().manual_seed(1))
    each = torch.stack([gradient(posterior[i], student, "forward") for i in draws])
    error = each.std(0) / len(draws) ** 0.5
    assert ((each.mean(0) - exact).abs() <= 4.5 * error + 1e-7).all()


def test_reverse_gradient_does_not_average_to_that_of_the_average_teacher():
    posterior = teachers(40)
    student = torch.randn(3, 5, generator=torch.Generator().manual_seed(9))
    exact = gradient(posterior.mean(0), student, "reverse")
    expected = torch.stack([gradient(p, student, "reverse") for p in posterior]).mean(0)
    assert (expected - exact).norm() > 0.2 * exact.norm()


def test_where_the_two_directions_lead():
    posterior = teachers(8, tokens=1)
    geometric = posterior.log().mean(0).softmax(-1)
    for direction, goal in (("forward", posterior.mean(0)), ("reverse", geometric)):
        total = sum(gradient(p, goal.log(), direction) for p in posterior)
        assert total.abs().max() < 1e-5, direction
    assert (geometric - posterior.mean(0)).abs().max() > 0.02


def test_loss_is_the_divergence_in_nats():
    p, q = teachers(2)
    forward = (p * (p / q).log()).sum(-1).mean()
    backward = (q * (q / p).log()).sum(-1).mean()
    assert float(distillation_loss(p, q.log())) == pytest.approx(float(forward), abs=1e-6)
    assert float(distillation_loss(p, q.log(), "reverse")) == pytest.approx(
        float(backward), abs=1e-6
    )
    certain = torch.tensor([[1.0, 0.0]])
    assert float(distillation_loss(certain, torch.tensor([[0.0, 0.0]]))) == pytest.approx(
        0.693147, abs=1e-5
    )
    assert torch.isfinite(distillation_loss(certain, torch.tensor([[0.0, 0.0]]), "reverse"))


EXAMPLES = [
    Example((1, 40, 41, 42, 43), (50, 51, 2)),
    Example((1, 60), (61, 62, 63, 64, 65, 66, 2)),
    Example((1, 70, 71), (2,)),
]


def test_only_response_tokens_are_predicted(random_model):
    model = random_model("llama")
    with torch.no_grad():
        logits = response_logits(model, collate(EXAMPLES))
        rows = []
        for example in EXAMPLES:
            ids = torch.tensor([example.prompt_ids + example.response_ids])
            first = len(example.prompt_ids) - 1
            rows.append(model(input_ids=ids).logits[0, first:-1])
    assert len(logits) == sum(len(example.response_ids) for example in EXAMPLES)
    torch.testing.assert_close(logits, torch.cat(rows), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", ["gpt_neox", "bloom"])
def test_padding_is_never_seen(random_model, architecture):
    model = random_model(architecture)
    batch = collate(EXAMPLES)
    changed = batch.ids.clone()
    for row, example in enumerate(EXAMPLES):
        changed[row, len(example) :] = 99
    assert not torch.equal(changed, batch.ids)
    with torch.no_grad():
        before, after = (
            response_logits(model, batch._replace(ids=i)) for i in (batch.ids, changed)
        )
    torch.testing.assert_close(before, after)


def test_the_loss_masks_the_prompt(random_model):
    """What the teacher says at prompt positions has no effect; at response positions it has."""
    model = random_model("llama")
    batch = collate(EXAMPLES)
    with torch.no_grad():
        all_logits = model(input_ids=batch.ids).logits
    probs = torch.rand_like(all_logits).softmax(-1)

    def loss(teacher_probs):
        with torch.no_grad():
            return distillation_loss(
                teacher_probs[batch.predicts], response_logits(model, batch)
            ).item()

    prompt_changed, response_changed = probs.clone(), probs.clone()
    prompt_changed[~batch.predicts] = torch.eye(probs.shape[-1])[7]
    response_changed[1, len(EXAMPLES[1].prompt_ids) - 1] = torch.eye(probs.shape[-1])[7]
    assert loss(prompt_changed) == loss(probs)
    assert loss(response_changed) != loss(probs)


def test_osd_perturbs_once_per_step_and_leaves_the_target_alone(random_model):
    model = random_model("llama")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    teacher = Teacher(model, TeacherSettings(sigma=0.3))
    batch = collate(EXAMPLES)
    clean = Teacher(model, TeacherSettings(teacher="clean")).probabilities(batch, torch.Generator())
    first, again, other = (
        teacher.probabilities(batch, torch.Generator().manual_seed(s)) for s in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert (first - other).abs().max() > 1e-3
    assert (first - clean).abs().max() > 1e-3
    after = Teacher(model, TeacherSettings(teacher="clean")).probabilities(batch, torch.Generator())
    assert torch.equal(clean, after)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_exact_is_the_average_of_the_same_draws(random_model):
    model, batch = random_model("llama"), collate(EXAMPLES)
    osd = Teacher(model, TeacherSettings(teacher="osd", sigma=0.3))
    exact = Teacher(model, TeacherSettings(teacher="exact", sigma=0.3, teacher_samples=3))
    generator = torch.Generator().manual_seed(5)
    each = torch.stack([osd.probabilities(batch, generator) for _ in range(3)])
    averaged = exact.probabilities(batch, torch.Generator().manual_seed(5))
    torch.testing.assert_close(averaged, each.mean(0))
    student = response_logits(model, batch).detach()
    expected = torch.stack([gradient(p, student, "forward") for p in each]).mean(0)
    torch.testing.assert_close(expected, gradient(averaged, student, "forward"))


def test_settings_are_checked(random_model):
    with pytest.raises(UserError, match="teacher='noisy'"):
        TeacherSettings(teacher="noisy")
    with pytest.raises(UserError, match="teacher_samples=0"):
        TeacherSettings(teacher="exact", teacher_samples=0)
    with pytest.raises(UserError, match="query"):
        Teacher(random_model("llama"), TeacherSettings(modules=("query",)))


def test_seeds_of_steps_differ():
    seeds = {step_seed(s, d, t) for s in range(3) for d in range(4) for t in range(50)}
    assert len(seeds) == 600
    assert all(0 <= seed < 2**63 for seed in seeds)

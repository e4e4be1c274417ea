"""The losses against hand computations and against plain TRL."""

import pytest
import torch
from transformers import AutoModelForCausalLM
from trl import SFTConfig, SFTTrainer

from lm_eval_ext.training.self_training.rows import IGNORED, Row
from lm_eval_ext.training.self_training.trainer import RowCollator, RowTrainer, row_dataset


def rows():
    generator = torch.Generator().manual_seed(0)
    made = []
    for i in range(12):
        kind = "eval" if i % 3 else "reason"
        length = 8 + i
        ids = tuple(torch.randint(5, 700, (length,), generator=generator).tolist())
        made.append(Row(kind, i, 0, ids, length - 1 if kind == "eval" else 4, False))
    return made


def config(folder, **changes):
    settings = {
        "output_dir": str(folder), "max_length": None, "shuffle_dataset": False, "bf16": False,
        "train_sampling_strategy": "sequential", "remove_unused_columns": False, "use_cpu": True,
        "per_device_train_batch_size": 3, "num_train_epochs": 1, "learning_rate": 0.01,
        "logging_steps": 1, "report_to": "none", "save_strategy": "no", "disable_tqdm": True,
        "dataset_kwargs": {"skip_prepare_dataset": True}, "gradient_checkpointing": False,
        "max_grad_norm": 0.0, "lr_scheduler_type": "constant",
    }  # fmt: skip
    return SFTConfig(**{**settings, **changes})


@pytest.fixture
def make_trainer(model_folder, tiny_tokenizer, tmp_path):
    def make(alpha, **changes):
        return RowTrainer(
            alpha=alpha,
            model=AutoModelForCausalLM.from_pretrained(model_folder),
            args=config(tmp_path, **changes),
            train_dataset=row_dataset(rows(), range(12)),
            data_collator=RowCollator(0),
            processing_class=tiny_tokenizer,
        )

    return make


def mean_losses(model, some):
    """Return the mean losses of reasoning tokens and of labels, row by row without padding."""
    losses = {"reason": [], "eval": []}
    for row in some:
        logits = model(torch.tensor([row.input_ids])).logits[0, :-1]
        log_probs = logits.double().log_softmax(dim=-1)
        for position, label in enumerate(row.labels[1:]):
            if label != IGNORED:
                losses[row.kind].append(-log_probs[position, label])
    return [torch.stack(found).mean() for found in losses.values()]


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_alpha_weighs_the_means(make_trainer, model_folder, alpha, accumulation):
    trainer = make_trainer(
        alpha, gradient_accumulation_steps=accumulation, max_steps=1, optim="sgd", learning_rate=1
    )
    trainer.train()
    some = rows()[: 3 * accumulation]
    expected = AutoModelForCausalLM.from_pretrained(model_folder)
    reason, label = mean_losses(expected, some)
    loss = alpha * reason + (1 - alpha) * label
    assert trainer.state.log_history[0]["loss"] == pytest.approx(loss.item(), abs=1e-5)
    loss.backward()
    with torch.no_grad():
        for ours, theirs in zip(trainer.model.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs - theirs.grad, atol=1e-5, rtol=1e-4)


def test_a_batch_of_one_kind_has_a_loss(make_trainer):
    trainer = make_trainer(0.5, max_steps=1)
    trainer.train_dataset = row_dataset(rows(), [1, 2, 4])
    trainer.train()
    assert trainer.state.log_history[0]["loss"] > 0


def test_without_alpha_it_is_plain_trl(make_trainer, model_folder, tiny_tokenizer, tmp_path):
    ours = make_trainer(None)
    ours.train()
    plain = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(model_folder),
        args=config(tmp_path / "plain"),
        train_dataset=row_dataset(rows(), range(12)).remove_columns("is_label"),
        processing_class=tiny_tokenizer,
    )
    plain.train()
    losses = [[e["loss"] for e in t.state.log_history if "loss" in e] for t in (ours, plain)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 4
    for mine, its in zip(ours.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(mine, its)


def test_plain_loss_is_one_mean_over_all_tokens(make_trainer, model_folder):
    trainer = make_trainer(None, max_steps=1)
    trainer.train()
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    some = rows()[:3]  # 4 reasoning tokens and 2 labels
    reason, label = mean_losses(model, some)
    n = sum(label != IGNORED for label in some[0].labels)
    expected = (n * reason + 2 * label) / (n + 2)
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected.item(), abs=1e-5)

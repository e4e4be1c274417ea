import copy

import pytest
import torch
from datasets import Dataset

from lm_eval_ext.grading import Attempt
from lm_eval_ext.training.dapo import rewards
from lm_eval_ext.training.dapo.configuration import grpo_config
from lm_eval_ext.training.dapo.question_order import QuestionOrder
from lm_eval_ext.training.dapo.rollouts import RolloutSettings
from lm_eval_ext.training.dapo.settings import Optimization
from lm_eval_ext.training.dapo.trainer import DapoSettings, DAPOTrainer
from lm_eval_ext.training.dapo.virtual_vocabulary import VirtualVocabulary
from lm_eval_ext.training.prompts import Problem


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def toy(random_model):
    """Return a model of its own for a test; every eighth token ends a completion."""
    model = copy.deepcopy(random_model("llama"))
    eos = model.config.eos_token_id
    model.generation_config.eos_token_id = [eos, *range(16, 768, 8)]
    return model


@pytest.fixture(scope="session")
def problems():
    """Return problems whose prompts have many lengths."""
    return [
        Problem(f"Question: {'and '.join(str(k * i) for k in range(1, 2 + i % 4))}?\nAnswer:",
                family="gsm8k", record={"answer": f"#### {i}"})
        for i in range(12)
    ]  # fmt: skip


def parity(family, asked):
    """Grade by the length of the text, which varies among rollouts."""
    for texts, *_ in asked:
        yield [Attempt(None, len(text) % 2 == 0) for text in texts]


@pytest.fixture
def graded(monkeypatch):
    """Return a function that sets the grader; the default one tells rollouts apart."""

    def use(grader):
        monkeypatch.setattr(rewards, "grade_questions", grader)

    use(parity)
    return use


@pytest.fixture
def vocabulary(toy):
    return VirtualVocabulary(768, 3, toy.config.hidden_size, mean=0.0, std=0.5, seed=7)


@pytest.fixture
def make_trainer(toy, problems, tiny_tokenizer, tmp_path):
    """Return a function that makes a trainer of the toy."""

    def make(
        vocabulary=None,
        *,
        stop=(),
        cls=DAPOTrainer,
        steps=2,
        masks=False,
        max_grad_norm=1.0,
        **changes,
    ):
        optimization = Optimization(
            steps=steps, groups_per_step=3, group_size=4, micro_batch_size=6,
            learning_rate=changes.pop("learning_rate", 1e-3),
            warmup_steps=0, updates_per_rollout=changes.pop("updates_per_rollout", 1),
            optimizer=changes.pop("optimizer", "adamw_torch_fused"), max_grad_norm=max_grad_norm,
        )  # fmt: skip
        tokens, temperature = changes.pop("max_new_tokens", 10), changes.pop("temperature", 1.0)
        config = grpo_config(
            optimization,
            output=str(tmp_path / "trainer"),
            n_processes=1,
            sampling={"temperature": temperature, "max_completion_length": tokens, "seed": 3},
            runtime={"save_strategy": "no", "report_to": "none", "use_cpu": True},
        )
        config.mask_truncated_completions = masks
        n, order = optimization.n_questions, QuestionOrder(problems, 3)
        rows = {"prompt": [order[i].prompt for i in range(n)], "position": list(range(n))}
        common = {
            "model": toy, "args": config, "train_dataset": Dataset.from_dict(rows),
            "processing_class": copy.deepcopy(tiny_tokenizer),
        }  # fmt: skip
        if cls is not DAPOTrainer:
            return cls(**common, **changes)
        settings = DapoSettings(
            RolloutSettings(temperature, max_new_tokens=tokens, stop=stop, max_rows=16), **changes
        )
        return cls(
            settings=settings, questions=order, refill_from=n, vocabulary=vocabulary, **common
        )

    return make

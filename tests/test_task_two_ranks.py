"""AttemptsTask when lm-eval splits the questions over two ranks and pads the shorter one."""

import threading

import datasets
import pytest
import torch
from lm_eval.evaluator import evaluate

from lm_eval_ext.errors import UserError
from lm_eval_ext.task import AttemptsTask

N_DOCS, N_ATTEMPTS = 5, 3


class Exchange:
    """What the two ranks, here threads, pass to each other."""

    def __init__(self):
        self.barrier = threading.Barrier(2, timeout=60)
        self.slots = [None, None]

    def share(self, rank, value):
        self.slots[rank] = value
        self.barrier.wait()
        values = list(self.slots)
        self.barrier.wait()
        return values


def questions(**metadata):
    rows = [{"question": f"{i}?", "answer": f"#### {i}"} for i in range(N_DOCS)]
    return {"test": datasets.Dataset.from_list(rows)}


def make_task():
    return AttemptsTask(
        {
            "task": "sums",
            "custom_dataset": questions,
            "test_split": "test",
            "doc_to_text": "{{question}}",
            "doc_to_target": "{{answer}}",
            "grader": "gsm8k",
            "num_fewshot": 0,
            "metadata": {"attempts": N_ATTEMPTS},
        }
    )


@pytest.fixture
def two_ranks(scripted_lm):
    """Return two models that know their rank, attempt 0 right and every padded attempt right."""
    exchange = Exchange()

    class Rank(scripted_lm):
        device = torch.device("cpu")

        def __init__(self, rank):
            super().__init__(None, with_records=True)
            self._rank, self._world_size = rank, 2
            self.script = lambda question, attempt: (
                f"#### {2 * question + rank}\n" if attempt in (0, 3, 4, 5) else "#### 99\n"
            )

        def all_gather(self, tensor):
            return torch.tensor(exchange.share(self.rank, int(tensor)))

        def gather_object(self, value, dst=0):
            values = exchange.share(self.rank, value)
            return values if self.rank == dst else None

        def barrier(self):
            exchange.barrier.wait()

    return [Rank(0), Rank(1)]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("asked", [{"limit": 1}, {"samples": {"sums": [3]}}], ids=str)
def test_fewer_questions_than_processes_is_one_line_on_each(two_ranks, rank, asked):
    """No rank waits for the other: each sees it by itself."""
    task = make_task()
    task.set_fewshot_seed(0)
    with pytest.raises(
        UserError, match=r"sums: 1 question.* for 2 processes.*--num_processes to 1"
    ):
        evaluate(two_ranks[rank], {"tasks": {"sums": task}}, bootstrap_iters=0, **asked)


def test_padded_attempts_count_nowhere(two_ranks):
    results = [None, None]

    def run(rank):
        task = make_task()
        task.set_fewshot_seed(0)
        results[rank] = evaluate(two_ranks[rank], {"tasks": {"sums": task}}, bootstrap_iters=0)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(two_ranks[0].requests) == len(two_ranks[1].requests) == 9  # 2 questions padded to 3
    assert results[1] is None
    rows = results[0]["results"]["sums"]
    assert rows["pass@1,none"] == pytest.approx(1 / N_ATTEMPTS)
    assert rows["pass@3,none"] == 1.0
    samples = results[0]["samples"]["sums"]
    assert sorted(sample["doc_id"] for sample in samples) == list(range(N_DOCS))
    for sample in samples:
        assert [attempt["attempt"] for attempt in sample["attempts"]] == [0, 1, 2]
        assert len(sample["resps"][0]) == N_ATTEMPTS

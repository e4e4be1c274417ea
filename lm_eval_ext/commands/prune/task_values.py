"""A model's metrics on lm-eval tasks, question by question."""

from __future__ import annotations

from typing import Any

import numpy as np

from lm_eval_ext.errors import UserError
from lm_eval_ext.metrics import proportion_interval, t_interval


class TaskRunner:
    """Runs lm-eval tasks, of which there may be none, on several models.

    Parameters
    ----------
    tasks
        Names with commas between.
    limit
        Questions per task, or None.
    manager
        lm-eval's ``TaskManager``, for tasks of other folders or with metadata; by default new.
    gen_kwargs
        As ``--gen_kwargs`` of lm-eval.
    """

    def __init__(
        self, tasks: str, limit: int | None, manager: Any = None, gen_kwargs: str | None = None
    ) -> None:
        self._names = [name for name in tasks.split(",") if name]
        self._limit = limit
        self._manager = manager
        self._gen_kwargs = gen_kwargs
        if self._names:
            from lm_eval.tasks import TaskManager

            self._manager = manager or TaskManager()  # reads thousands of files, so once
            unknown = [name for name in self._names if name not in self._manager.all_tasks]
            if unknown:
                raise UserError(f"tasks={','.join(unknown)}: not a task; see lm_eval ls tasks")

    def run(self, lm: Any) -> dict[str, dict[str, Any]]:
        """Return the metrics that have a value per question, by ``TASK/METRIC``.

        Each has its mean (``estimate``), 95% interval over questions (``low``, ``high``), its
        ``values`` in the order of the questions, and ``higher_is_better``.
        """
        if not self._names:
            return {}
        from lm_eval import simple_evaluate

        output = simple_evaluate(
            model=lm,
            tasks=self._names,
            limit=self._limit,
            task_manager=self._manager,
            gen_kwargs=self._gen_kwargs,
            bootstrap_iters=0,
        )
        metrics = {}
        for task, samples in output["samples"].items():
            direction = output["higher_is_better"].get(task, {})
            for metric in dict.fromkeys(name for sample in samples for name in sample["metrics"]):
                values = _values(samples, metric)
                if values is not None:
                    metrics[f"{task}/{metric}"] = {
                        **_summary(values),
                        "higher_is_better": direction.get(metric),
                    }
        return metrics


def _values(samples: list[dict[str, Any]], metric: str) -> list[float] | None:
    """Return a metric's value for each question, or None if it has no number there.

    A task with several filters has a sample per question and filter; the first filter counts.
    """
    first = [s for s in samples if s["filter"] == samples[0]["filter"] and metric in s]
    values = [s[metric] for s in sorted(first, key=lambda s: s["doc_id"])]
    if not values or not all(isinstance(value, (int, float, np.number)) for value in values):
        return None
    return [float(value) for value in values]


def _summary(values: list[float]) -> dict[str, Any]:
    known = np.array(values)
    known = known[~np.isnan(known)]
    if not len(known):
        return {"estimate": None, "low": None, "high": None, "values": values}
    share = bool((known >= 0).all() and (known <= 1).all())
    interval = proportion_interval(known) if share else t_interval(known)
    summary = {name: getattr(interval, name) for name in ("estimate", "low", "high")}
    return {**summary, "values": values}

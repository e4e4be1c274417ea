"""What a run should say at its end: that many attempts have no answer, and what helps."""

from __future__ import annotations

import logging

from lm_eval_ext.grading.attempt_details import Question

logger = logging.getLogger(__name__)

MAX_SHARE = 0.05
"""Share of attempts that may be truncated, or invalid, before the run speaks of it."""


class RunReport:
    """Counts the attempts of a task that were cut off or have no answer."""

    def __init__(self, task: str) -> None:
        self._task = task
        self._n_attempts = self._n_truncated = self._n_invalid = self._n_unfinished = 0

    def add(self, question: Question) -> None:
        """Count the attempts at a question."""
        self._n_attempts += len(question)
        for attempt in question:
            self._n_truncated += attempt.get("finish_reason") == "length"
            self._n_invalid += attempt["answer"] is None
            self._n_unfinished += attempt.get("unfinished_thought", False)

    def write(self) -> None:
        """Say in one line what is wrong and what helps, if anything is, and begin again."""
        parts = [
            self._share(self._n_truncated, "ended at the token limit"),
            self._share(self._n_invalid, "have no answer"),
        ]
        if any(parts):
            logger.warning(
                "%s: of %d attempts %s: %s",
                self._task,
                self._n_attempts,
                " and ".join(part for part in parts if part),
                self._remedy(),
            )
        self._n_attempts = self._n_truncated = self._n_invalid = self._n_unfinished = 0

    def _share(self, count: int, what: str) -> str:
        if count <= MAX_SHARE * self._n_attempts:
            return ""
        return f"{count / self._n_attempts:.1%} {what}"

    def _remedy(self) -> str:
        if self._n_unfinished > MAX_SHARE * self._n_attempts:
            return (
                f"{self._n_unfinished} ended inside their thought; raise --gen_kwargs "
                "max_gen_toks=..., or end thoughts in time with thinking_budget=... in --model_args"
            )
        if self._n_truncated > MAX_SHARE * self._n_attempts:
            return "raise the limit with --gen_kwargs max_gen_toks=..."
        return (
            "look at some (--log_samples); a chat model needs --apply_chat_template, and examples "
            "(--num_fewshot) show a base model how to answer"
        )

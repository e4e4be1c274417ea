"""What a run should say at its end: that many attempts have no answer, and what helps."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from lm_eval_ext.grading.attempt_details import Question

logger = logging.getLogger(__name__)

_FAULTS = {
    "empty": "are empty",
    "alike": "are one and the same text",
    "truncated": "ended at the token limit",
    "invalid": "have no answer",
}
MAX_SHARE = 0.05  # share of attempts that may be truncated, or invalid, before the run speaks of it
NEARLY_ALL = 0.9  # share from which it speaks of attempts that are empty or alike


class RunReport:
    """Counts the attempts of a task that were cut off, have no answer, or are empty or alike."""

    def __init__(self, task: str) -> None:
        self._task = task
        self._counts: Counter[str] = Counter()
        self._texts: Counter[int] = Counter()  # by their hash

    def add(self, question: Question, texts: Sequence[str] = ()) -> None:
        """Count the attempts at a question."""
        self._counts["questions"] += 1
        self._counts["attempts"] += len(question)
        self._texts.update(hash(text.strip()) for text in texts)
        for attempt in question:
            self._counts["truncated"] += attempt.get("finish_reason") == "length"
            self._counts["invalid"] += attempt["answer"] is None
            self._counts["unfinished"] += attempt.get("unfinished_thought", False)

    def write(self) -> None:
        """Say in one line what is wrong and what helps, if anything is, and begin again."""
        counts, texts = self._counts, self._texts
        self._counts, self._texts = Counter(), Counter()
        counts["empty"] = texts.pop(hash(""), 0)
        if counts["questions"] > 1:  # equal attempts at one question have a line of their own
            counts["alike"] = max(texts.values(), default=0)
        least = {"empty": NEARLY_ALL, "alike": NEARLY_ALL}
        many = {
            name
            for name in counts
            if counts[name] > least.get(name, MAX_SHARE) * counts["attempts"]
        }
        said = [
            f"{counts[name] / counts['attempts']:.1%} {words}"
            for name, words in _FAULTS.items()
            if name in many
        ]
        if "unfinished" in many:
            remedy = (
                f"{counts['unfinished']} ended inside their thought; raise --gen_kwargs "
                "max_gen_toks=..., or end thoughts in time with thinking_budget=... in --model_args"
            )
        elif "truncated" in many:
            remedy = "raise the limit with --gen_kwargs max_gen_toks=..."
        else:
            remedy = (
                "look at some (--log_samples); a chat model needs --apply_chat_template, and "
                "examples (--num_fewshot) show a base model how to answer"
            )
        if said:
            attempts = counts["attempts"]
            logger.warning(
                "%s: of %d attempts %s: %s", self._task, attempts, " and ".join(said), remedy
            )

"""Phase ``rows``: D_reason and D_eval as tokens, laid out as `SelfEvalLayout` does at test time.

    D_reason    prompt | response, end of sequence                     (loss on the right part)
    D_eval      prompt, response, newline and question | label         (likewise)

A row that is too long is cut from the left.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.self_evaluation.layout import SelfEvalLayout
from lm_eval_ext.training.run import write_json
from lm_eval_ext.training.self_training.folders import LABELLED, Stage, read_lines, write_lines
from lm_eval_ext.training.self_training.models import initial_model
from lm_eval_ext.training.self_training.settings import (
    Balance,
    RowSettings,
    SelfTraining,
    SelfTrainingRuntime,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

FILE_NAME = "rows.jsonl"
IGNORED = -100
"""Label of a token without loss, as torch and TRL have it."""


class Row(NamedTuple):
    """A training row."""

    kind: Literal["reason", "eval"]
    problem: int
    attempt: int
    input_ids: tuple[int, ...]
    n_context: int
    was_cut: bool

    @property
    def labels(self) -> list[int]:
        """The tokens that have a loss, `IGNORED` elsewhere."""
        return [IGNORED] * self.n_context + list(self.input_ids[self.n_context :])


class RowBuilder:
    """Lays out attempts.

    Raises
    ------
    UserError
        If the template or its labels do not fit the tokenizer, or it has no end-of-sequence token.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, settings: RowSettings, *, max_length: int
    ) -> None:
        most = min(settings.max_length, max_length)
        self.layout = SelfEvalLayout(tokenizer, settings.template(), max_length=most)
        if tokenizer.eos_token_id is None:
            raise UserError(
                "the tokenizer has no end-of-sequence token, which every solution is to end with: "
                "set eos_token in its tokenizer_config.json"
            )
        self._eos = int(tokenizer.eos_token_id)

    def reason(self, line: Mapping[str, Any], prompt_ids: Sequence[int]) -> Row:
        """Return the row of D_reason of an attempt.

        An attempt that ran into the token limit did not end, and its row does not either.
        """
        (response_ids,) = self.layout.response_ids([_response(line)])
        end = () if line["finish_reason"] == "length" else (self._eos,)
        whole = (*prompt_ids, *response_ids, *end)
        n_cut = max(0, len(whole) - self.layout.max_length)
        n_context = max(0, len(prompt_ids) - n_cut)
        return Row("reason", line["problem"], line["attempt"], whole[n_cut:], n_context, n_cut > 0)

    def judge(self, line: Mapping[str, Any], prompt_ids: Sequence[int]) -> Row:
        """Return the row of D_eval of an attempt."""
        context = self.layout.context_ids(prompt_ids, _response(line))
        yes, no = self.layout.label_ids
        ids = (*context, yes if line["correct"] else no)
        # The context is cut exactly where it would fill all positions but the label's.
        (response_ids,) = self.layout.response_ids([_response(line)])
        n_whole = len(prompt_ids) + len(response_ids) + len(self.layout.template_ids)
        was_cut = len(context) < n_whole
        return Row("eval", line["problem"], line["attempt"], ids, len(context), was_cut)


def _response(line: Mapping[str, Any]) -> str:
    return str(line.get("response", line["text"]))


def reasoning_lines(lines: Iterable[dict[str, Any]], *, dedup: bool) -> list[dict[str, Any]]:
    """Return the correct attempts, exact duplicates once where that is asked for.

    Parameters
    ----------
    dedup
        Drop an attempt whose problem has an earlier one with the same text.
    """
    correct = [line for line in lines if line["correct"]]
    if not dedup:
        return correct
    first: dict[tuple[int, str], dict[str, Any]] = {}
    for line in correct:
        first.setdefault((line["problem"], _response(line)), line)
    return list(first.values())


def balanced(
    lines: Sequence[dict[str, Any]], balance: Balance, rng: random.Random
) -> list[dict[str, Any]]:
    """Return attempts with the wanted numbers of correct and of wrong ones, in order.

    Parameters
    ----------
    balance
        ``"none"`` keeps all; ``"undersample"`` draws as many of the larger class as the smaller one
        has; ``"oversample"`` repeats the smaller class until it has as many as the larger one.
        A class that is empty leaves nothing to balance, and all are kept.
    """
    classes = [[line for line in lines if line["correct"] == value] for value in (True, False)]
    few, many = sorted(classes, key=len)
    if balance == "none" or not few:
        return list(lines)
    if balance == "undersample":
        kept = [*few, *rng.sample(many, len(few))]
    else:
        repeated = few * (len(many) // len(few))
        kept = [*many, *repeated, *rng.sample(few, len(many) - len(repeated))]
    return sorted(kept, key=lambda line: (line["problem"], line["attempt"]))


def build_rows(run: SelfTraining, stage: Stage, runtime: SelfTrainingRuntime) -> None:
    """Write the rows of a round.

    Raises
    ------
    UserError
        If there is nothing to learn from, and as `RowBuilder`.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(
        initial_model(run, stage).pretrained, trust_remote_code=runtime.trust_remote_code
    )
    max_length = stage.counts("generate")["max_length"]
    builder = RowBuilder(tokenizer, run.rows, max_length=max_length)
    lines = list(read_lines(stage.folder / LABELLED))
    prompts = {line["problem"]: line["prompt_ids"] for line in lines if "prompt_ids" in line}
    n_correct = sum(line["correct"] for line in lines)
    if run.tuning.schedule == "eval_only":
        rows, counts = [], {"reason": 0, "dropped": 0}
    else:
        solutions = reasoning_lines(lines, dedup=run.rows.dedup)
        rows = [builder.reason(line, prompts[line["problem"]]) for line in solutions]
        counts = {"reason": len(rows), "dropped": n_correct - len(rows)}
    judged: list[Row] = []
    if run.method == "epicar":
        rng = random.Random(f"{run.seed}:balance:{stage.number}")
        picked = balanced(lines, run.rows.balance, rng)
        judged = [builder.judge(line, prompts[line["problem"]]) for line in picked]
        counts["eval"] = len(judged)
        counts["yes"] = sum(line["correct"] for line in picked)
    rows += judged
    if not rows:
        raise UserError(
            f"{stage.name}: none of {len(lines)} attempts is correct, so there is nothing to learn "
            "from: give easier problems, more --attempts or a better model"
        )
    _warn_of_one_kind(stage, run, n_correct=n_correct, n_attempts=len(lines))
    counts["cut"] = sum(row.was_cut for row in rows)
    write_lines(stage.folder / FILE_NAME, map(_written, rows))
    write_json(stage.report("rows"), counts)


def _warn_of_one_kind(stage: Stage, run: SelfTraining, *, n_correct: int, n_attempts: int) -> None:
    """Say where a round cannot teach the model to tell right from wrong."""
    if run.method == "epicar" and n_correct in (0, n_attempts):
        verdict = "correct, so every label is yes" if n_correct else "wrong, so every label is no"
        logger.warning(
            "%s: all of %d attempts are %s: the model learns to say so of anything; give %s "
            "problems",
            stage.name,
            n_attempts,
            verdict,
            "harder" if n_correct else "easier",
        )


def _written(row: Row) -> dict[str, Any]:
    return {name: value for name, value in row._asdict().items() if name != "was_cut"}


def read_rows(stage: Stage) -> list[Row]:
    """Return the rows of a round."""
    return [
        Row(**{**line, "input_ids": tuple(line["input_ids"]), "was_cut": False})
        for line in read_lines(stage.folder / FILE_NAME)
    ]

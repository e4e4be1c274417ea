"""The question a model is asked about its own answer, and the labels it answers with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lm_eval_ext.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DEFAULT_PROMPT = "Is the answer correct? Choose ONLY one letter. A) Yes B) No. Your choice:"
DEFAULT_LABELS = (" A", " B")

SEPARATOR = "\n"
"""Between a response and the question about it."""


@dataclass(frozen=True)
class SelfEvalTemplate:
    """The question, and the labels of a correct and of a wrong answer, each one token.

    The question follows the response after a newline. It continues the model's own turn; one that
    is to be another turn brings the markup of the chat template along.

    Examples
    --------
    >>> SelfEvalTemplate().text[-13:]
    ' Your choice:'
    """

    prompt: str = DEFAULT_PROMPT
    labels: tuple[str, str] = DEFAULT_LABELS

    @property
    def text(self) -> str:
        """What is appended to a response."""
        return SEPARATOR + self.prompt


WORDINGS = (
    SelfEvalTemplate(),
    SelfEvalTemplate(
        "Is this solution right or wrong? Reply with one letter. A) Right B) Wrong. Reply:"
    ),
    SelfEvalTemplate("Would an expert accept the final answer above? A) Accept B) Reject. Letter:"),
    # The letters change places: a model that merely likes one of them shows here.
    SelfEvalTemplate(
        "Is the answer correct? Choose ONLY one letter. A) No B) Yes. Your choice:", (" B", " A")
    ),
)
"""Four wordings of the question; the first is the default. The others are ours."""


def read_template(
    prompt: str | None = None, labels: str | Sequence[str] | None = None
) -> SelfEvalTemplate:
    """Read the template from the arguments of a model.

    Labels are joined by ``+``, or a list; None is the default.

    Raises
    ------
    UserError
        For an empty prompt, or anything but two labels.

    Examples
    --------
    >>> read_template(labels=" yes+ no").labels
    (' yes', ' no')
    """
    if prompt is not None and (not isinstance(prompt, str) or not prompt.strip()):
        raise UserError(f"self_eval_prompt={prompt!r} must be a question, or be left out")
    given = DEFAULT_LABELS if labels is None else labels
    parts = tuple(given.split("+")) if isinstance(given, str) else tuple(given)
    if len(parts) != 2 or not all(isinstance(part, str) and part for part in parts):
        raise UserError(
            f"self_eval_labels={labels!r} must be two labels, that of a correct answer first, "
            "joined by + or as a list"
        )
    return SelfEvalTemplate(DEFAULT_PROMPT if prompt is None else prompt, (parts[0], parts[1]))


def label_token_ids(tokenizer: PreTrainedTokenizerBase, labels: tuple[str, str]) -> tuple[int, int]:
    """Return the tokens of the labels.

    Raises
    ------
    UserError
        If a label is not exactly one token, or both are the same.
    """
    ids = []
    for label in labels:
        tokens = tokenizer(label, add_special_tokens=False)["input_ids"]
        if len(tokens) != 1:
            raise UserError(
                f"self_eval_labels: {label!r} is {len(tokens)} tokens of this tokenizer "
                f"({', '.join(map(repr, tokenizer.convert_ids_to_tokens(tokens)))}), and must be "
                "one; choose other labels, for example with or without the space in front"
            )
        ids.append(int(tokens[0]))
    if ids[0] == ids[1]:
        raise UserError(
            f"self_eval_labels: {labels[0]!r} and {labels[1]!r} are the same token; choose two "
            "that differ"
        )
    return ids[0], ids[1]

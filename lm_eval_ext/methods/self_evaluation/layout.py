"""The order of the tokens of a self-evaluation: one definition for training and for the test.

    prompt tokens, tokens of the response's text, tokens of the template, label

The response is its text, tokenized by itself: without the end-of-sequence token, cut before the
stop string. So the same tokens come out of a logged text, of another engine's samples and of a
solution written by someone else. Where the model had sampled the text in other tokens than the
tokenizer would choose, the judged tokens are the tokenizer's.

What is too long for the model is cut from the left; the template is never cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.self_evaluation.template import SelfEvalTemplate, label_token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lm_eval_ext.engine.request import AttemptRequest


class SelfEvalLayout:
    """Lays out prompts, responses and the question about them.

    `template_ids` are the tokens between the response and the label; `label_ids` those of the
    labels of a correct and of a wrong answer.

    Raises
    ------
    UserError
        If a label is not one token, or the template leaves no room for a response.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: SelfEvalTemplate | None = None,
        *,
        max_length: int,
    ) -> None:
        self.template = template or SelfEvalTemplate()
        self.max_length = max_length
        self.label_ids = label_token_ids(tokenizer, self.template.labels)
        self._tokenizer = tokenizer
        (self.template_ids,) = self._tokens([self.template.text])
        if len(self.template_ids) + 2 > max_length:
            raise UserError(
                f"self_eval_prompt has {len(self.template_ids)} tokens, which leaves no room for a "
                f"response in {max_length} positions; shorten it or raise max_length"
            )

    def response_ids(self, responses: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the tokens of responses, texts without end-of-sequence token and stop string."""
        # A tokenizer takes no empty list.
        return self._tokens(responses) if responses else []

    def context_ids(self, prompt_ids: Sequence[int], response: str) -> tuple[int, ...]:
        """Return all that comes before the label, cut from the left."""
        (response_ids,) = self.response_ids([response])
        ids = (*prompt_ids, *response_ids, *self.template_ids)
        return ids[self.n_over(len(ids)) :]

    def n_over(self, n_positions: int) -> int:
        """Return how many positions before the label must be cut."""
        return max(0, n_positions + 1 - self.max_length)

    def request(self, asked: AttemptRequest, response_ids: Sequence[int]) -> AttemptRequest:
        """Return what the model reads before the label: the context it generated the response in.

        Injected vectors stay where they were. Without any, the tokens are those of `context_ids`.
        """
        private_ids = (*asked.private_ids, *response_ids, *self.template_ids)
        whole = replace(asked, private_ids=private_ids)
        return cut_from_left(whole, self.n_over(len(whole.shared_ids) + whole.private_length))

    def _tokens(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        encoded = self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return [tuple(map(int, ids)) for ids in encoded]


def cut_from_left(request: AttemptRequest, n: int) -> AttemptRequest:
    """Return a request without its first `n` positions; injected vectors are cut all or none."""
    n_shared = len(request.shared_ids)
    if n <= n_shared:
        return replace(request, shared_ids=request.shared_ids[n:])
    from_private = max(0, n - n_shared - request.n_vectors)
    return replace(
        request, shared_ids=(), vectors=None, private_ids=request.private_ids[from_private:]
    )

"""A model wrapper's result for one attempt: the text, carrying its annotations.

lm-eval passes completions around as plain strings, through filters, pickles and JSON. `Generation`
is such a string, and brings along the annotations of the engine and the wrappers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

FinishReason = Literal["stop", "eos", "length"]
"""Why an attempt ended: a stop string, the end-of-sequence token, or the token limit."""


class TokenStatistics(NamedTuple):
    """Per-token statistics of one attempt, each an array of shape (n_tokens,), float32.

    All are taken from the model's own distribution at temperature 1, before any logits processor:
    they describe the model, not the sampler. Tokens of a stop string or the end-of-sequence token
    are included, since the model chose them; where a thinking budget forced a token, all are NaN.

    Parameters
    ----------
    log_prob
        Log-probability of the chosen token, nats, at most 0.
    entropy
        Entropy of the next-token distribution, nats, in [0, ln V].
    self_certainty
        KL divergence from the uniform distribution to the next-token distribution, nats, at
        least 0; higher is more certain (Kang et al. 2025, arXiv:2502.18581, eq. 6).
    margin
        Probability of the most likely token less that of the second, in [0, 1].
    """

    log_prob: NDArray[np.float32]
    entropy: NDArray[np.float32]
    self_certainty: NDArray[np.float32]
    margin: NDArray[np.float32]


class Thought(NamedTuple):
    """The thought of an attempt.

    Parameters
    ----------
    finished
        Whether it ended; an attempt that ends inside its thought has no answer.
    n_tokens
        Tokens up to its end, the closing tag included; None where only the text is known.
    n_characters
        Characters of the response up to there, 0 where the thought is not in the response; None
        where that is unknown.

    Examples
    --------
    >>> Thought(finished=True, n_characters=5).answer_in("4? 5.It is 5.")
    'It is 5.'
    >>> Thought(finished=False).answer_in("Perhaps 5.") is None
    True
    """

    finished: bool
    n_tokens: int | None = None
    n_characters: int | None = None

    def answer_in(self, response: str) -> str | None:
        """Return what follows the thought in the response, or None where nothing does."""
        return response[self.n_characters or 0 :] if self.finished else None


class AnswerTokens(NamedTuple):
    """The tokens that write the answer of an attempt, from `start` up to, not including, `end`.

    Parameters
    ----------
    text
        What they write, without what else is in the first and last of them.
    start, end
        Numbers of tokens.
    in_box
        Whether the answer is the inside of a box; otherwise it is the last number.
    """

    text: str
    start: int
    end: int
    in_box: bool


@dataclass(frozen=True)
class GenerationRecord:
    """The annotations of one attempt.

    Parameters
    ----------
    attempt
        Number of the attempt among those of its question, from 0.
    token_ids
        Every token the model produced, stop string and end-of-sequence included.
    n_prompt_tokens
        Tokens of the prompt after truncation.
    n_truncated_prompt_tokens
        Tokens cut from the left of an over-long prompt.
    probabilities
        Estimates of the probability that the attempt is correct, in [0, 1], by the name of their
        source, such as ``self_eval``. Calibration is measured on these only.
    uncertainties
        Uncertainties about the attempt on any scale, higher is less certain, by the name of their
        source, such as ``draft_eu``. They rank attempts and are never read as probabilities.
    token_scores
        Values per token, by name, each an array of shape (n_tokens,), float32.
    extra
        Other annotations of a wrapper, by name; values are JSON-serializable.
    answer
        Its last box or number, or None where there is none or it was not looked for.
    """

    attempt: int = 0
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason = "eos"
    n_prompt_tokens: int = 0
    n_truncated_prompt_tokens: int = 0
    statistics: TokenStatistics | None = None
    probabilities: Mapping[str, float] = field(default_factory=dict)
    uncertainties: Mapping[str, float] = field(default_factory=dict)
    token_scores: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    thought: Thought | None = None
    answer: AnswerTokens | None = None

    @property
    def n_tokens(self) -> int:
        """Number of tokens the model produced."""
        return len(self.token_ids)

    @property
    def chosen(self) -> NDArray[np.bool_]:
        """Whether the model chose each token, shape (n_tokens,); the others were forced."""
        if self.statistics is None:
            return np.ones(self.n_tokens, dtype=bool)
        return ~np.isnan(self.statistics.log_prob)


class Generation(str):
    """A completion that is a `str` and carries the record of its attempt.

    Parameters
    ----------
    text
        The completion as lm-eval sees it: special tokens removed, cut before the stop string.
    record
        Annotations; defaults to an empty record, because lm-eval calls ``type(result)(gold)``.

    Examples
    --------
    >>> generation = Generation("The answer is 4.", GenerationRecord(attempt=3, token_ids=(5, 8)))
    >>> generation.upper()
    'THE ANSWER IS 4.'
    >>> generation.record.attempt, generation.record.n_tokens
    (3, 2)
    """

    record: GenerationRecord

    def __new__(cls, text: object = "", record: GenerationRecord | None = None) -> Generation:
        """Make the string and attach the record."""
        generation = super().__new__(cls, text)
        generation.record = record if record is not None else GenerationRecord()
        return generation

    def __getnewargs__(self) -> tuple[str, GenerationRecord]:  # type: ignore[override]
        """Return what `__new__` needs, so that pickling and copying keep the record."""
        return (str(self), self.record)

    def with_text(self, text: str) -> Generation:
        """Return the same attempt with another text, as a filter would make it."""
        thought = self.record.thought
        if thought is None or text == self:
            return Generation(text, self.record)
        return Generation(text, replace(self.record, thought=thought._replace(n_characters=None)))

    def annotated(
        self,
        *,
        probabilities: Mapping[str, float] | None = None,
        uncertainties: Mapping[str, float] | None = None,
        token_scores: Mapping[str, NDArray[np.float32]] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Generation:
        """Return the same attempt with further annotations; see `GenerationRecord` for each.

        Raises
        ------
        ValueError
            If a probability is outside [0, 1], a source is both a probability and an uncertainty,
            or token scores do not fit the tokens.

        Examples
        --------
        >>> attempt = Generation("4", GenerationRecord(token_ids=(5, 8)))
        >>> attempt.annotated(probabilities={"self_eval": 0.9}).record.probabilities
        {'self_eval': 0.9}
        """
        record = self.record
        for source, probability in (probabilities or {}).items():
            if not 0 <= probability <= 1:
                raise ValueError(f"probabilities[{source!r}]={probability} must be in [0, 1]")
        for name, scores in (token_scores or {}).items():
            if np.shape(scores) != (record.n_tokens,):
                raise ValueError(
                    f"token_scores[{name!r}] must have one value for each of the "
                    f"{record.n_tokens} tokens, got shape {np.shape(scores)}"
                )
        annotated = replace(
            record,
            probabilities={**record.probabilities, **(probabilities or {})},
            uncertainties={**record.uncertainties, **(uncertainties or {})},
            token_scores={**record.token_scores, **(token_scores or {})},
            extra={**record.extra, **(extra or {})},
        )
        for source in annotated.probabilities.keys() & annotated.uncertainties.keys():
            raise ValueError(f"source {source!r} is a probability and an uncertainty: rename one")
        return Generation(str(self), annotated)

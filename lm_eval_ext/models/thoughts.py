"""Where the thought of a reasoning model begins and ends, in its prompt and its completion.

A thought is *open* when the prompt has begun one, or the completion begins one, and no closing tag
follows. An attempt that ends inside its thought has not answered, whatever its last words are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

_CONTROL = re.compile(r"<\||\u25c1|</?\w+:|\[/?[A-Z]+\]")
_OPPOSITES = (("</", "<"), ("[/", "["), ("\u25c1/", "\u25c1"), ("<|/", "<|"))
_WORDS = (("end", "begin"), ("END", "START"), ("suffix", "prefix"))


class ThoughtTags(NamedTuple):
    """How a model marks its thought.

    An unknown `opening` is empty. `forced` ends a thought from outside, where the closing tag alone
    does not.
    """

    opening: str
    closing: str
    forced: str = ""

    @property
    def end(self) -> str:
        """The text that ends a thought when it is appended."""
        return self.forced or self.closing

    @property
    def is_control(self) -> bool:
        """Whether the tags are special tokens, which are never written in passing."""
        return bool(_CONTROL.match(self.closing))

    def end_in(self, text: str) -> int:
        """Return where the last closing tag of a text ends, or -1."""
        found = text.rfind(self.closing)
        return found + len(self.closing) if found >= 0 else -1

    def start_in(self, text: str) -> int:
        """Return where the first thought of a text begins, after its opening tag, or -1.

        A tag between the words of a line is a mention; one that begins or ends the line, begins a
        sentence or is followed by a word without a space begins a thought.
        """
        if not self.opening or self.opening not in text:
            return -1
        tag = re.escape(self.opening)
        if not self.is_control:
            tag = rf"^[ \t]*{tag}|{tag}(?=\w|[ \t]*\n)|(?<=[.!?] ){tag}(?=\s[A-Z])"
        found = re.search(tag, text, re.MULTILINE)
        return found.end() if found else -1


KNOWN = (
    ThoughtTags("<think>", "</think>"),
    ThoughtTags("<thinking>", "</thinking>"),
    ThoughtTags("<thought>", "</thought>"),
    ThoughtTags("<reasoning>", "</reasoning>"),
    ThoughtTags("[THINK]", "[/THINK]"),
    ThoughtTags("<|begin_of_thought|>", "<|end_of_thought|>"),
    ThoughtTags("<|START_THINKING|>", "<|END_THINKING|>"),
    ThoughtTags("<|inner_prefix|>", "<|inner_suffix|>"),
    ThoughtTags("\u25c1think\u25b7", "\u25c1/think\u25b7"),
    ThoughtTags("<seed:think>", "</seed:think>"),
    ThoughtTags(
        "<|channel|>analysis",
        "<|channel|>final",
        forced="<|end|><|start|>assistant<|channel|>final<|message|>",
    ),
)
"""The tags of published reasoning models."""

# The channels of gpt-oss once its special tokens are dropped: "analysisWe need ... assistantfinal".
_BARE_CHANNEL = re.compile(r"\s*analysis(?=[A-Z0-9\"'(\\$])")
_BARE_FINAL = "assistantfinal"


class ThoughtSpan(NamedTuple):
    """The thought in a completion, from `start` to `end` in characters, its closing tag included.

    It starts at 0 where the prompt has begun it, and ends with the text where it is open.
    """

    start: int
    end: int
    tags: ThoughtTags
    finished: bool


class ThoughtFormats:
    r"""The tags to look for: those a user names, and the known ones.

    Parameters
    ----------
    opening, closing
        Tags of the model at hand, or None. Of one alone, the other is the usual counterpart
        (``</x>`` and ``<x>``, ``[/X]`` and ``[X]``, ``end`` and ``begin``), where there is one.

    Examples
    --------
    >>> formats = ThoughtFormats(closing="</plan>")
    >>> formats.opened_by("Question: 2 + 2? <plan>\n").closing
    '</plan>'
    >>> formats.find("Perhaps 5.</plan>4").finished
    True
    """

    def __init__(self, opening: str | None = None, closing: str | None = None) -> None:
        named = () if not opening and not closing else (_named(opening, closing),)
        self.all: tuple[ThoughtTags, ...] = (*named, *KNOWN)

    def opened_by(
        self, prompt: str, *, turn: int | None = None, prefix: str = ""
    ) -> ThoughtTags | None:
        r"""Return the tags of the thought that a prompt leaves open, or None.

        Parameters
        ----------
        turn
            Where the assistant's turn begins, if known: a thought begun there and not ended is
            open, whatever follows its tag.
        prefix
            The beginning of the answer that the task puts at the end of the prompt.

        Examples
        --------
        >>> ThoughtFormats().opened_by("<|user|>2 + 2?<|assistant|><think>\n").closing
        '</think>'
        >>> ThoughtFormats().opened_by("Put your thoughts in <think> tags. 2 + 2?")
        >>> ThoughtFormats().opened_by("<|assistant|><think>\n\n</think>\n\n")
        """
        ends = {prompt.rstrip()}
        if prefix and prompt.endswith(prefix):
            turn = len(prompt) - len(prefix) if turn is None else turn
            ends.add(prompt[: -len(prefix)].rstrip())
        own = "" if turn is None else prompt[turn:]
        for tags in self.all:
            if not tags.opening:
                continue
            begun = own.rfind(tags.opening)
            if begun >= 0 and tags.end_in(own) < begun:
                return tags
            # The channels of gpt-oss end their header with a token of its own.
            if any(end.removesuffix("<|message|>").endswith(tags.opening) for end in ends):
                return tags
        return None

    def switched_off_by(self, prompt: str) -> bool:
        """Return whether a prompt ends with a thought that is over."""
        return any(prompt.rstrip().endswith(tags.closing) for tags in self.all)

    def find(self, completion: str, opened: ThoughtTags | None = None) -> ThoughtSpan | None:
        """Return the thought in a completion, or None where there is none.

        Of several, the last end counts, and a thought that is open after it. The completion should
        include special tokens; `opened` are the tags of a thought that the prompt has opened.

        Examples
        --------
        >>> ThoughtFormats().find("I use no <think> tags.")
        >>> ThoughtFormats().find("<think>7?</think>8").end
        17
        """
        over: list[ThoughtSpan] = []
        begun: list[ThoughtSpan] = []
        for tags in self.all if opened is None else (opened, *self.all):
            end = max(tags.end_in(completion), 0)
            if end:
                start = _start_before(end, completion, tags, opened)
                over.append(ThoughtSpan(start, end, tags, finished=True))
            again = tags.start_in(completion[end:])
            if again >= 0:
                begun.append(ThoughtSpan(end + again, len(completion), tags, finished=False))
        for span in begun:
            first = span.start - len(span.tags.opening)
            # A tag of another kind in a thought that is over is a part of that thought.
            if not any(one.start <= first < one.end for one in over):
                return span
        if opened is not None and opened.end_in(completion) < 0:
            return ThoughtSpan(0, len(completion), opened, finished=False)
        last = max(over, key=lambda span: span.end, default=None)
        return last or _bare_channels(completion)


def after_thinking(completion: str) -> str:
    """Return what follows the thought of a completion; all of it where there is none.

    A thought that was begun and never ended leaves nothing: the attempt ended before its answer. A
    chat template may begin it in the prompt, so a closing tag alone counts too.

    Examples
    --------
    >>> after_thinking("<think>Is the answer 7?</think>The answer is 8.")
    'The answer is 8.'
    >>> after_thinking("<think>Perhaps the answer is 7")
    ''
    """
    thought = _FORMATS.find(completion)
    return completion if thought is None else completion[thought.end :]


_FORMATS = ThoughtFormats()


def _named(opening: str | None, closing: str | None) -> ThoughtTags:
    for tags in KNOWN:
        if (opening or tags.opening, closing or tags.closing) == tags[:2]:
            return tags
    return ThoughtTags(opening or _opening_of(closing or ""), closing or _closing_of(opening or ""))


def _opening_of(closing: str) -> str:
    return _exchanged(closing, [*_OPPOSITES, *_WORDS])


def _closing_of(opening: str) -> str:
    pairs: Sequence[tuple[str, str]] = [(b, a) for a, b in (*_WORDS, *reversed(_OPPOSITES))]
    return _exchanged(opening, pairs) or opening


def _exchanged(tag: str, pairs: Sequence[tuple[str, str]]) -> str:
    """Return the counterpart of a tag, or an empty string where there is none."""
    for ours, theirs in pairs:
        if ours in tag:
            return tag.replace(ours, theirs, 1)
    return ""


def _start_before(end: int, completion: str, tags: ThoughtTags, opened: ThoughtTags | None) -> int:
    """Return where the thought that ends at an offset begins."""
    if tags == opened:
        return 0
    start = tags.start_in(completion[:end])
    if start >= 0:
        return start
    # The prompt has begun it, it seems; the tag that a text begins with is not part of it.
    return len(completion) - len(completion.lstrip()) + 1


def _bare_channels(completion: str) -> ThoughtSpan | None:
    begun = _BARE_CHANNEL.match(completion)
    if begun is None:
        return None
    final = completion.rfind(_BARE_FINAL)
    end = final + len(_BARE_FINAL) if final >= 0 else len(completion)
    return ThoughtSpan(begun.end(), end, KNOWN[-1], finished=final >= 0)

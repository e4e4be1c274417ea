r"""Read the answer that a completion announces in words, in LaTeX or in plain text."""

from __future__ import annotations

import re

from lm_eval_ext.grading.extraction import CUT, UNFINISHED, Announcement, announced
from lm_eval_ext.grading.math_words import changing_words
from lm_eval_ext.grading.rational import parse_sentence

MAX_TAIL = 20_000
"""Characters, counted from the end, in which a formula that nothing announces is looked for."""

MAX_LATEX = 400  # characters of an answer in LaTeX between tags
MAX_WORDS = 60  # characters of an announced answer that is not a formula; longer ones are prose

# Dollars that are not escaped, in pairs on one paragraph; the doubled form first.
_FORMULA = re.compile(
    r"(?<!\\)\$\$(?P<display>(?:[^$\\]|\\.){1,2000}?)\$\$"
    # "$5 and $10" and "$5 for $x$ hours" are amounts of money
    r"|(?<!\\)\$(?![0-9][^$\\]{0,200}\s\$[0-9A-Za-z\\(])"
    r"(?P<inline>(?:[^$\\\n]|\\.|\n(?!\n)){1,2000}?)\$(?![0-9])"
    r"|\\\((?P<round>(?:[^\\]|\\[^()]){1,2000}?)\\\)"
    r"|\\\[(?P<square>(?:[^\\]|\\[^\[\]]){1,2000}?)\\\]",
    re.DOTALL,
)
_SENTENCE_END = re.compile(
    rf"[.!?](?=\s|$)|(?<=[^0-9\s])[.!?](?={CUT})|\n|\s(?:because|since|as|so|which|where|I hope)\s",
    re.IGNORECASE,
)
# What may stand between "the answer is" and its formula.
_LEAD_IN = re.compile(
    r"(?:[\s:=(*_~\"'`,\u2248]|\([A-E]\)|\b(?:is|are|was|be|equals?|equal to|approximately|about"
    r"|roughly|around|exactly|precisely|simply|just|only|actually|indeed|clearly|then|thus|hence"
    r"|so|therefore|consequently|finally|again|given by|found to be|as follows|that|either|both"
    r"|namely|we (?:have|get|find|obtain)|a|an|the|all|any|final|correct|ordered|unique|exact"
    r"|simplified|closed|open|real|complex|common|mixed|following|single|positive"
    r"|negative(?= (?:number|integer|real))|maximum|minimum|largest|smallest|greatest|least"
    r"|(?:total|area|volume|length|distance|probability|perimeter|radius|cost|time|measure|value)"
    r"(?: of)?|(?:number|integer|value|fraction|expression|equation|function|polynomial|formula|set"
    r"|list|pair|triple|triplet|tuple|point|vector|matrix|interval|union|solution|root|choice"
    r"|option|letter|coordinate|angle|line|form|result|answer)s?)\b)*",
    re.IGNORECASE,
)
_INTRODUCTION = re.compile(r"[A-Za-z ,']{1,80}:\s*")
_NEGATION = re.compile(r"(?:[-\u2212]|\b(?:minus|negative))\s*$", re.IGNORECASE)
_SINGLE_TERM = re.compile(r"[0-9.,/]+|\\[dtc]?frac\s*(?:[0-9]{2}|\{[^{}]+\}\s*\{[^{}]+\})")
# Words right after a formula, where some change it: "$5$ million", "$5$ eggs or more".
_NEW_CLAUSE = r"(?!(?:since|because|as|so|which|where|that|when|if|is|are|not|and(?! [aot]))\b)"
_FOLLOWING_WORDS = re.compile(
    rf"[ -]{{0,3}}({_NEW_CLAUSE}[a-z]+(?: {_NEW_CLAUSE}[a-z]+){{0,3}})", re.I
)
_OPERATOR = re.compile(
    r"\s*(?:\b(?:times|plus|minus|of|divided by|multiplied by)\b|[-+*/^\u2212])\s*(?:\$|\\[(\[])"
)
_JOINT = re.compile(r"\s*(?:,|;|,?\s*(?:and|or))\s*", re.I)
# A list, or words that may change a number, at the end of a text that was cut.
_OPEN_LIST = re.compile(
    rf"\s*(?:,|;|,?\s*(?:and|or)\b)\s*(?:\$|\\[(\[])?[^$\n]{{0,80}}{CUT}"
    rf"|(?=[ \t-]){UNFINISHED.pattern}",
    re.IGNORECASE,
)
_CLOSED = re.compile(rf"[*`\"'][ \t]*{CUT}\Z")
_COPULA = re.compile(
    r"(?:\b(?:is|are|was|were|equals?|has|have|(?:will|would|must|should) be"
    r"|comes? (?:out )?to)\b|=)(?:\s+equal\s+to\b)?\s*(?!\s)"
)
_HIDDEN = "\x04"
_DIRECT_COPULA = re.compile(rf"\A[^\w]*{_HIDDEN}+\s+{_COPULA.pattern}(?=[-+$0-9\\*]|{_HIDDEN})")
_SENTENCE = re.compile(r"[\s:*_(\"'`]*[A-Z][A-Za-z']*,?\s+\S")
_NO_WORDS = " \t\r\n:=(*_~\"'`,"
_NUMBER = re.compile(r"[\s*_]*[-+]?(?:\\?\$)?[0-9.,/]*[0-9]%?(?:\s[A-Za-z]+){0,3}[\s*_]*\Z")
_IN_BRACKETS = re.compile(r"\([^()]*\)")
# Words by which a sentence does not state what it says after "is".
_CONDITION = re.compile(
    r"\b(?:if|unless|whether|suppose|assum\w+|not|never|no|cannot|impossible|false|wrong"
    r"|incorrect)\b|n't\b",
    re.IGNORECASE,
)
_FEW_WORDS = re.compile(
    rf"[^{_HIDDEN}\s]*(?:\s+[^{_HIDDEN}\s]+){{0,3}}\s*\Z|[^{_HIDDEN}]*{_HIDDEN}"
)
_NEXT_CLAUSE = re.compile(r"[,;]?\s(?:and|but|while)\s(?:the|its|their|there|it|so|we|he|she)\s|;")
# Words that say something about an answer, and are not one if an answer was announced before.
_ADVERBS = (
    r"(?:(?:indeed|also|therefore|thus|hence|now|then|definitely|certainly|clearly|always|both|quite"
    r"|all|not|most|likely|probably|already|strictly|in|of|a|an|the) )*"
)
_CORRECT = re.compile(
    rf"{_ADVERBS}(?:correct|reasonable|consistent|verified|confirmed|valid|plausible|accurate"
    r"|sensible|justified|checked|wrong|incorrect|fine|sound)\b",
    re.IGNORECASE,
)
_REMARK = re.compile(
    rf"{_CORRECT.pattern}|{_ADVERBS}(?:right|positive|negative|non-?(?:negative|zero)|unique|exact"
    r"|simplified|simplest|lowest|reduced|integers?|whole|rational|irrational|real|prime|composite"
    r"|even|odd|finite|independent|same|required|expected|given|asked|found|obtained|shown|boxed"
    r"|above|below)\b",
    re.IGNORECASE,
)
_VALUE = re.compile(r"[0-9\\]")


def announced_answer(text: str) -> str | None:
    """Return the last announced answer; an empty one where many words say something about it.

    A remark about an answer that was announced before ("the answer is positive") replaces nothing.
    """
    remark = None
    for found in announced(text):
        candidate = found[_predicate(found) :]
        if found.form == "hope" and candidate == found:
            continue  # not a sentence that states a value
        formula = _announced_formula(candidate)
        if formula is not None:
            return formula
        words = _announced_words(candidate, found)
        if words is None:
            continue
        if _REMARK.match(candidate):
            remark = remark or words
        elif remark is None or _VALUE.search(words) or _CORRECT.match(remark):
            return words
        else:
            return remark
    return None if remark is None or _CORRECT.match(remark) else remark


def whole_answer(inside: str) -> str | None:
    """Return what stands between tags as an answer, unless it is prose."""
    inside = inside[_predicate(inside) :]
    formula = _announced_formula(inside)
    if formula is not None:
        return formula
    is_short = len(inside) <= (MAX_LATEX if "\\" in inside else MAX_WORDS)
    return inside.strip(" \t\n$*") if is_short and re.search("[0-9A-Za-z]", inside) else None


def _predicate(candidate: str) -> int:
    """Return where the value begins in a sentence such as "The value of $x$ is $5$"; or else 0."""
    hidden = _FORMULA.sub(lambda match: _HIDDEN * len(match[0]), candidate)
    stop = _SENTENCE_END.search(hidden)
    sentence = hidden[: stop.start() if stop else len(hidden)]
    subject, marker, _ = sentence.partition(_HIDDEN)
    if not marker:
        # Without a formula, only what is a number is sure to be the predicate.
        ends = [copula.end() for copula in _COPULA.finditer(sentence)]
        numbers = (end for end in ends if _NUMBER.match(sentence, end))
        return next(numbers, 0) if _SENTENCE.match(sentence) else 0
    if not subject.strip(_NO_WORDS):
        direct = _DIRECT_COPULA.search(sentence)
        formula = _FORMULA.search(candidate)
        is_name = formula and re.search(r"[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", _inside(formula)))
        return direct.end() if direct and is_name else 0
    first = _COPULA.search(subject)
    if not _SENTENCE.match(subject) or (first and _introduces(subject)):
        return 0
    clause = _NEXT_CLAUSE.search(sentence)
    sentence = _IN_BRACKETS.sub(lambda match: " " * len(match[0]), sentence)
    begin, end = first.start() if first else len(subject), clause.start() if clause else len(hidden)
    copulas = list(_COPULA.finditer(sentence, begin, end))
    if not copulas or not _FEW_WORDS.match(sentence, copulas[-1].end()):
        return 0
    value = copulas[-1].end()
    return 0 if first and not _states(sentence, value) else value


def _states(sentence: str, value: int) -> bool:
    """Return whether a sentence of hidden formulas says that its subject is the one at a place."""
    formula = sentence.find(_HIDDEN, value)
    if formula < 0 or _CONDITION.search(sentence[:value]):
        return False
    return _introduces(_NEGATION.sub("", sentence[value:formula]))


def _announced_formula(candidate: str) -> str | None:
    """Return the formulas a sentence leads to, unless its words say something else about them."""
    formula = _FORMULA.search(candidate)
    if formula is None or _SENTENCE_END.search(candidate[: formula.start()]):
        return None
    before = candidate[: formula.start()]
    negation = _NEGATION.search(before)
    if negation and _SINGLE_TERM.fullmatch(_inside(formula)):
        sign, before = "-", before[: negation.start()]
    else:
        sign = ""
    if not _introduces(before) or _OPERATOR.match(candidate, formula.end()):
        return None
    return sign + formulas if (formulas := _formulas(candidate, formula)) else None


def _announced_words(candidate: str, announcement: Announcement) -> str | None:
    """Return the words up to the end of a sentence if they are few.

    A sentence that says something about a formula in more words than that is an empty answer, and
    one that ends where the text was cut is none.
    """
    formula = _FORMULA.search(candidate)
    if formula and _SENTENCE_END.search(candidate[: formula.start()]):
        formula = None
    end = _SENTENCE_END.search(candidate, formula.end() if formula else 0)
    sentence = candidate[: end.start() if end else len(candidate)]
    if sentence.endswith(CUT) and not _CLOSED.search(sentence):
        return None
    if announcement.form == "label" and formula is None:
        value = parse_sentence(candidate, set_off=True)
        if value is not None and not sentence.startswith("*"):
            return str(value)
    words = sentence.replace("\\$", "").replace("$", "").strip(f" \t:*_,;{CUT}")
    if len(words) > MAX_WORDS:
        return "" if formula else None
    return words or None


def _introduces(before: str) -> bool:
    """Return whether text leads to a formula and says nothing about its value."""
    return bool(_LEAD_IN.fullmatch(before)) or (
        bool(_INTRODUCTION.fullmatch(before)) and not changing_words(before)
    )


def _formulas(candidate: str, formula: re.Match[str]) -> str | None:
    """Return a formula, those joined to it, and the words after them that change a number.

    None where the text was cut before one could tell.
    """
    parts = [_inside(formula)]
    end = formula.end()
    while (joint := _JOINT.match(candidate, end)) and (
        following := _FORMULA.match(candidate, joint.end())
    ):
        parts.append(_inside(following))
        end = following.end()
    if _OPEN_LIST.match(candidate, end):
        return None
    words = _FOLLOWING_WORDS.match(candidate, end)
    if words and changing_words(rf"1\text{{{words[1]}}}"):
        parts[-1] += rf"\text{{ {words[1]}}}"
    return ", ".join(parts)


def last_formula(text: str) -> str | None:
    """Return the last formula of a text, looked for near its end."""
    formulas = list(_FORMULA.finditer(text[-MAX_TAIL:]))
    return _inside(formulas[-1]) if formulas else None


def _inside(formula: re.Match[str]) -> str:
    return next(part for part in formula.groups() if part is not None).strip()

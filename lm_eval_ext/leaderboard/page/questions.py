"""A question of a run as the page shows it: its prompt, the attempts, verdicts and confidences."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from lm_eval_ext.grading.attempt_details import AttemptDetails, Question
from lm_eval_ext.leaderboard.page.size_limits import PageLimits
from lm_eval_ext.models.token_texts import TOKEN_TEXTS
from lm_eval_ext.scoring.confidence_sources import Source, confidence_sources

EXCERPT = 140
"""Characters of a question in the list of questions."""

_VERDICT_METRICS = ("exact_match", "acc", "accuracy", "pass@1")


def prompt_of(sample: Mapping[str, Any], limits: PageLimits) -> dict[str, str]:
    """Return the prompt and the expected answer of a question."""
    prompt = _request(sample).get("arg_0", "")
    return {
        "prompt": limits.shortened(_text(prompt)),
        "target": limits.shortened(_text(sample.get("target", ""))),
    }


def excerpt_of(sample: Mapping[str, Any]) -> str:
    """Return the beginning of a question, or the end of its prompt where the record has none."""
    doc = sample.get("doc")
    if isinstance(doc, dict):
        for name in ("question", "problem", "prompt", "text", "query"):
            if isinstance(doc.get(name), str) and doc[name].strip():
                return " ".join(doc[name].split())[:EXCERPT]
    return " ".join(_text(_request(sample).get("arg_0", "")).split())[-EXCERPT:]


def attempts_of(
    sample: Mapping[str, Any], sources: Mapping[str, Source], limits: PageLimits
) -> list[dict[str, Any]]:
    """Return the attempts at a question as the page shows them."""
    details: Question = sample.get("attempts") or plain_details(sample)
    texts = _texts(sample, len(details))
    confidences = confidences_by_attempt(details, sources)
    shown = []
    for place, attempt in enumerate(details):
        row: dict[str, Any] = {
            "answer": attempt.get("answer"),
            "correct": attempt.get("correct"),
            "confidence": {
                name: float(f"{values[place]:.4g}")
                for name, values in confidences.items()
                if values[place] is not None
            },
        }
        for name in ("finish_reason", "n_tokens", "reason"):
            if attempt.get(name) is not None:
                row[name] = attempt[name]
        if limits.attempts is None or place < limits.attempts:
            row["text"] = limits.shortened(texts[place]) if place < len(texts) else ""
            if place < limits.token_score_attempts and attempt.get("token_scores"):
                row["tokens"] = _tokens(attempt)
        shown.append(row)
    return shown


def confidences_by_attempt(
    question: Question, sources: Mapping[str, Source]
) -> dict[str, list[float | None]]:
    """Return the confidence of every attempt by source, None for an attempt without one.

    Sources of the question as a whole, such as the share of votes, are left out.

    Examples
    --------
    >>> attempts = [{"answer": "4", "correct": True, "probabilities": {"p": p}} for p in (0.5, 1.0)]
    >>> confidences_by_attempt(attempts, confidence_sources(attempts))
    {'p': [0.5, 1.0]}
    """
    found: dict[str, list[float | None]] = {}
    for name, source in sources.items():
        if source.votes is None:
            continue
        if len(source.confidence) == len(question):
            found[name] = list(source.confidence)
        else:
            single = [confidence_sources([a]).get(name) for a in question]
            found[name] = [s.confidence[0] if s and s.confidence else None for s in single]
    return found


def index_row(details: Question, sources: Mapping[str, Source]) -> dict[str, Any]:
    """Return what the list of questions is filtered and sorted by.

    ``wrong`` has, per source, the highest confidence among the attempts that are wrong (for the
    share of votes: the majority's, where it is wrong).
    """
    valid = Counter(a.get("answer") for a in details if a.get("answer") is not None)
    answer, votes = valid.most_common(1)[0] if valid else (None, 0)
    wrong = {
        name: float(f"{max(values):.6g}")
        for name, source in sources.items()
        if (values := [c for c, y in zip(source.confidence, source.correct, strict=True) if not y])
    }
    graded = [a["correct"] for a in details if a.get("correct") is not None]
    return {
        "attempts": len(details),
        "correct": sum(graded) if graded else None,
        "invalid": sum("answer" in a and a["answer"] is None for a in details),
        "truncated": sum(a.get("finish_reason") == "length" for a in details),
        "answer": None if answer is None else str(answer)[:40],
        "votes": votes,
        "majority": next((a["correct"] for a in details if a.get("answer") == answer), None)
        if answer is not None
        else False,
        "wrong": wrong,
    }


def plain_details(sample: Mapping[str, Any]) -> list[AttemptDetails]:
    """Return what is known of the responses of a task without logged attempts."""
    n = max(1, len(_responses(sample)))
    verdict = next((sample[name] for name in _VERDICT_METRICS if sample.get(name) in (0, 1)), None)
    filtered = sample.get("filtered_resps")
    answer = filtered[0] if isinstance(filtered, list) and len(filtered) == 1 else None
    details = [AttemptDetails(attempt=i) for i in range(n)]
    if n == 1:
        if verdict is not None:
            details[0]["correct"] = bool(verdict)
        if isinstance(answer, str):
            details[0]["answer"] = answer
    return details


def _responses(sample: Mapping[str, Any]) -> list[Any]:
    """Return the responses, or the choices of a task that compares log-likelihoods."""
    responses = sample.get("resps")
    if not isinstance(responses, list) or not responses:
        return []
    if len(responses) == 1 and isinstance(responses[0], list):
        return responses[0]
    return responses


def _texts(sample: Mapping[str, Any], n: int) -> list[str]:
    texts = []
    for place, response in enumerate(_responses(sample)[:n]):
        if isinstance(response, str):
            texts.append(response)
        else:  # [[log-likelihood, is_greedy]] of a choice
            choice = _request(sample, place).get("arg_1", "")
            texts.append(f"{_text(choice)}\n{_text(response)}")
    return texts


def _request(sample: Mapping[str, Any], number: int = 0) -> dict[str, Any]:
    arguments = sample.get("arguments")
    request = arguments.get(f"gen_args_{number}") if isinstance(arguments, dict) else None
    return request if isinstance(request, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _tokens(attempt: Mapping[str, Any]) -> dict[str, Any]:
    scores = {
        name: [float(f"{value:.3g}") for value in values]
        for name, values in attempt["token_scores"].items()
    }
    return {"texts": (attempt.get("extra") or {}).get(TOKEN_TEXTS), "scores": scores}

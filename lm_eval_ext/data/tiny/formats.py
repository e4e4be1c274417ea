"""Zero-shot prompts and targets of the three families, shared by training text and task YAMLs."""

from __future__ import annotations

from typing import Any

FAMILIES = ("gsm8k", "math", "mbpp")

# The same templates as Jinja, for `doc_to_text` and `doc_to_target` in a task YAML.
DOC_TO_TEXT = {
    "gsm8k": "Question: {{question}}\nAnswer:",
    "math": "Problem: {{problem}}\nSolution:",
    "mbpp": "Task: {{text}}\n{{test_list | join('\n')}}\n[BEGIN]\n",
}
DOC_TO_TARGET = {
    "gsm8k": "{{answer}}",
    "math": "{{solution}}",
    "mbpp": "{{code}}\n[DONE]",
}
# What stands between prompt and target; lm-eval calls it `target_delimiter`.
TARGET_DELIMITER = {"gsm8k": " ", "math": " ", "mbpp": ""}


def check_family(family: str) -> None:
    """Raise ``ValueError`` unless ``family`` is one of `FAMILIES`."""
    if family not in FAMILIES:
        raise ValueError(f"family={family!r} is unknown: use one of {', '.join(FAMILIES)}")


def prompt(family: str, doc: dict[str, Any]) -> str:
    r"""Return the zero-shot prompt of a problem.

    Examples
    --------
    >>> prompt("math", {"problem": "Compute $2+3$."})
    'Problem: Compute $2+3$.\nSolution:'
    """
    check_family(family)
    if family == "gsm8k":
        return f"Question: {doc['question']}\nAnswer:"
    if family == "math":
        return f"Problem: {doc['problem']}\nSolution:"
    return f"Task: {doc['text']}\n" + "\n".join(doc["test_list"]) + "\n[BEGIN]\n"


def target(family: str, doc: dict[str, Any]) -> str:
    """Return the text that should follow the prompt, without the delimiter between the two."""
    check_family(family)
    if family == "gsm8k":
        return str(doc["answer"])
    if family == "math":
        return str(doc["solution"])
    return f"{doc['code']}\n[DONE]"

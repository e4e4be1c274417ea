"""The solved questions that few-shot prompts show.

Those of GSM8K and MATH are read from the task files of the installed lm-eval, so that a prompt
cannot drift from the one the literature and lm-eval use; those of MBPP are in the data set itself.
Those of MAWPS and SVAMP are ours: one step each, in one line.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

from lm_eval_ext.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

MBPP_FIRST = (2, 3, 4)  # ``task_id`` of the three exemplars that MBPP's authors and lm-eval show


ONE_STEP = (
    ("A baker fills 6 trays with 8 rolls on each. How many rolls does he bake?",
     "On the trays are 6 * 8 = 48 rolls.", "48"),
    ("Nadia's scarf measures 41 cm, and she knits another 27 cm onto it. How long is it then?",
     "The scarf is then 41 + 27 = 68 cm long.", "68"),
    ("A tank holds 90 litres of water until 35 litres leak out of it. What is left in the tank?",
     "The tank still holds 90 - 35 = 55 litres.", "55"),
    ("Five cousins share a bill of 60 euros evenly. What does each of them owe?",
     "Each cousin owes 60 / 5 = 12 euros.", "12"),
    ("A lorry is 12 metres long, which is 7 metres longer than a van. How long is the van?",
     "The van is 12 - 7 = 5 metres long.", "5"),
    ("Tickets for the ferry cost 9 dollars. What does a class of 23 pupils pay for the crossing?",
     "The class pays 9 * 23 = 207 dollars.", "207"),
    ("Oskar wrote 140 words before lunch and 85 after it. How long is his essay so far?",
     "His essay has 140 + 85 = 225 words.", "225"),
    ("A gardener plants 72 tulips in rows of 9. How many rows does that make?",
     "That makes 72 / 9 = 8 rows.", "8"),
)  # fmt: skip
"""Our own solved word problems of one step: question, reasoning, answer."""


def gsm8k_exemplars() -> list[dict[str, str]]:
    """Return the eight chain-of-thought exemplars of GSM8K, as ``question`` and ``target``.

    Raises
    ------
    UserError
        If the task ``gsm8k_cot`` of the installed lm-eval has moved or holds no exemplars.

    References
    ----------
    Wei et al. 2022, Chain-of-Thought Prompting, arXiv:2201.11903, appendix G, table 20.
    """
    import yaml

    path = _stock_file("gsm8k", "gsm8k-cot.yaml")
    try:
        task = yaml.safe_load(path.read_text(encoding="utf-8"))
        samples: list[dict[str, str]] = task["fewshot_config"]["samples"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise _not_found(path, error) from error
    return samples


def gsm8k_boxed_exemplars() -> list[dict[str, str]]:
    r"""Return the exemplars of `gsm8k_exemplars` with their answers in ``\boxed{}``.

    Examples
    --------
    >>> gsm8k_boxed_exemplars()[0]["target"][-26:]
    'The answer is $\\boxed{6}$.'
    """
    boxed = []
    for exemplar in gsm8k_exemplars():
        solution, announcement, answer = exemplar["target"].rpartition("The answer is ")
        target = f"{solution}{announcement}$\\boxed{{{answer.rstrip('.')}}}$."
        boxed.append({"question": exemplar["question"], "target": target})
    return boxed


def one_step_exemplars() -> list[dict[str, str]]:
    """Return our eight word problems of one step, as ``question`` and ``target`` (``#### N``)."""
    return [
        {"question": question, "target": f"{reasoning} #### {answer}"}
        for question, reasoning, answer in ONE_STEP
    ]


def one_step_boxed_exemplars() -> list[dict[str, str]]:
    r"""Return the exemplars of `one_step_exemplars` with their answers in ``\boxed{}``."""
    return [
        {"question": question, "target": f"{reasoning} The answer is $\\boxed{{{answer}}}$."}
        for question, reasoning, answer in ONE_STEP
    ]


def math_exemplars() -> list[dict[str, str]]:
    """Return the four exemplars of MATH's usual prompt, as ``problem`` and ``solution``.

    Raises
    ------
    UserError
        If the tasks ``minerva_math`` of the installed lm-eval have moved or hold no exemplars.

    References
    ----------
    Lewkowycz et al. 2022, Solving Quantitative Reasoning Problems with Language Models,
    arXiv:2206.14858, appendix D.2.
    """
    path = _stock_file("minerva_math", "utils.py")
    try:
        # The file is read and not imported: importing it loads sympy and checks its version.
        module = ast.parse(path.read_text(encoding="utf-8"))
        samples = _returned_literal(module, "list_fewshot_samples")
    except (OSError, SyntaxError, ValueError) as error:
        raise _not_found(path, error) from error
    return [{name: sample[name] for name in ("problem", "solution")} for sample in samples]


def mbpp_exemplars(prompt_split: Dataset) -> Dataset:
    """Return MBPP's split ``prompt`` in the order in which its records are shown.

    Tasks 2, 3 and 4 come first, so that three shots are those of the paper and of lm-eval; the
    others follow by number, for ``--num_fewshot`` above 3.

    References
    ----------
    Austin et al. 2021, Program Synthesis with Large Language Models, arXiv:2108.07732, section 3.
    """
    numbers = prompt_split["task_id"]
    ranks = [(number not in MBPP_FIRST, number) for number in numbers]
    return prompt_split.select(sorted(range(len(ranks)), key=ranks.__getitem__))


def _stock_file(*parts: str) -> Path:
    import lm_eval.tasks

    return Path(next(iter(lm_eval.tasks.__path__)), *parts)


def _returned_literal(module: ast.Module, function: str) -> list[dict[str, str]]:
    """Return the value of a function that only returns a literal, without running it."""
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef) and node.name == function:
            last = node.body[-1]
            if isinstance(last, ast.Return) and last.value is not None:
                return list(ast.literal_eval(last.value))
    raise ValueError(f"no function {function} that returns a list")


def _not_found(path: Path, error: Exception) -> UserError:
    return UserError(
        f"the installed lm-eval has no exemplars in {path} ({type(error).__name__}): use a "
        "zero-shot task (--num_fewshot 0) or lm-eval 0.4.13"
    )

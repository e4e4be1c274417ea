"""Where training problems come from: a data set, a task, generated problems, or a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from lm_eval_ext.errors import UserError
from lm_eval_ext.models.model_loading import model_location, readable_load_errors
from lm_eval_ext.training.options import PromptOptions

TINY_SIZE = 4000
"""Problems taken from an endless generated split when no number is asked for."""

_STOP = {"gsm8k": "Question:", "math": "Problem:", "mbpp": "[DONE]"}
_TINY_TOKENS = {"gsm8k": 200, "math": 128, "mbpp": 100}
"""Of the zero-shot prompts of `data.tiny.formats`: what ends a response, and most tokens."""

_QUESTION = {"gsm8k": ("question",), "math": ("problem",), "mbpp": ("text", "prompt")}
REFERENCE = {"gsm8k": ("answer",), "math": ("solution", "answer"), "mbpp": ("test_list",)}
"""Fields of a record, any of which will do, that hold the question and what it is graded by."""


@dataclass(frozen=True)
class Problem:
    """A problem to respond to.

    Parameters
    ----------
    max_new_tokens
        Most tokens of a response, as in the tasks over the same data.
    record
        The record of the data set, or None where there is only a prompt.
    family
        Its grader, one of `lm_eval_ext.grading.FAMILIES`, or None.
    """

    prompt: str
    stop: tuple[str, ...] = ()
    max_new_tokens: int = 512
    record: Mapping[str, Any] | None = None
    family: str | None = None


class Renderer:
    """Renders prompts as lm_eval does with the same options.

    Parameters
    ----------
    pretrained
        The model whose chat template is applied, as a Hub id or folder.
    template_args
        More arguments of the template, such as ``enable_thinking``.

    Raises
    ------
    UserError
        If the tokenizer has no chat template.
    """

    def __init__(
        self,
        options: PromptOptions,
        pretrained: str,
        *,
        trust_remote_code: bool = False,
        **template_args: Any,
    ) -> None:
        self.options = options
        self.chat_template: Callable[..., str] | None = None
        if not options.apply_chat_template:
            if options.fewshot_as_multiturn:
                raise UserError(
                    "fewshot_as_multiturn=True needs the turns of a chat: add --apply-chat-template"
                )
            return
        from transformers import AutoTokenizer

        from lm_eval_ext.harness.requests import chat_renderer

        with readable_load_errors(pretrained, "train"):
            tokenizer = AutoTokenizer.from_pretrained(
                model_location(pretrained), trust_remote_code=trust_remote_code
            )
        if not tokenizer.chat_template:
            raise UserError(
                f"apply_chat_template=True: {pretrained} has no chat template; leave it out, or "
                "give an instruction-tuned model"
            )
        self.chat_template = chat_renderer(tokenizer, **template_args)

    def prompt(self, text: str) -> str:
        """Return a prompt that is no task's, with its system instruction and in its chat."""
        system = self.options.system_instruction
        if self.chat_template is None:
            return (system or "") + text
        messages = [{"role": "user", "content": text}]
        if system:
            messages.insert(0, {"role": "system", "content": system})
        return self.chat_template(messages)

    def task(self, name: str, limit: int | None) -> Iterator[Problem]:
        """Yield the problems of a task.

        Raises
        ------
        UserError
            If lm-eval knows no such task, it does not generate, or it asks test questions.
        """
        from lm_eval_ext.harness.requests import UnknownTaskError, task_questions

        options = self.options
        try:
            task, questions = task_questions(
                name,
                limit=limit,
                chat_template=self.chat_template,
                system_instruction=options.system_instruction,
                num_fewshot=options.num_fewshot,
                fewshot_as_multiturn=options.fewshot_as_multiturn,
            )
        except UnknownTaskError as error:
            raise _unknown(name) from error
        if task.OUTPUT_TYPE != "generate_until":
            raise UserError(f"problems={name}: nothing is generated in this task: give another")
        # Tasks on training problems call their split so, whatever lm-eval calls it.
        split = str(task.config.test_split or task.config.validation_split or "")
        if not split.startswith("train"):
            raise UserError(
                f"problems={name}: models are scored on its split {split!r}, and must not be "
                "trained on it: use a task on training problems, such as gsm8k_train_passn"
            )
        for question in questions:
            kwargs = question.generation_kwargs
            yield Problem(
                question.prompt,
                tuple(kwargs.get("until") or ()),
                int(kwargs.get("max_gen_toks", 512)),
                question.doc,
                getattr(task, "grader", None),
            )


def load_problems(
    source: str,
    *,
    limit: int | None = None,
    data_folder: str | None = None,
    grader: str | None = None,
    graded: bool = True,
    renderer: Renderer | None = None,
) -> list[Problem]:
    """Read problems; repeated prompts count once.

    Parameters
    ----------
    source
        ``gsm8k:train`` (eight-shot chain of thought, as the task ``gsm8k_passn`` asks),
        ``gsm8k_zero_shot:train`` (``Question: ... Answer:``), ``mbpp_zero_shot:train``,
        ``tiny_gsm8k:train``, ``tiny_math:train`` or ``tiny_mbpp:train``, ``tiny_gsm8k:train_hard``
        (and so on: training problems as difficult as those of the test split), the name of a
        task on training problems, or a JSON Lines file of records. Several sources are joined by
        ``+``.
    data_folder
        Folder of published data files; see `lm_eval_ext.data.datasets`.
    grader
        Family of the records of a file. They have the fields of the published data set, and
        possibly ``prompt``; without it the zero-shot prompt of the family is used.
    graded
        Whether problems must have what grades them; otherwise a prompt is enough.
    renderer
        Puts prompts into a chat; by default they are used as they are.

    Raises
    ------
    UserError
        For an unknown source, a test split, a damaged file, a record that cannot be graded, a
        source without problems, and a grader where no source is a file.

    Examples
    --------
    >>> load_problems("tiny_gsm8k:train", limit=3)[0].family
    'gsm8k'
    """
    if limit is not None and limit < 1:
        raise UserError(f"num_problems={limit} must be at least 1")
    renderer = renderer or Renderer(PromptOptions(), "")
    parts = source.split("+")
    has_file = any(_is_file(part) for part in parts)
    if graded and has_file and grader is None:
        raise UserError(
            f"problems={source}: the records of a file need to be told what grades them: add "
            f"--grader {'|'.join(_STOP)}"
        )
    if grader is not None and not has_file:
        raise UserError(
            f"grader={grader} is for the records of a file, and problems={source} is none: leave "
            "it out"
        )
    if renderer.options.num_fewshot is not None and not all(map(_is_task, parts)):
        raise UserError(
            f"num_fewshot={renderer.options.num_fewshot} is for tasks of lm-eval, and problems="
            f"{source} is none: name one, such as gsm8k_train_passn"
        )
    found: dict[str, Problem] = {}
    for part in parts:
        if _is_task(part):
            problems = renderer.task(part, limit)
        else:
            records = _load_one(part, limit, data_folder, grader=grader)
            problems = (replace(one, prompt=renderer.prompt(one.prompt)) for one in records)
        for problem in problems:
            if graded and problem.family is None:
                raise UserError(f"problems={part}: the task names no grader: give another")
            found.setdefault(problem.prompt, problem)
    if not found:
        raise UserError(f"problems={source} has no prompts")
    return list(found.values())


def stop_strings(problems: Iterable[Problem]) -> tuple[str, ...]:
    """Return the strings that end a response to any of some problems, each once."""
    return tuple(dict.fromkeys(text for problem in problems for text in problem.stop))


def _is_task(source: str) -> bool:
    return ":" not in source and not _is_file(source) and re.fullmatch(r"\w+", source) is not None


def _is_file(source: str) -> bool:
    return Path(source).expanduser().is_file()


def _load_one(
    source: str, limit: int | None, data_folder: str | None, *, grader: str | None
) -> Iterable[Problem]:
    if _is_file(source):
        return _from_file(Path(source).expanduser(), limit, grader)
    name, _, split = source.partition(":")
    if split == "test":
        raise UserError(
            f"problems={source}: models are scored on the test split, and must not be trained on "
            f"it: use {name}:train"
        )
    readers: dict[str, Callable[[], Iterable[Problem]]] = {
        "gsm8k": lambda: _gsm8k(split, limit, data_folder),
        **{
            f"{family}_zero_shot": partial(_zero_shot, family, split, limit, data_folder)
            for family in ("gsm8k", "mbpp")
        },
        **{f"tiny_{family}": partial(_generated, family, split, limit) for family in _STOP},
    }
    if name not in readers:
        raise _unknown(source)
    return readers[name]()


def _unknown(source: str) -> UserError:
    names = ("gsm8k", "gsm8k_zero_shot", "mbpp_zero_shot", *(f"tiny_{one}" for one in _STOP))
    return UserError(
        f"problems={source} is neither a file nor a known source: use "
        f"{':train, '.join(names)}:train, a task on training problems such as gsm8k_train_passn, "
        "or a JSON Lines file of records"
    )


def _from_file(path: Path, limit: int | None, grader: str | None) -> list[Problem]:
    from lm_eval_ext.data.datasets import read_json_lines

    records = read_json_lines(path, fields=() if grader else ("prompt",))[:limit]
    problems = []
    for number, record in enumerate(records, 1):
        place = f"{path}, record {number}"
        if grader is None:
            problems.append(Problem(_text(record, "prompt", place)))
        else:
            problems.append(_of_record(record, grader, place))
    return problems


def _of_record(record: Mapping[str, Any], family: str, place: str) -> Problem:
    from lm_eval_ext.grading import check_family, grade

    check_family(family)
    if not any(field in record for field in REFERENCE[family]):
        raise UserError(
            f"{place}: no field {' or '.join(map(repr, REFERENCE[family]))}, which --grader "
            f"{family} needs"
        )
    if family != "mbpp":  # that runs programs
        try:
            grade(family, "", record)
        except UserError as error:
            raise UserError(f"{place}: {error}") from error
    # A record of the sanitized MBPP calls its text "prompt".
    own_prompt = "prompt" in record and not (family == "mbpp" and "text" not in record)
    if own_prompt:
        return Problem(_text(record, "prompt", place), record=record, family=family)
    question = next((field for field in _QUESTION[family] if field in record), None)
    if question is None:
        raise UserError(f"{place}: no field 'prompt' and no {_QUESTION[family][0]!r}")
    _text(record, question, place)
    return _formatted(family, record, max_new_tokens=512)


def _text(record: Mapping[str, Any], field: str, place: str) -> str:
    value = record[field]
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{place}: the field {field!r} must be a text")
    return value


def _formatted(family: str, record: Mapping[str, Any], *, max_new_tokens: int) -> Problem:
    from lm_eval_ext.data.tiny import formats

    question = record
    if family == "mbpp" and "text" not in record:
        question = {**record, "text": record["prompt"]}
    prompt = formats.prompt(family, dict(question))
    return Problem(prompt, (_STOP[family],), max_new_tokens, record, family)


def _gsm8k(split: str, limit: int | None, data_folder: str | None) -> Iterator[Problem]:
    from lm_eval_ext.data.datasets import load_split
    from lm_eval_ext.data.exemplars import gsm8k_exemplars

    shots = "".join(f"Q: {shot['question']}\nA: {shot['target']}\n\n" for shot in gsm8k_exemplars())
    for record in islice(load_split("gsm8k", split, data_folder=data_folder), limit):
        yield Problem(f"{shots}Q: {record['question']}\nA:", ("Q:",), 512, record, "gsm8k")


def _zero_shot(
    family: str, split: str, limit: int | None, data_folder: str | None
) -> Iterator[Problem]:
    from lm_eval_ext.data.datasets import load_split

    for record in islice(load_split(family, split, data_folder=data_folder), limit):
        yield _formatted(family, record, max_new_tokens=512)


def _generated(family: str, split: str, limit: int | None) -> Iterator[Problem]:
    from lm_eval_ext.data.tiny.problems import DEFAULT_SIZES, TEST_MIX, iter_problems

    hard = split == "train_hard"
    try:
        stream = iter_problems(
            family, "train" if hard else split, mix=TEST_MIX[family] if hard else None
        )
        # The stream knows which splits there are, and says so at its first problem.
        first = next(stream)
        size = limit or (TINY_SIZE if split.startswith("train") else DEFAULT_SIZES[family][split])
        records = [first, *islice(stream, size - 1)]
    except ValueError as error:
        raise UserError(f"problems=tiny_{family}:{split}: {error}") from error
    for record in records:
        yield _formatted(family, record, max_new_tokens=_TINY_TOKENS[family])

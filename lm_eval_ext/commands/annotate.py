"""``lm-eval-ext annotate``: confidences and uncertainties for attempts that exist already."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model

from lm_eval_ext import __version__
from lm_eval_ext.commands.annotate_options import AnnotateOptions
from lm_eval_ext.commands.given_samples import read_given, samples_of
from lm_eval_ext.engine.attempt_texts import open_thought, visible_text
from lm_eval_ext.engine.request import AttemptResult
from lm_eval_ext.errors import UserError
from lm_eval_ext.grading import check_family
from lm_eval_ext.grading.attempt_details import attempt_details
from lm_eval_ext.harness import requests as harness
from lm_eval_ext.model_wrappers.given_attempts import annotate_given
from lm_eval_ext.models.generation import TokenStatistics

_ADDED = ("probabilities", "uncertainties", "token_scores", "extra")
_NOT_HERE = {
    "box_completion": "attempts that exist are not continued; leave it out",
    "store": "nothing is generated here; leave it out",
    "calibrator": "leave it out, and use lm-eval-ext score --calibrator",
}
# So many questions are read together.
_AT_ONCE = 64


def run(options: AnnotateOptions) -> int:
    """Annotate the attempts of some files, and write runs that can be scored."""
    if options.grader is not None:
        check_family(options.grader)
    given = [(path, *read_given(path, options.grader)) for path in options.samples]
    arguments = harness.parse_model_args(options.model_args)
    for name, remedy in _NOT_HERE.items():
        if arguments.get(name):
            raise UserError(f"{name}={arguments[name]}: {remedy}")
    lm = get_model(options.model)(**{"pretrained": options.pretrained, **arguments})
    options.output.mkdir(parents=True, exist_ok=True)
    written: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    for path, files, task in given:
        name = files.path.stem.removeprefix("results_")
        target = options.output / f"samples_{task}_{name}.jsonl"
        if target.resolve() == path.resolve():
            raise UserError(f"--output={options.output}: holds {path.name} itself; give another")
        annotator = Annotator(lm)
        config = files.results.get("configs", {}).get(task, {})
        several = len(config.get("filter_list") or ()) > 1
        with target.open("w", encoding="utf-8") as file:
            for sample in annotator.annotated(samples_of(path), several_filters=several):
                file.write(json.dumps(sample, ensure_ascii=False) + "\n")
        _, tasks = written.setdefault(files.path.name, (files.results, {}))
        tasks[task] = dict(annotator.counts)
    for name, (results, tasks) in written.items():
        about = {
            "version": __version__,
            "model": options.model,
            "model_args": {"pretrained": options.pretrained, **arguments},
            "attempts": tasks,
            "record": lm.run_record(),
        }
        kept = {task: n for task, n in results["n-samples"].items() if task in tasks}
        whole = {**results, "n-samples": kept, "annotation": about}
        text = json.dumps(whole, indent=2, ensure_ascii=False, default=str)
        (options.output / name).write_text(text + "\n", encoding="utf-8")
        for task, counts in tasks.items():
            print(f"{task}: {about_tokens(counts)}")
    print(f"lm-eval-ext score {options.output}")
    return 0


def about_tokens(counts: Mapping[str, int]) -> str:
    """Return a line about where the tokens of attempts came from.

    Examples
    --------
    >>> about_tokens({"attempts": 8, "own_tokens": 8, "retokenized": 0, "with_end": 0})
    '8 attempts: 8 by the tokens they were sampled in'
    """
    parts = [f"{counts['own_tokens']} by the tokens they were sampled in"] * (
        counts["own_tokens"] > 0
    )
    if counts["retokenized"]:
        parts.append(
            f"{counts['retokenized']} by their text, tokenized again without stop strings, "
            f"{counts['with_end']} of these with the end of sequence"
        )
    return f"{counts['attempts']} attempts: {'; '.join(parts)}"


class Annotator:
    """Annotates samples with one of our wrappers.

    Attributes
    ----------
    counts
        Attempts so far: ``attempts``; ``own_tokens``, whose logged tokens give their text in the
        wrapper's tokenizer; ``retokenized``, read as the tokens of their text; ``with_end``, those
        of the latter that are known to have ended with the end of sequence.
    """

    def __init__(self, lm: Any) -> None:
        self._lm = lm
        self.counts: Counter[str] = Counter(attempts=0, own_tokens=0, retokenized=0, with_end=0)

    def annotated(
        self, samples: Iterable[dict[str, Any]], *, several_filters: bool = False
    ) -> Iterator[dict[str, Any]]:
        """Yield samples with what the wrapper says added to their attempts.

        Parameters
        ----------
        samples
            As lm-eval logs them.
        several_filters
            Whether a question comes again for each filter: it is read once.
        """
        known: dict[Any, list[dict[str, Any]]] = {}
        rest = iter(samples)
        while block := list(islice(rest, _AT_ONCE)):
            new = {one["doc_id"]: one for one in block if one["doc_id"] not in known}
            for number, added in zip(new, self._annotations(list(new.values())), strict=True):
                known[number] = added
            for sample in block:
                of_question = known[sample["doc_id"]]
                for attempt, more in zip(sample["attempts"], of_question, strict=True):
                    for name, values in more.items():
                        attempt[name] = {**attempt.get(name, {}), **values}
                yield sample
            if not several_filters:
                known.clear()

    def _annotations(self, samples: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        """Return for each attempt at each question what is added to its details."""
        requests: list[Instance] = []
        results: list[AttemptResult] = []
        for sample in samples:
            instance, of_question = self._question(sample)
            requests += [instance] * len(of_question)
            results += of_question
        annotated = iter(annotate_given(self._lm, requests, results) if requests else [])
        found: list[list[dict[str, Any]]] = []
        for sample in samples:
            details = [dict(attempt_details(0, next(annotated), None)) for _ in sample["attempts"]]
            found.append([{k: one[k] for k in _ADDED if k in one} for one in details])
        return found

    def _question(self, sample: dict[str, Any]) -> tuple[Instance, list[AttemptResult]]:
        lm, arguments = self._lm, sample["arguments"]["gen_args_0"]
        settings = arguments.get("arg_1") or {}
        prompt = rendered(lm, arguments["arg_0"])
        asked = {"until": settings.get("until") or [], "do_sample": False, "max_gen_toks": 1}
        instance = Instance("generate_until", {}, (prompt, asked), 0)
        (request,) = harness.generation_requests(lm, [instance])
        opened = open_thought(lm, prompt)
        results, lengths = [], []
        for attempt, text in zip(sample["attempts"], sample["resps"][0], strict=True):
            ids = attempt.get("token_ids")
            self.counts["attempts"] += 1
            if (
                ids
                and max(ids) < len(lm.tokenizer)
                and (visible_text(lm, ids, request.stop, opened) == text)
            ):
                self.counts["own_tokens"] += 1
                forced = attempt.get("forced_tokens", [])
            else:
                ids, forced = self._tokens(text, attempt.get("finish_reason")), []
                lengths.append(len(ids))
            reason = attempt.get("finish_reason", "stop")
            results.append(AttemptResult(tuple(ids), reason, _statistics(len(ids), forced)))
        # A prompt is cut from the left as it was; where that is unknown, no more than needed.
        limit = settings.get("max_gen_toks")
        if lengths or limit is None:
            longest = max(len(result.token_ids) for result in results)
            room = int(lm.max_length) - len(lm.prompt_token_ids(prompt))
            limit = min(1 << (longest - 1).bit_length(), max(longest, room))
            if longest >= lm.max_length:
                raise UserError(
                    f"question {sample['doc_id']}: a response of {longest} tokens leaves no room "
                    f"for a prompt in the {lm.max_length} positions of the model"
                )
        asked["max_gen_toks"] = int(limit)
        return instance, results

    def _tokens(self, text: str, finish_reason: str | None) -> list[int]:
        """Return the tokens of a text, with the end of sequence where it is known to have ended."""
        self.counts["retokenized"] += 1
        ids = [int(i) for i in self._lm.tokenizer(text, add_special_tokens=False)["input_ids"]]
        if finish_reason == "eos" or not ids:
            self.counts["with_end"] += 1
            ids.append(int(self._lm.tokenizer.eos_token_id))
        return ids


def rendered(lm: Any, prompt: Any) -> str:
    """Return a prompt as text; chat messages are rendered with the wrapper's chat template.

    Parameters
    ----------
    lm
        The wrapper.
    prompt
        A text, a list of messages, or a list of one JSON text of such, as lm-eval logs the prompts
        of chat APIs.
    """
    if isinstance(prompt, str):
        return prompt
    messages = json.loads(prompt[0]) if isinstance(prompt[0], str) else prompt
    if not getattr(lm.tokenizer, "chat_template", None):
        raise UserError(
            f"pretrained={lm.pretrained}: the prompts are chats, and its tokenizer has no chat "
            "template; give an instruction-tuned model"
        )
    return str(lm.apply_chat_template(messages))


def _statistics(n_tokens: int, forced: list[int]) -> TokenStatistics | None:
    """Return what says which tokens a thinking budget forced, or None where it forced none."""
    if not forced:
        return None
    unknown = np.full(n_tokens, np.nan, dtype=np.float32)
    chosen = np.zeros(n_tokens, dtype=np.float32)
    chosen[forced] = np.nan
    return TokenStatistics(chosen, unknown, unknown, unknown)

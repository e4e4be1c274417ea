"""Adapt a task's configuration, as its author wrote it, to several attempts per question."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval_ext.errors import UserError
from lm_eval_ext.harness.attempt_settings import AttemptSettings

DEFAULT_TEMPERATURE = 0.7
"""Sampling temperature where a task with several attempts does not say."""

SELECTING_FILTERS = frozenset({"majority_vote", "take_first_k"})
"""Filters that choose among the responses of a question, which is what maj@N and pass@k do."""

logger = logging.getLogger(__name__)


def for_attempts(
    config: Mapping[str, Any],
    metadata: Mapping[str, Any],
    settings: AttemptSettings,
    grader: str | None,
    metrics: str,
) -> dict[str, Any]:
    """Return the configuration lm-eval's own class gets; the results file shows it."""
    adapted = {
        **config,
        "repeats": settings.attempts,
        "generation_kwargs": sampling_kwargs(config.get("generation_kwargs"), settings.attempts),
        "metadata": {**metadata, **settings.to_metadata(), "metrics": metrics},
    }
    if grader is not None:
        adapted["metadata"]["grader"] = grader
    pipelines = config.get("filter_list")
    if pipelines:
        adapted["filter_list"] = _single_response_pipelines(pipelines, config.get("task"))
    return adapted


def _single_response_pipelines(
    pipelines: Sequence[Mapping[str, Any]], task: str | None
) -> list[Mapping[str, Any]]:
    """Leave out the filter pipelines that select among responses."""
    kept = [
        pipeline
        for pipeline in pipelines
        if not SELECTING_FILTERS & {step["function"] for step in pipeline["filter"]}
    ]
    if not kept:
        raise UserError(
            f"task {task}: every filter selects among responses ({', '.join(SELECTING_FILTERS)}); "
            "give it a filter_list for a single response"
        )
    for pipeline in pipelines:
        if pipeline not in kept:
            logger.info("%s: filter %s is left out, maj@N does its work", task, pipeline["name"])
    return kept


def invalid_answers(pipelines: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """Return what the task's filters give where they find no answer."""
    stated = {
        step["fallback"]
        for pipeline in pipelines
        for step in pipeline["filter"]
        if isinstance(step.get("fallback"), str)
    }
    return frozenset({"", "[invalid]"} | stated)


def parameters_of(function: Any) -> frozenset[str]:
    """Return the names of a function's parameters; none of anything else."""
    return frozenset(inspect.signature(function).parameters if callable(function) else ())


def sampling_kwargs(
    generation_kwargs: Mapping[str, Any] | None, attempts: int
) -> dict[str, Any] | None:
    """Return a task's generation arguments, made to sample where it makes several attempts.

    lm-eval's own tasks decode greedily, which would give N times the same attempt. What the
    command line says with ``--gen_kwargs`` is applied later and stands.

    Examples
    --------
    >>> sampling_kwargs({"until": ["Q:"], "do_sample": False}, 16)
    {'until': ['Q:'], 'do_sample': True, 'temperature': 0.7}
    >>> sampling_kwargs({"until": ["Q:"], "do_sample": False}, 1)
    {'until': ['Q:'], 'do_sample': False}
    """
    if attempts == 1:
        return None if generation_kwargs is None else dict(generation_kwargs)
    stated = dict(generation_kwargs or {})
    if is_greedy(stated):
        stated.update(do_sample=True, temperature=DEFAULT_TEMPERATURE)
    return stated


def explicit_sampling(generation_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return generation arguments that say whether they sample.

    lm-eval's response cache takes those without ``do_sample`` for greedy whatever their
    temperature, and answers all attempts with one text.

    Examples
    --------
    >>> explicit_sampling({"temperature": 0.7})
    {'temperature': 0.7, 'do_sample': True}
    """
    stated = dict(generation_kwargs or {})
    if stated.get("do_sample") is None:
        stated["do_sample"] = not is_greedy(stated)
    return stated


def about_decoding(
    used: Mapping[str, Any], written: Mapping[str, Any], attempts: int
) -> str | None:
    """Return a line where several attempts are equal, or sampled against the task's own words.

    Parameters
    ----------
    used
        Generation arguments in force.
    written
        Those of the task's file.
    attempts
        Attempts per question, at least 2.

    Examples
    --------
    >>> about_decoding({"temperature": 0.7}, {"temperature": 0.7}, 16) is None
    True
    >>> about_decoding({"do_sample": True, "temperature": 0.7}, {"do_sample": False}, 16)[:42]
    'its generation_kwargs say do_sample=False,'
    """
    stated = ("do_sample", "temperature")
    if is_greedy(used):
        return (
            f"greedy decoding ({ {key: used.get(key) for key in stated} }) gives {attempts} "
            "equal attempts per question; sample with --gen_kwargs do_sample=True,temperature=0.7 "
            "or ask for one attempt with --metadata '{\"attempts\": 1}'"
        )
    said = [f"{key}={written[key]}" for key in stated if written.get(key) is not None]
    if not said or not is_greedy(written):
        return None
    return (
        f"its generation_kwargs say {', '.join(said)}, which would give {attempts} equal "
        f"attempts: sampling at temperature {used.get('temperature', 1.0)} instead; to stay "
        "greedy, ask for one attempt with --metadata '{\"attempts\": 1}', or add --gen_kwargs "
        "do_sample=False"
    )


def about_equal_attempts(responses: Sequence[Sequence[str]]) -> str | None:
    """Return a line where sampling gave one text over and over: one seed for all, or a cache.

    Examples
    --------
    >>> about_equal_attempts([["a", "a"], ["a", "a"], ["a", "b"]])[:56]
    'all sampled attempts at 2 of 3 questions are equal: the '
    >>> about_equal_attempts([["a", "a"], ["a", "b"]]) is None
    True
    """
    several = [texts for texts in responses if len(texts) > 1]
    n_equal = sum(len(set(map(str, texts))) == 1 for texts in several)
    if 2 * n_equal <= len(several):
        return None
    return (
        f"all sampled attempts at {n_equal} of {len(several)} questions are equal: the model may "
        "use one seed for all of them, or a temperature close to 0; pass@k and votes are then "
        "those of a single attempt"
    )


def is_greedy(generation_kwargs: Mapping[str, Any]) -> bool:
    """Tell whether lm-eval reads these arguments as greedy decoding.

    Examples
    --------
    >>> is_greedy({"do_sample": True, "temperature": 0.7}), is_greedy({"temperature": 0.0})
    (False, True)
    """
    temperature = generation_kwargs.get("temperature")
    do_sample = generation_kwargs.get("do_sample")
    if do_sample is None:
        return not temperature
    return not do_sample or temperature == 0

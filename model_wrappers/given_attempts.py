"""Attempts that were made elsewhere, as a wrapper would have judged and scored its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from lm_eval_ext.engine.follow_up import FinishedAttempt, read_again, read_uncached
from lm_eval_ext.engine.request import AttemptResult
from lm_eval_ext.engine.row_budget import annotated_within_memory
from lm_eval_ext.harness import requests as harness
from lm_eval_ext.methods.self_evaluation.finishing import GroupFinisher
from lm_eval_ext.model_wrappers.sampled import SampledLM
from lm_eval_ext.models.generation import Generation
from lm_eval_ext.store.sampling_group import SamplingGroup

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance


def annotate_given(
    lm: SampledLM, requests: list[Instance], results: Sequence[AttemptResult]
) -> list[Generation]:
    """Return attempts with what a wrapper says about them.

    Parameters
    ----------
    lm
        The wrapper; it completes no boxes.
    requests
        As for its ``generate_until``.
    results
        What was generated for each.
    """
    wanted = harness.generation_requests(lm, requests)
    generations = [Generation()] * len(wanted)
    for indices in harness.by_settings(wanted):
        group = lm._group([wanted[i] for i in indices])
        given = [results[i] for i in indices]
        finisher = GroupFinisher(lm._finisher, lm, group)
        if finisher.follow_up is not None:
            given = _judged(lm, group, finisher, given)
        for place, result in enumerate(given):
            done = finisher.finish(place, result)
            assert done is not None  # no box is waited for
            lm._finisher.count(done.tally)
            generations[indices[place]] = done.generation
    return annotated_within_memory(lm.annotate, wanted, generations)


@torch.inference_mode()
def _judged(
    lm: SampledLM, group: SamplingGroup, finisher: GroupFinisher, results: list[AttemptResult]
) -> list[AttemptResult]:
    finished = [
        FinishedAttempt(request, result.token_ids)
        for request, result in zip(group.attempts, results, strict=True)
    ]
    read = read_again if lm.shared_prefix_misfit is None else read_uncached
    with harness.autocast(lm):
        readouts = read(lm.model, finisher, finished)
    return [replace(one, readout=logits) for one, logits in zip(results, readouts, strict=True)]

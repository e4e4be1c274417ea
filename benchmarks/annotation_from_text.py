"""How far annotations from the text of attempts are from those by the tokens they were sampled in.

``python benchmarks/annotation_from_text.py`` samples attempts with ``--model draft-eu``, lets
``lm-eval-ext annotate`` read them once by their tokens and once by their text alone, as another
model or an API gives it, and compares.
"""

from __future__ import annotations

import argparse
import copy

import numpy as np
from scipy.stats import spearmanr

from lm_eval_ext.commands.annotate import Annotator
from lm_eval_ext.harness import requests as harness
from lm_eval_ext.model_wrappers.draft_eu import DraftEU
from lm_eval_ext.model_wrappers.epicar import EpiCaRLM
from lm_eval_ext.model_wrappers.sampled import SampledLM

SOURCES = {"draft_eu": "uncertainties", "self_eval": "probabilities"}


def main() -> None:
    """Sample, annotate three times, and print the differences."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pretrained", default="tiny")
    parser.add_argument("--drafts", default="tiny-drafts", help="none for self_eval alone")
    parser.add_argument("--task", default="tiny_gsm8k_passn")
    parser.add_argument("--questions", type=int, default=25)
    parser.add_argument("--attempts", type=int, default=8)
    parser.add_argument("--max-new-tokens", type=int, help="by default the task's")
    parser.add_argument("--quick", action="store_true", help="5 questions")
    args = parser.parse_args()
    if args.drafts == "none":
        lm: SampledLM = EpiCaRLM(args.pretrained, seed=0)
    else:
        lm = DraftEU(args.pretrained, drafts=args.drafts, self_eval=True, seed=0)
    n_questions = 5 if args.quick else args.questions
    asked = harness.task_requests(args.task, lm, limit=n_questions, apply_chat_template=False)
    samples = []
    for number, (prompt, settings) in enumerate(asked):
        if args.max_new_tokens:
            settings = {**settings, "max_gen_toks": args.max_new_tokens}
        samples.append(sample(lm, prompt, settings, args.attempts, number))
    exact = values(Annotator(lm).annotated(copy.deepcopy(samples)))
    print("| read | source | mean absolute difference | largest | spread | rank correlation |")
    print("|---|---|---|---|---|---|")
    for without, read in (("token_ids", "text and end"), ("finish_reason", "text alone")):
        for one in samples:
            for attempt in one["attempts"]:
                attempt.pop(without, None)
        for source, found in values(Annotator(lm).annotated(copy.deepcopy(samples))).items():
            difference = np.abs(found - exact[source])
            ratio = difference.mean() / exact[source].std()
            print(
                f"| {read} | {source} | {difference.mean():.3g} | {difference.max():.3g} "
                f"| {exact[source].std():.3g} | {spearmanr(found, exact[source]).statistic:.4f} |"
            )
    print(f"ratio: {ratio:.3g} (mean difference of {source} by text alone / its spread)")


def sample(lm: SampledLM, prompt: str, settings: dict, n_attempts: int, number: int) -> dict:
    """Return attempts at a question in the form in which lm-eval logs them."""
    found = harness.complete(lm, [prompt] * n_attempts, **settings)
    tokens = lm.tokenizer([str(one) for one in found], add_special_tokens=False)["input_ids"]
    other = sum(
        list(one.record.token_ids[: len(ids)]) != ids
        for one, ids in zip(found, tokens, strict=True)
    )
    print(f"question {number}: {other} of {n_attempts} in other tokens than those of their text")
    return {
        "doc_id": number,
        "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": settings}},
        "resps": [[str(one) for one in found]],
        "attempts": [
            {"token_ids": list(one.record.token_ids), "finish_reason": one.record.finish_reason}
            for one in found
        ],
    }


def values(samples) -> dict[str, np.ndarray]:
    """Return the value of every attempt by source."""
    attempts = [attempt for one in samples for attempt in one["attempts"]]
    return {
        source: np.array([attempt[kind][source] for attempt in attempts])
        for source, kind in SOURCES.items()
        if source in attempts[0].get(kind, {})
    }


if __name__ == "__main__":
    main()

"""What the drafts of `draft-eu` cost over `sampled`: measured, split up, and by arithmetic."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from lm_eval_ext.engine.packed import ForcedAttempt
from lm_eval_ext.engine.packed_layout import PackedAttempts
from lm_eval_ext.harness import requests as harness
from lm_eval_ext.methods.epistemic.divergence import draft_divergences
from lm_eval_ext.methods.epistemic.drafts import load_drafts
from lm_eval_ext.methods.epistemic.forced_model import ForcedModel
from lm_eval_ext.methods.epistemic.response_scoring import FinishedAttempt
from lm_eval_ext.model_wrappers.draft_eu import DraftEU
from lm_eval_ext.model_wrappers.sampled import SampledLM

_COST_LIMIT = 1.6
_LARGE = {
    "target": {"layers": 6.98e9, "head": 0.525e9},
    "draft": {"layers": 0.36e9, "head": 0.115e9},
}
"""Multiplications per token of Llama-3.1-8B, and of half a billion parameters with its vocabulary
of 128,256: 24 layers of width 896."""


def cost_ratio(
    pretrained: str, drafts: Sequence[str], prompts: Sequence[str], n: int,
    arguments: dict[str, Any], settings: dict[str, Any], rounds: int,
) -> dict[str, Any]:  # fmt: skip
    """Return the wall time of ``draft-eu`` over that of ``sampled`` on the same requests.

    Parameters
    ----------
    pretrained
        The target.
    drafts
        Models.
    prompts
        Questions.
    n
        Attempts at each.
    arguments
        Of both wrappers.
    settings
        As a task's ``generation_kwargs``.
    rounds
        The fastest of so many counts; both take turns.
    """
    lms: dict[str, SampledLM] = {
        "sampled": SampledLM(pretrained, **arguments),
        "draft-eu": DraftEU(pretrained, drafts=list(drafts), **arguments),
    }
    requests = [prompt for prompt in prompts for _ in range(n)]
    seconds: dict[str, list[float]] = {name: [] for name in lms}
    for lm in lms.values():
        harness.complete(lm, requests[:n], **settings)  # warm-up
    for _ in range(rounds):
        for name, lm in lms.items():
            started = time.perf_counter()
            texts = harness.complete(lm, requests, **settings)
            seconds[name].append(time.perf_counter() - started)
    best = {name: min(values) for name, values in seconds.items()}
    distinct = len(set(zip(requests, texts, strict=True))) / len(requests)
    return {**best, "ratio": best["draft-eu"] / best["sampled"], "distinct": distinct}


@torch.inference_mode()
def cost_split(
    lm: SampledLM, drafts: Path, attempts: Sequence[FinishedAttempt], rounds: int
) -> dict[str, float]:
    """Return the seconds that reading some responses takes: layers, heads and divergences."""
    forced = [one.forced for one in attempts]
    packed = PackedAttempts(forced)
    loaded = load_drafts(
        str(drafts),
        target=lm.model,
        tokenizer=lm.tokenizer,
        device=lm.model.device,
        dtype=lm.model.dtype,
    )
    models = [ForcedModel(model) for model in loaded.models]
    target = ForcedModel(lm.model)
    seconds: dict[str, list[float]] = {"passes": [], "heads": [], "divergences": []}

    def timed(name: str, action: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = action()
        seconds[name].append(time.perf_counter() - started)
        return result

    with target.ready():
        clean = target.logits(forced, packed)
    for _ in range(rounds + 1):  # the first is a warm-up
        logits = timed("passes", lambda: [_logits(model, forced, packed) for model in models])
        timed("heads", lambda: [_head(model.model, len(clean)) for model in models])
        timed("divergences", lambda: draft_divergences(logits, clean))  # noqa: B023
    best = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    return {
        "layers": best["passes"] - best["heads"],
        "heads": best["heads"],
        "divergences": best["divergences"],
        "n_drafts": float(len(models)),
        "response_tokens": float(len(clean)),
    }


def _logits(
    model: ForcedModel, forced: Sequence[ForcedAttempt], packed: PackedAttempts
) -> torch.Tensor:
    with model.ready():
        return model.logits(forced, packed)


def _head(model: PreTrainedModel, n_tokens: int) -> torch.Tensor:
    head = model.get_output_embeddings()
    states = torch.zeros(n_tokens, head.weight.shape[1], dtype=model.dtype, device=model.device)
    return head(states)


def cost_lines(folder: Path) -> list[str]:
    """Return the cost over `sampled`, its split, and the same by arithmetic for a large target."""
    paths = sorted((folder / "cost").glob("n*-k*.json"))
    lines = [
        "## Cost",
        "",
        "| attempts and drafts | ratio to `sampled` | distinct |",
        "|---|---|---|",
    ]
    for path in paths:
        row = _read(path)
        lines.append(f"| {path.stem} | {row['ratio']:.2f}x | {row['distinct']:.0%} |")
    if (folder / "cost" / "split.json").exists():
        row = _read(folder / "cost" / "split.json")
        parts = ("layers", "heads", "divergences")
        whole = sum(row[part] for part in parts)
        split = ", ".join(f"{part} {row[part] / whole:.0%}" for part in parts)
        lines += ["", f"Of the drafts' time: {split} ({row['response_tokens']:.0f} tokens)."]
    lines += ["", f"Aimed at: {_COST_LIMIT}x at 16 attempts and 3 drafts.", ""]
    large = large_model_cost(n_drafts=3, n_prompt=450, n_response=30, attempts=16)
    split = ", ".join(f"{name} {share:.3f}" for name, share in large.items())
    return [
        *lines,
        "By arithmetic, multiplications over those of sampling, for a target of 8 billion and "
        f"three drafts of half a billion, 16 attempts of 30 tokens to a prompt of 450: {split}.",
        "",
    ]


def large_model_cost(
    *, n_drafts: int, n_prompt: int, n_response: int, attempts: int
) -> dict[str, float]:
    """Return the drafts' multiplications as shares of those that sampling takes.

    Prompts are read once by every model; heads run at response tokens; a divergence takes some
    ten operations per draft and entry of the vocabulary.

    Examples
    --------
    >>> shares = large_model_cost(n_drafts=3, n_prompt=450, n_response=30, attempts=16)
    >>> {name: round(share, 3) for name, share in shares.items()}
    {'layers': 0.149, 'heads': 0.024, 'divergences': 0.001}
    """
    written = n_response * attempts
    read = n_prompt + written
    target, draft = _LARGE["target"], _LARGE["draft"]
    whole = read * target["layers"] + written * target["head"]
    return {
        "layers": n_drafts * read * draft["layers"] / whole,
        "heads": n_drafts * written * draft["head"] / whole,
        "divergences": n_drafts * written * 10 * 128_256 / whole,
    }


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))

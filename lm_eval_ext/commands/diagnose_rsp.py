"""``lm-eval-ext diagnose rsp``: early-token metrics with and without random soft prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from lm_eval_ext.commands.diagnose_options import RspOptions
from lm_eval_ext.commands.early_tokens import (
    FloatArray,
    attention_on_vectors,
    distinct_prefixes,
    entropy_along,
)
from lm_eval_ext.errors import UserError
from lm_eval_ext.harness import requests as harness
from lm_eval_ext.leaderboard.line_plots import Panel, draw
from lm_eval_ext.metrics import t_interval
from lm_eval_ext.model_wrappers.rsp import RSP

METRICS = {
    "entropy": "entropy of the mixture over draws, nats",
    "within": "within draws (flattening), nats",
    "between": "between draws (branching), nats",
    "attention": "attention on the injected positions",
    "distinct": "share of distinct beginnings",
}
"""Metrics by name; each is per token position."""

SHARES = ("attention", "distinct")
"""Those in [0, 1], whose intervals end there."""


EarlyTokens = dict[str, FloatArray]
"""Early-token metrics of one model: per name in `METRICS`, shape (n_questions, n_tokens)."""


def run(options: RspOptions) -> int:
    """Measure, print a table, and save the plot and the numbers."""
    given = {"pretrained": options.pretrained, **harness.parse_model_args(options.model_args)}
    lm = RSP(**given)
    reason = lm.shared_prefix_misfit
    if reason is not None:
        raise UserError(
            f"pretrained={lm.pretrained}: {type(lm.model).__name__} {reason}; the diagnosis needs "
            "an architecture the engine fits"
        )
    plain = lm.without_injection()
    prompts = harness.task_prompts(
        options.tasks, lm, limit=options.limit, apply_chat_template=options.apply_chat_template
    )
    measured = {
        name: measure(
            model, plain, prompts, options.attempts, options.tokens, temperature=options.temperature
        )
        for name, model in (("without", plain), ("rsp", lm))
    }
    options.output.mkdir(parents=True, exist_ok=True)
    report = _report(measured, options, lm.run_record())
    (options.output / "early_tokens.json").write_text(json.dumps(report, indent=2) + "\n")
    _print_table(measured, len(prompts), options.attempts)
    size = f"{len(prompts)} questions x {options.attempts} draws"
    title = f"rsp, pretrained={Path(lm.pretrained).name}, length={lm.length}; {size}"
    _plot(measured, options.output / "early_tokens.png", title=title)
    print(f"plot: {options.output / 'early_tokens.png'}")
    print(f"data: {options.output / 'early_tokens.json'}")
    return 0


def measure(
    lm: RSP,
    plain: RSP,
    prompts: list[str],
    n_attempts: int,
    n_tokens: int,
    *,
    temperature: float,
) -> EarlyTokens:
    """Measure one model; every draw follows the greedy continuation of `plain`, without vectors."""
    greedy = harness.complete(plain, prompts, max_gen_toks=n_tokens, do_sample=False)
    sampled = harness.complete(
        lm,
        [prompt for prompt in prompts for _ in range(n_attempts)],
        max_gen_toks=n_tokens,
        do_sample=True,
        temperature=temperature,
    )
    rows: dict[str, list[FloatArray]] = {name: [] for name in METRICS}
    for i, prompt in enumerate(tqdm(prompts, desc="Early tokens", unit="question")):
        reference = greedy[i].record.token_ids
        split = entropy_along(lm, prompt, reference, n_draws=n_attempts)
        attempts = sampled[i * n_attempts : (i + 1) * n_attempts]
        rows["entropy"].append(split.total)
        rows["within"].append(split.within)
        rows["between"].append(split.between)
        rows["attention"].append(attention_on_vectors(lm, prompt, reference))
        rows["distinct"].append(distinct_prefixes([a.record.token_ids for a in attempts], n_tokens))
    return {name: _padded(values, n_tokens) for name, values in rows.items()}


def _padded(values: list[FloatArray], n_tokens: int) -> FloatArray:
    """Stack per-question values; positions after the end of a continuation are NaN."""
    return np.stack([np.pad(v, (0, n_tokens - len(v)), constant_values=np.nan) for v in values])


def _interval(values: FloatArray) -> tuple[float, float, float, int]:
    """Return mean, bounds of the 95% interval, and number of questions."""
    known = values[~np.isnan(values)]
    if not len(known):
        return np.nan, np.nan, np.nan, 0
    interval = t_interval(known)
    return interval.estimate, interval.low, interval.high, len(known)


def _print_table(measured: dict[str, EarlyTokens], n_questions: int, n_attempts: int) -> None:
    from rich.console import Console
    from rich.table import Table

    n_tokens = next(iter(measured.values()))["entropy"].shape[1]
    positions = sorted({0, 1, 3, 7, n_tokens - 1} & set(range(n_tokens)))
    table = Table(
        title=f"first tokens, {n_questions} questions x {n_attempts} draws, mean ± 95% interval"
    )
    table.add_column("metric")
    table.add_column("model")
    for position in positions:
        table.add_column(f"token {position + 1}", justify="right")
    for name, description in METRICS.items():
        for model, early in measured.items():
            cells = []
            for position in positions:
                mean, low, high, _ = _interval(early[name][:, position])
                cells.append(f"{mean:.3f} ± {(high - low) / 2:.3f}")
            table.add_row(description, model, *cells)
    Console(width=None if Console().is_terminal else 160).print(table)


def _report(
    measured: dict[str, EarlyTokens], options: RspOptions, record: dict[str, Any]
) -> dict[str, Any]:
    names = ("mean", "low", "high", "n_questions")
    curves, per_question = {}, {}
    for model, early in measured.items():
        curves[model] = {
            name: [dict(zip(names, _interval(column), strict=True)) for column in values.T]
            for name, values in early.items()
        }
        per_question[model] = {
            name: [[None if np.isnan(v) else float(v) for v in row] for row in values]
            for name, values in early.items()
        }
    return {
        "settings": {key: str(value) for key, value in vars(options).items()},
        "model": record,
        "per_token": curves,
        "per_question": per_question,
    }


def _plot(measured: dict[str, EarlyTokens], path: Path, *, title: str) -> None:
    panels = []
    for name, description in METRICS.items():
        curves = {
            model: [
                (position, *_interval(column)[:3])
                for position, column in enumerate(early[name].T, start=1)
            ]
            for model, early in measured.items()
        }
        limits = (0.0, 1.0) if name in SHARES else None
        panels.append(Panel(description, "generated token", name, curves, limits))
    draw(panels, path, title=title)

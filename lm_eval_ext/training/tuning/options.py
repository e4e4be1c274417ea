"""The options of ``train tau|temperature|calibrator|eu-fit``; imports nothing heavy."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Literal

from lm_eval_ext.checks import option, required

Method = Literal["logistic", "isotonic", "mlp"]
"""A linear score; a step curve over its score; a small neural network."""


@dataclass(frozen=True)
class TauOptions:
    """Choose the temperature of the softmax vote on training problems.

    Example: lm-eval-ext train tau runs/train
    """

    run: Path = required(
        "folder of an lm_eval run (--output_path) with --log_samples on training problems"
    )
    _: KW_ONLY
    tasks: tuple[str, ...] = option("only these tasks of the run", ())
    source: str = option("name of the probability that weighs the votes", "self_eval")
    k: int | None = option("attempts in a vote; by default all of a question")


@dataclass(frozen=True)
class TemperatureOptions:
    """Fit the temperature of self_eval on training problems.

    Example: lm-eval-ext train temperature runs/train
    """

    run: Path = required(
        "folder of an lm_eval run (--output_path) with --log_samples on training problems"
    )
    _: KW_ONLY
    tasks: tuple[str, ...] = option("only these tasks of the run", ())
    source: str = option("name of the probability", "self_eval")
    output: Path | None = option("file to write; by default temperature.json in the run's folder")


@dataclass(frozen=True)
class EUFitOptions:
    """Fit the drafts' uncertainty to the scale of the reference on training problems.

    Example: lm-eval-ext train eu-fit runs/train --output eu_fit.json
    """

    run: Path = required(
        "folder of an lm_eval run (--output_path) of --model draft-eu with reference=tokur and "
        "--log_samples on training problems"
    )
    _: KW_ONLY
    output: Path = required("the JSON file")
    tasks: tuple[str, ...] = option("only these tasks of the run", ())


@dataclass(frozen=True)
class CalibratorOptions:
    """Fit the probability that an attempt is correct on training problems.

    Example: lm-eval-ext train calibrator runs/train --output calibrator.json
    """

    runs: tuple[Path, ...] = required(
        "folders of lm_eval runs (--output_path) with --log_samples on training problems"
    )
    _: KW_ONLY
    output: Path = required("the JSON file")
    tasks: tuple[str, ...] = option("only these tasks of the runs", ())
    method: Method = option(
        "a linear score, a step curve over it, or a small neural network", "logistic"
    )
    sources: tuple[str, ...] = option(
        "what it reads; answer_share and answer_groups compare the attempts at a question. By "
        "default the four features of EpiCaR's authors' baseline",
        ("mean_logprob", "mean_entropy", "perplexity", "total_logprob"),
    )
    attempts: int | None = option("only the first so many of each question; by default all")
    seed: int = option("of folds and fits", 0)

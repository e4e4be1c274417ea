"""Options that the ``prune`` commands share, and the model and data they stand for."""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple, get_args

from lm_eval_ext.errors import UserError
from lm_eval_ext.harness import requests as harness
from lm_eval_ext.methods.sinks.block_layout import Layout, find_layout
from lm_eval_ext.methods.sinks.calibration_data import (
    CalibrationSet,
    calibration_set,
    default_source,
)
from lm_eval_ext.methods.sinks.sink_scores import Queries, SinkConvention, Window
from lm_eval_ext.model_wrappers.sink_pruned import SinkPrunedLM


class Subject(NamedTuple):
    """What a command works on."""

    lm: SinkPrunedLM
    layout: Layout
    calibration: CalibrationSet
    pretrained: str


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Declare the model and its calibration data."""
    parser.add_argument(
        "--model_args",
        default="pretrained=tiny",
        help="as for lm_eval --model sampled (default: %(default)s)",
    )
    parser.add_argument(
        "--calibration",
        metavar="SOURCE",
        help="text or JSONL file, lm-eval tasks joined by +, or a Hub data set as "
        "ID[:CONFIGURATION[:SPLIT]] (default: WikiText-2; for a shipped model its own problems)",
    )
    parser.add_argument(
        "--calibration_size", type=int, default=128, help="most sequences (default: %(default)s)"
    )
    parser.add_argument(
        "--length", type=int, default=512, help="tokens of a segment of text (%(default)s)"
    )


def add_convention_options(parser: argparse.ArgumentParser) -> None:
    """Declare how sink scores are averaged."""
    parser.add_argument(
        "--queries",
        choices=get_args(Queries),
        default="all",
        help="average over all queries, or leave out the first token's own (default: %(default)s)",
    )
    parser.add_argument(
        "--window",
        choices=get_args(Window),
        default="zero",
        help="queries of sliding layers too far to see the first token count zero, or only visible "
        "ones count (default: %(default)s)",
    )


def load_subject(args: argparse.Namespace) -> Subject:
    """Load the model and read its calibration data."""
    model_args = harness.parse_model_args(args.model_args)
    taken = {"ratio", "unit", "criterion", "calibration", "skip_first", "scores"} & set(model_args)
    if taken:
        name = min(taken)
        raise UserError(
            f"--model_args: {name}={model_args[name]} is for lm_eval; this command has options of "
            "its own, see --help"
        )
    lm = SinkPrunedLM(**model_args, ratio=0)
    pretrained = str(model_args.get("pretrained", "tiny"))
    source = args.calibration or default_source(pretrained)
    data = calibration_set(lm, source, size=args.calibration_size, length=args.length)
    return Subject(lm, find_layout(lm.model), data, pretrained)


def text_to_measure(args: argparse.Namespace, subject: Subject) -> CalibrationSet:
    """Read the text that losses are measured on, which is not the calibration data."""
    source = args.text or default_source(subject.pretrained, test=True)
    return calibration_set(subject.lm, source, size=args.text_size, length=args.length)


def add_text_options(parser: argparse.ArgumentParser) -> None:
    """Declare the text that losses are measured on."""
    parser.add_argument(
        "--text",
        metavar="SOURCE",
        help="what perplexity is measured on, as for --calibration (default: the test text of the "
        "default there)",
    )
    parser.add_argument(
        "--text_size", type=int, default=128, help="most sequences of it (default: %(default)s)"
    )


def convention_of(args: argparse.Namespace) -> SinkConvention:
    """Return the convention that the options name."""
    return SinkConvention(args.queries, args.window)


def whole_numbers(text: str) -> tuple[int, ...]:
    """Read a list of whole numbers, for `argparse`.

    Examples
    --------
    >>> whole_numbers("16,32")
    (16, 32)
    """
    return tuple(int(part) for part in text.split(",") if part)


def plain_record(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options as plain values for a file."""
    return {
        name: value if isinstance(value, (int, float, bool, list, tuple)) else str(value)
        for name, value in vars(args).items()
        if value is not None
    }

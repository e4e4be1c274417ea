"""The model and the data that a ``prune`` command works on."""

from __future__ import annotations

from typing import NamedTuple

from lm_eval_ext.commands.prune.options import MeasuredOptions, ModelOptions
from lm_eval_ext.errors import UserError
from lm_eval_ext.harness import requests as harness
from lm_eval_ext.methods.sinks.block_layout import Layout, find_layout
from lm_eval_ext.methods.sinks.calibration_data import (
    CalibrationSet,
    calibration_set,
    default_source,
)
from lm_eval_ext.methods.sinks.sink_scores import SinkConvention
from lm_eval_ext.model_wrappers.sink_pruned import SinkPrunedLM


class Subject(NamedTuple):
    """The unpruned model, its layout and name, and how its calibration data are averaged."""

    lm: SinkPrunedLM
    layout: Layout
    calibration: CalibrationSet
    pretrained: str
    convention: SinkConvention


def load_subject(options: ModelOptions) -> Subject:
    """Load the model and read its calibration data."""
    model_args = harness.parse_model_args(options.model_args)
    taken = {"ratio", "unit", "criterion", "calibration", "skip_first", "scores"} & set(model_args)
    if taken:
        name = min(taken)
        raise UserError(
            f"--model-args: {name}={model_args[name]} is for lm_eval; this command has options of "
            "its own, see --help"
        )
    model_args = {"pretrained": options.pretrained, **model_args}
    lm = SinkPrunedLM(**model_args, ratio=0)
    pretrained = str(model_args["pretrained"])
    source = options.calibration or default_source(pretrained)
    data = calibration_set(lm, source, size=options.calibration_size, length=options.length)
    convention = SinkConvention(options.queries, options.window)
    return Subject(lm, find_layout(lm.model), data, pretrained, convention)


def text_to_measure(options: MeasuredOptions, subject: Subject) -> CalibrationSet:
    """Read the text that losses are measured on, which is not the calibration data."""
    source = options.text or default_source(subject.pretrained, test=True)
    return calibration_set(subject.lm, source, size=options.text_size, length=options.length)

"""``lm-eval-ext plan``: rows, memory and time of a run with N attempts, before it is started."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lm_eval_ext.checks import check_at_least, option
from lm_eval_ext.commands.plan.hardware import find_device
from lm_eval_ext.commands.plan.task_workload import task_workload
from lm_eval_ext.commands.plan.workload import RunNumbers, Workload, workload_of_numbers
from lm_eval_ext.errors import UserError


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """Say how many attempts fit at once and how long a run takes.

    Example: lm-eval-ext plan --pretrained tiny --tasks tiny_gsm8k_passn --gpu h200
    """

    pretrained: str | None = option(
        "Hub id, folder, config.json or known name; weights are read by --measure only"
    )
    tasks: str | None = option(
        "task or group of lm-eval, for its questions, prompts and token limit"
    )
    numbers: RunNumbers = field(default_factory=RunNumbers)
    gpu: str | None = option("its name, such as h200, or cpu: this machine's")
    gpus: int = option("how many, data parallel", 1)
    memory_gb: float | None = option("memory of a GPU that is not in the table")
    bandwidth_gb_s: float | None = option("its memory bandwidth")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "of weights and cache; auto: as stored", "auto"
    )
    batch_size: int | None = option("most rows per GPU; by default as many as fit")
    measure: float | None = option(
        "begin the run on this machine, end it after so many seconds (60), and say how long it "
        "would take",
        None,
        bare=60.0,
    )
    apply_chat_template: bool = option("with --measure: as lm-eval's option", False)
    detect: float | None = option(
        "print instead how many attempts and questions it takes to see such a difference between "
        "two runs, as 0.02, from the noise of --pilot"
    )
    pilot: tuple[Path, ...] = option(
        "with --detect: finished runs, a method and its baseline on the same questions, or one run",
        (),
    )
    json: bool = option("print every number as JSON", False)

    def __post_init__(self) -> None:
        check_at_least(self, gpus=1, batch_size=1, measure=1)
        if self.detect is not None:
            if not 0 < self.detect < 1:
                raise UserError(f"--detect={self.detect:g} must be between 0 and 1, such as 0.02")
            if len(self.pilot) not in (1, 2):
                raise UserError("--detect needs --pilot RUN,BASELINE: one or two finished runs")
        elif self.pretrained is None:
            raise UserError("--pretrained is missing: give a model, or --detect with --pilot")


def run(options: PlanOptions) -> int:
    """Print the plan; return the exit status."""
    if options.detect is not None:
        return _detect(options, options.detect)
    assert options.pretrained is not None
    if options.measure is not None:
        return _measure(options, options.pretrained, options.measure)
    return _plan(options, options.pretrained)


def _detect(options: PlanOptions, effect: float) -> int:
    from lm_eval_ext.commands.plan.detect import as_text, sizes_to_detect

    sizes = sizes_to_detect(effect, options.pilot)
    print(json.dumps(sizes, indent=1) if options.json else as_text(effect, sizes))
    return 0


def _measure(options: PlanOptions, pretrained: str, seconds: float) -> int:
    if options.tasks is None:
        raise UserError("--measure needs --tasks, whose questions it asks")
    from lm_eval_ext.commands.plan.measure import measure

    found = measure(
        pretrained,
        options.tasks,
        options.numbers,
        seconds=seconds,
        n_devices=options.gpus,
        apply_chat_template=options.apply_chat_template,
        dtype=options.dtype,
        batch_size="auto" if options.batch_size is None else options.batch_size,
    )
    print(json.dumps(found._asdict(), indent=1) if options.json else found.text())
    return 0


def _plan(options: PlanOptions, pretrained: str) -> int:
    # Wrong options are told before anything slow is imported.
    device = find_device(
        options.gpu, memory_gb=options.memory_gb, bandwidth_gb_s=options.bandwidth_gb_s
    )
    workload = _workload(options, pretrained)

    from lm_eval_ext.commands.plan.cost import Run
    from lm_eval_ext.commands.plan.model_shape import BYTES_OF_DTYPE, read_shape
    from lm_eval_ext.commands.plan.report import as_json, plan_of, text

    shape = read_shape(pretrained)
    dtype = shape.dtype if options.dtype == "auto" else options.dtype
    if dtype not in BYTES_OF_DTYPE:
        raise UserError(f"{shape.name} is stored as {dtype}: give --dtype, such as bfloat16")
    plan = plan_of(
        Run(
            shape=shape,
            device=device,
            workload=workload,
            number_bytes=BYTES_OF_DTYPE[dtype],
            n_devices=options.gpus,
            batch_size=options.batch_size,
        )
    )
    print(json.dumps(as_json(plan), indent=1) if options.json else "\n".join(text(plan)))
    return 0


def _workload(options: PlanOptions, pretrained: str) -> Workload:
    if options.tasks is None:
        return workload_of_numbers(options.numbers)
    return task_workload(options.tasks, pretrained, options.numbers)

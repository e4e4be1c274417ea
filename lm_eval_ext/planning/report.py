"""A plan as text and as JSON."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any, NamedTuple

from lm_eval_ext.planning.cost import (
    CASES,
    Case,
    Estimate,
    Run,
    estimate,
    prefill_operations,
    rows_per_device,
)


class Plan(NamedTuple):
    """A run with everything that was computed of it.

    Parameters
    ----------
    run
        The run.
    rows
        Attempts a device decodes at once.
    estimates
        What the run takes, by case.
    copied_rows, copied
        The same with a copy of the prompt for every attempt; ``copied`` is None where that does
        not fit.
    """

    run: Run
    rows: int
    estimates: dict[Case, Estimate]
    copied_rows: int
    copied: dict[Case, Estimate] | None


def plan_of(run: Run) -> Plan:
    """Compute everything that the report shows.

    Raises
    ------
    UserError
        If the run does not fit.
    """
    rows = rows_per_device(run)
    estimates = {case: estimate(run, case) for case in CASES}
    other = replace(run, shared_prefix=False)
    try:
        copied_rows = rows_per_device(other)
    except ValueError:
        return Plan(run, rows, estimates, 0, None)
    return Plan(run, rows, estimates, copied_rows, {case: estimate(other, case) for case in CASES})


def duration(seconds: float) -> str:
    """Return a time with two significant units.

    Examples
    --------
    >>> duration(0.04), duration(7.31), duration(200), duration(9000)
    ('0.04 s', '7.3 s', '3 min 20 s', '2 h 30 min')
    """
    if seconds < 0.995:
        return f"{seconds:.2g} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    if seconds < 3599.5:
        return f"{round(seconds) // 60} min {round(seconds) % 60} s"
    minutes = round(seconds / 60)
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{seconds / 86400:.1f} days"


def text(plan: Plan) -> list[str]:
    """Return the lines of the report."""
    run, middle = plan.run, plan.estimates["expected"]
    shape, workload, device = run.shape, run.workload, run.device
    attempts = workload.all_attempts
    devices = f"{run.n_devices} x {device.name}" if run.n_devices > 1 else device.name
    memory = run.weight_bytes + plan.rows * run.row_bytes
    lines = [
        f"model     {shape.name}: {_count(shape.parameters)} parameters"
        + (f", {_count(shape.active)} active per token" if shape.routed else "")
        + f", {shape.layers} layers, {run.number_bytes} bytes per number",
        f"run       {workload.questions:,} questions x {workload.attempts:.4g} = {attempts:,} "
        f"attempts, {workload.prompt_tokens:.0f} prompt tokens, at most "
        f"{workload.max_new_tokens} new ones",
        f"machine   {devices}: {device.memory / 1e9:.0f} GB, {device.bandwidth / 1e9:,.0f} GB/s, "
        f"{device.peak(run.number_bytes) / 1e12:,.3g} TFLOP/s"
        + (" each" if run.n_devices > 1 else ""),
        "",
        f"time      {_range(plan, 'seconds')}",
        f"  prefill {_range(plan, 'prefill_seconds')}, {prefill_operations(run):.2g} FLOP "
        "per device",
        f"  decode  {_range(plan, 'decode_seconds')}, {middle.steps:,.0f} steps of "
        f"{1e3 * middle.step_seconds:.1f} ms with {middle.mean_rows:.0f} rows in the mean; most "
        f"of a step: {_LIMITS[middle.limited_by]}",
        f"  grading {_range(plan, 'grading_seconds')}, {workload.grader}",
        f"rate      {attempts / middle.seconds:,.1f} attempts/s "
        f"({attempts / plan.estimates['worst'].seconds:,.1f} to "
        f"{attempts / plan.estimates['best'].seconds:,.1f})",
        f"rows      {plan.rows} per device at once, {_size(run.row_bytes)} each",
        f"memory    {_size(memory)} per device: weights {_size(run.weight_bytes)}, attempts "
        f"{_size(plan.rows * run.row_bytes)}",
        f"no share  {_copied(plan)}",
        "",
        "assumed",
    ]
    return lines + [f"  {line}" for line in assumptions(plan)]


_LIMITS = {
    "memory": "reading weights and caches",
    "compute": "matrix products",
    "launch": "starting kernels from Python",
    "sampling": "scores, logits and rows",
}


def assumptions(plan: Plan) -> list[str]:
    """Return what the plan rests on, a line each."""
    run = plan.run
    device = (
        "device: published peaks and assumed shares of them, not measured on a GPU"
        if run.device.asynchronous
        else "device: measured just now, while other programs may have been running"
    )
    lines = [
        "time: expected (best case to worst case); loading the model is not in it",
        device,
        *run.workload.notes,
        f"grading: by each process what it generated, of the grader {run.workload.grader}",
        "memory: the engine's own estimate, which fills half of what the weights leave",
    ]
    if run.n_devices > 1:
        lines.append("devices: a copy of the model each, the questions divided evenly")
    if run.shape.routed:
        lines.append("experts: tokens are routed to all of them alike")
    return lines


def as_json(plan: Plan) -> dict[str, Any]:
    """Return the plan with every number, in seconds, bytes and tokens."""
    run = plan.run
    return {
        "model": {**asdict(run.shape), "active": run.shape.active},
        "workload": _workload(run),
        "device": {
            "name": run.device.name,
            "count": run.n_devices,
            "memory": run.device.memory,
            "bandwidth": run.device.bandwidth,
            "flops": run.device.peak(run.number_bytes),
            "efficiency": {case: getattr(run.device.scenarios, case)._asdict() for case in CASES},
        },
        "number_bytes": run.number_bytes,
        "rows_per_device": plan.rows,
        "row_bytes": run.row_bytes,
        "memory_per_device": run.weight_bytes + plan.rows * run.row_bytes,
        "prefill_operations": prefill_operations(run),
        "estimates": _estimates(plan.estimates),
        "without_sharing": None
        if plan.copied is None
        else {"rows_per_device": plan.copied_rows, "estimates": _estimates(plan.copied)},
        "assumptions": assumptions(plan),
    }


def _workload(run: Run) -> dict[str, Any]:
    workload = asdict(run.workload)
    del workload["notes"]
    return {
        **workload,
        "response_tokens": run.workload.response_tokens._asdict(),
        "grading": run.workload.grading._asdict(),
    }


def _estimates(estimates: dict[Case, Estimate]) -> dict[str, Any]:
    return {
        case: {**found._asdict(), "seconds": found.seconds} for case, found in estimates.items()
    }


def _range(plan: Plan, name: str) -> str:
    best, expected, worst = (duration(getattr(plan.estimates[case], name)) for case in CASES)
    return expected if best == worst else f"{expected} ({best} to {worst})"


def _copied(plan: Plan) -> str:
    if plan.copied is None:
        return "does not fit with a copy of the prompt for every attempt"
    seconds, rows = plan.copied["expected"].seconds, plan.copied_rows
    ratio = seconds / plan.estimates["expected"].seconds
    return (
        f"with a copy of the prompt for every attempt {duration(seconds)}, {ratio:.1f} times as "
        f"long, {rows} rows"
    )


def _count(number: float) -> str:
    for scale, unit in ((1e9, "B"), (1e6, "M")):
        if number >= scale:
            return f"{number / scale:.2f}{unit}"
    return f"{number:,.0f}"


def _size(n_bytes: float) -> str:
    for scale, unit in ((1e9, "GB"), (1e6, "MB")):
        if n_bytes >= scale:
            return f"{n_bytes / scale:.1f} {unit}"
    return f"{n_bytes / 1e3:.0f} kB"

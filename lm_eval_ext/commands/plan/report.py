"""A plan as text and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, NamedTuple

from lm_eval_ext.commands.plan.cost import Roof, Run, bandwidth_roof


class Plan(NamedTuple):
    """A run, and the least it takes."""

    run: Run
    roof: Roof


def plan_of(run: Run) -> Plan:
    """Compute everything that the report shows; a `UserError` if the run does not fit."""
    return Plan(run, bandwidth_roof(run))


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
    run, roof = plan.run, plan.roof
    shape, workload, device = run.shape, run.workload, run.device
    devices = f"{run.n_devices} x {device.name}" if run.n_devices > 1 else device.name
    attempts = roof.rows * run.row_bytes
    return [
        f"model     {shape.name}: {_count(shape.parameters)} parameters"
        + (f", {_count(shape.active)} active per token" if shape.routed else "")
        + f", {shape.layers} layers, {run.number_bytes} bytes per number",
        f"run       {workload.questions:,} questions x {workload.attempts:.4g} = "
        f"{workload.all_attempts:,} attempts, {workload.prompt_tokens:.0f} prompt tokens, at most "
        f"{workload.max_new_tokens} new ones",
        f"machine   {devices}: {device.memory / 1e9:.0f} GB, {device.bandwidth / 1e9:,.0f} GB/s"
        + (" each" if run.n_devices > 1 else ""),
        "",
        f"rows      {roof.rows} per device at once, {_size(run.row_bytes)} each",
        f"memory    {_size(run.weight_bytes + attempts)} per device: weights "
        f"{_size(run.weight_bytes)}, attempts {_size(attempts)}",
        f"time      at least {duration(roof.seconds)}: {roof.steps:,.0f} steps that read weights "
        "and caches",
        "",
        "assumed",
        *(f"  {line}" for line in assumptions(run)),
    ]


def assumptions(run: Run) -> list[str]:
    """Return the assumptions of the plan, a line each."""
    lines = [
        "time: decoding at full memory bandwidth; --measure times a real run",
        *run.workload.notes,
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
    workload = asdict(run.workload)
    del workload["notes"]
    return {
        "model": {**asdict(run.shape), "active": run.shape.active},
        "workload": workload,
        "device": {**run.device._asdict(), "count": run.n_devices},
        "number_bytes": run.number_bytes,
        "row_bytes": run.row_bytes,
        "memory_per_device": run.weight_bytes + plan.roof.rows * run.row_bytes,
        "least": plan.roof._asdict(),
        "assumptions": assumptions(run),
    }


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

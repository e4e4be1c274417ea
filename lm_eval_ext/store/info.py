"""``lm-eval-ext store info``: what an attempt store holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lm_eval_ext.store.inspection import UNDESCRIBED, StoreContents, inspect
from lm_eval_ext.store.options import InfoOptions


def run(options: InfoOptions) -> int:
    """Describe the store; return the exit status."""
    found = inspect(options.store)
    print(json.dumps(_as_json(found), indent=1) if options.json else "\n".join(_report(found)))
    return 0


def _report(found: StoreContents) -> list[str]:
    lines = [
        f"{found.n_attempts} attempts in {len(found.files)} files, {found.n_bytes / 1e6:.1f} MB",
        f"{found.n_repeated} repeated, {len(found.damaged)} damaged and "
        f"{len(found.cut_off)} cut-off lines",
    ]
    n_undescribed = sum(found.undescribed.values())
    if n_undescribed:
        lines.append(UNDESCRIBED.format(n_undescribed))
    for name, context in found.contexts.items():
        prompts = found.attempts.get(name, {})
        counts = [len(numbers) for numbers in prompts.values()]
        several = f"{min(counts)} to {max(counts)}" if counts else "0"
        about = context["about"]
        lines += [
            "",
            f"{name[:12]}  {about['wrapper']}, {about['pretrained']}",
            f"    {sum(counts)} attempts at {len(prompts)} prompts, {several} each",
            f"    {_settings(context['settings'])}",
        ]
    return lines


def _settings(settings: Mapping[str, Any]) -> str:
    """Return a line of settings, with what is usual or a hash left out."""
    shown = {"seed": settings["seed"], **settings["sampling"]}
    for name in ("soft_prompt", "pruning", "self_evaluation", "box_completion", "annotations"):
        if name in settings:
            shown[name] = "yes"
    return ", ".join(f"{name}={value}" for name, value in shown.items() if value is not None)


def _as_json(found: StoreContents) -> dict[str, Any]:
    return {
        "files": [path.name for path in found.files],
        "bytes": found.n_bytes,
        "attempts": found.n_attempts,
        "repeated": found.n_repeated,
        "damaged": found.damaged,
        "cut_off": [path.name for path in found.cut_off],
        "undescribed": found.undescribed,
        "contexts": {
            name: {
                **context,
                "prompts": len(found.attempts.get(name, {})),
                "attempts": sum(map(len, found.attempts.get(name, {}).values())),
            }
            for name, context in found.contexts.items()
        },
    }

"""``lm-eval-ext prune export``: write a pruned checkpoint that loads without this package."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lm_eval_ext.errors import UserError
from lm_eval_ext.harness import requests as harness
from lm_eval_ext.methods.sinks.masks import zero_heads
from lm_eval_ext.methods.sinks.structural import shrink
from lm_eval_ext.model_wrappers.sink_pruned import SinkPrunedLM


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--model_args",
        default="pretrained=tiny,ratio=0.25,unit=kv_group,allocation=even",
        help="as for lm_eval --model sink-pruned (default: %(default)s)",
    )
    parser.add_argument(
        "--form",
        choices=("structural", "zeroed"),
        default="structural",
        help="cut heads or blocks out, or set the heads' weights to zero (default: %(default)s)",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the checkpoint")


def run(args: argparse.Namespace) -> int:
    """Prune, check, and save model, tokenizer and what was removed."""
    if args.output.exists() and any(args.output.iterdir()):
        raise UserError(f"--output={args.output} is not empty: name a new folder")
    lm = SinkPrunedLM(**harness.parse_model_args(args.model_args))
    plan = lm.plan
    if not plan.removal:
        raise UserError(f"--model_args={args.model_args} removes nothing: raise ratio")
    if plan.replacement is not None:
        raise UserError(
            "mean_compensation=true cannot be exported: the architectures have no place for it"
        )
    model, before = lm.model, lm.model.num_parameters()
    if args.form == "structural":
        model = shrink(model, plan.removal)
    else:
        zero_heads(model, plan.removal)
    model.save_pretrained(args.output)
    lm.tokenizer.save_pretrained(args.output)
    record = {"form": args.form, **lm.run_record()}
    (args.output / "pruning.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    what = (
        f"{len(plan.removal.blocks)} blocks"
        if plan.removal.blocks
        else f"{len(plan.removal.heads)} heads"
    )
    after = model.num_parameters()
    print(
        f"removed {what} ({args.form}): {before:,} -> {after:,} parameters, "
        f"{type(model).__name__}\ncheckpoint: {args.output}"
    )
    if args.form == "zeroed":
        print("weights set to zero take the same time and memory; --form structural saves both")
    return 0

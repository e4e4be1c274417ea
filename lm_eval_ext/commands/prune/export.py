"""``lm-eval-ext prune export``: write a pruned checkpoint that loads without this package."""

from __future__ import annotations

import json

from lm_eval_ext.commands.prune.options import ExportOptions
from lm_eval_ext.errors import UserError
from lm_eval_ext.harness import requests as harness
from lm_eval_ext.model_wrappers.sink_pruned import SinkPrunedLM


def run(options: ExportOptions) -> int:
    """Prune, check, and save model, tokenizer and what was removed."""
    if options.output.exists() and any(options.output.iterdir()):
        raise UserError(f"--output={options.output} is not empty: name a new folder")
    model_args = {"pretrained": options.pretrained, **harness.parse_model_args(options.model_args)}
    lm = SinkPrunedLM(**model_args)
    plan = lm.plan
    if not plan.removal:
        raise UserError(f"--model-options={options.model_args} removes nothing: raise ratio")
    before = lm.model.num_parameters()
    model = lm.export(options.output, options.form)
    record = {"form": options.form, **lm.run_record()}
    file = options.output / "pruning.json"
    file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    what = (
        f"{len(plan.removal.blocks)} blocks"
        if plan.removal.blocks
        else f"{len(plan.removal.heads)} heads"
    )
    after = model.num_parameters()
    print(
        f"removed {what} ({options.form}): {before:,} -> {after:,} parameters, "
        f"{type(model).__name__}\ncheckpoint: {options.output}"
    )
    if options.form == "zeroed":
        print("weights set to zero take the same time and memory; --form structural saves both")
    return 0

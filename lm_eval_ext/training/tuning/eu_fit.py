"""``lm-eval-ext train eu-fit``: the drafts' uncertainty on the scale of the reference."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import numpy as np

from lm_eval_ext.data.question_text import text_hash
from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.epistemic.fitted import FORMAT, PARTS, fit_eu
from lm_eval_ext.metrics import paired_bootstrap, rmse
from lm_eval_ext.metrics.checks import FloatArray
from lm_eval_ext.scoring.token_estimates import REFERENCE
from lm_eval_ext.training.tuning.options import EUFitOptions
from lm_eval_ext.training.tuning.tuning_run import read_tuning_run

N_FOLDS = 5


def run(options: EUFitOptions) -> int:
    """Cross-fit, print how good it is, fit on everything and write the file."""
    if not options.output.absolute().parent.is_dir():
        raise UserError(
            f"--output={options.output}: no folder {options.output.parent}; make it first"
        )
    tuning = read_tuning_run(options.run, options.tasks)
    questions = [[a.get("token_scores", {}) for a in q] for q in tuning.all_questions]
    if not all(name in one for q in questions for one in q for name in (*PARTS, REFERENCE)):
        raise UserError(
            f"{options.run}: its attempts carry no drafts and reference; run --model draft-eu with "
            "--model_args reference=tokur"
        )
    if len(questions) < N_FOLDS:
        raise UserError(f"{options.run}: {len(questions)} questions are too few; give {N_FOLDS}")
    fit = fit_eu((one for question in questions for one in question), REFERENCE)
    quality = cross_fitted_rmse(questions)
    record = {
        "format": FORMAT,
        **{name: getattr(fit, name) for name in (*PARTS, "intercept")},
        "tasks": list(tuning.questions),
        "n_questions": len(questions),
        "cross_fitted": quality,
        "prompts": sorted({text_hash(p) for task in tuning.asked.values() for _, p in task}),
    }
    options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(
        f"reference = {fit.jsd:.4g} jsd + {fit.kl:.4g} kl + {fit.intercept:.4g}, from "
        f"{len(questions)} questions; cross-fitted RMSE per token in nats:"
    )
    for name, row in quality.items():
        print(f"  {name:7} {row['rmse']:.4f}" + _against(row))
    print(f"use: --model_args ...,eu_fit={options.output}")
    return 0


def cross_fitted_rmse(questions: list[list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Return the RMSE of the fit and of two yardsticks on questions that the fit has not seen.

    Returns
    -------
    dict
        ``fitted``, ``zero`` and ``mean`` (of the reference on the fit's questions): ``rmse``, and
        for the yardsticks ``difference``, what the fit has less, with the ends of its 95%
        interval over questions.
    """
    found: dict[str, list[FloatArray]] = {"fitted": [], "zero": [], "mean": []}
    of_row: list[FloatArray] = []
    references: list[FloatArray] = []
    for fold in range(N_FOLDS):
        seen = [one for i, q in enumerate(questions) if i % N_FOLDS != fold for one in q]
        fit = fit_eu(seen, REFERENCE)
        mean = float(np.concatenate([one[REFERENCE] for one in seen]).mean())
        for i in range(fold, len(questions), N_FOLDS):
            for one in questions[i]:
                n = len(one[REFERENCE])
                references.append(np.asarray(one[REFERENCE], float))
                of_row.append(np.full(n, float(i)))
                found["fitted"].append(fit.estimate(one).astype(float))
                found["zero"].append(np.zeros(n))
                found["mean"].append(np.full(n, mean))
    reference, rows = np.concatenate(references), np.concatenate(of_row)
    estimates = {name: np.concatenate(values) for name, values in found.items()}
    compare = partial(paired_bootstrap, rmse, clusters=(rows, rows))
    result: dict[str, dict[str, Any]] = {}
    for name, estimate in estimates.items():
        data = {"estimate": estimate, "reference": reference}
        result[name] = {"rmse": rmse(**data)}
        if name != "fitted":
            test = compare({"estimate": estimates["fitted"], "reference": reference}, data)
            result[name]["difference"] = [test.difference, test.low, test.high]
    return result


def _against(row: dict[str, Any]) -> str:
    if "difference" not in row:
        return ""
    return ", fitted less this {:+.4f} ({:+.4f}, {:+.4f})".format(*row["difference"])

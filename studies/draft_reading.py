"""Reading the study of drafts: the pilot, verdicts and tables, from the files that it wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from draft_cost import cost_lines
from draft_parts import FloatArray, Sampled
from plan import (
    Judgement,
    Measure,
    Plan,
    judge,
    judgement_records,
    judgement_table,
    keep_pilot,
    measure_of,
)

from lm_eval_ext.metrics import affine_rmse, auroc, cluster_bootstrap, fit_affine, rmse, spearman
from lm_eval_ext.training.run import write_json

ESTIMATES = {"eu": "sum", "jsd": "JSD", "kl": "KL(mixture, target)", "single_draft": "one draft"}


class Kept(NamedTuple):
    """The responses: those judged on, and the held-out ones."""

    test: Sampled
    held: Sampled


class Scored(NamedTuple):
    """Responses with an estimate and the reference at each of their tokens."""

    sampled: Sampled
    reference: FloatArray

    @property
    def of_token(self) -> FloatArray:
        """Number of the response of each token."""
        return np.repeat(np.arange(len(self.sampled.attempts)), self.sampled.lengths)

    def sums(self, per_token: FloatArray) -> FloatArray:
        """Return the sum over the tokens of each response."""
        return np.bincount(self.of_token, per_token, len(self.sampled.attempts))


def read_scores(folder: Path) -> dict[str, FloatArray] | None:
    """Return the scores of every token that a part wrote, or None if it is not there."""
    found = [np.load(path) for path in sorted(folder.glob("[0-9]*[0-9].npz"))]
    if not found:
        return None
    return {
        name: np.concatenate([one[name] for one in found]).astype(np.float64) for name in found[0]
    }


def log_rmse(squared: FloatArray, n: FloatArray) -> float:
    """Return the logarithm of the root mean square, from sums of squares and their numbers."""
    return float(np.log(squared.sum() / n.sum()) / 2)


def measures(
    plan: Plan, arms: Sequence[str], found: Mapping[str, Any], sampled: Sampled, prefix: str
) -> dict[str, Measure]:
    """Return what was measured of the plan's claims.

    Parameters
    ----------
    plan
        The plan.
    arms
        The method's and the baseline's name.
    found
        Scores by folder.
    sampled
        All responses.
    prefix
        Of the folders with the scores of these responses.
    """
    rmse_, entropy, tokur = (comparison.claim for comparison in plan.family)
    made: dict[str, Measure] = {}
    reference = found.get(f"{prefix}-reference")
    by_arm = [found.get(f"{prefix}-{arm}") for arm in arms]
    if reference and all(by_arm):
        scored = scored_part(sampled, reference["reference_eu"])
        question = scored.sampled.question
        estimates = [one["eu"][: len(scored.reference)] for one in by_arm if one]
        data = [
            {
                "squared": scored.sums((estimate - scored.reference) ** 2),
                "n": scored.sampled.lengths.astype(float),
            }
            for estimate in estimates
        ]
        made[rmse_] = measure_of(log_rmse, *data, clusters=(question, question))
        made[tokur] = _auroc_measure(scored, estimates[0], scored.reference)
    if by_arm[0] and len(by_arm[0]["eu"]) == len(sampled.entropy):
        whole = Scored(sampled, sampled.entropy)
        made[entropy] = _auroc_measure(whole, by_arm[0]["eu"], sampled.entropy)
    return made


def _auroc_measure(scored: Scored, ours: FloatArray, theirs: FloatArray) -> Measure:
    correct, question = scored.sampled.correct, scored.sampled.question
    data = [{"correct": correct, "uncertainty": scored.sums(one)} for one in (ours, theirs)]
    return measure_of(auroc, *data, clusters=(question, question), n_resamples=2000)


def scored_part(sampled: Sampled, reference: FloatArray) -> Scored:
    """Return the first responses, as many as have a reference."""
    n = int(np.searchsorted(np.cumsum(sampled.lengths), len(reference))) + 1
    return Scored(sampled.first(n), reference)


def pilot(plan: Plan, folder: Path, kept: Kept) -> None:
    """Write the pilot, from held-out training questions."""
    arms = (plan.primary.treatment, plan.primary.baseline)
    made = measures(plan, arms, _all_scores(folder), kept.held, "held-out")
    keep_pilot(
        plan,
        folder,
        {claim: measure(1 - plan.alpha) for claim, measure in made.items()},
        n_questions=len(set(kept.test.question)),
        note="Held-out training questions, one response each.",
    )


def estimates_table(
    title: str, scored: Scored, rows: Mapping[str, FloatArray], held: Mapping[str, FloatArray],
    held_reference: FloatArray | None,
) -> list[str]:  # fmt: skip
    """Return the table of how close each estimate comes to the reference.

    Parameters
    ----------
    title
        Of the table.
    scored
        The responses with the reference.
    rows, held
        Estimates per token by name, there and on held-out responses.
    held_reference
        The reference on these.
    """
    lines = [
        f"## {title}",
        "",
        "| estimate | mean | RMSE per token | after a line | RMSE per response | Spearman |",
        "|---|---|---|---|---|---|",
    ]
    question = scored.sampled.question
    for name, values in rows.items():
        data = {"estimate": values, "reference": scored.reference}
        token = cluster_bootstrap(rmse, data, clusters=question[scored.of_token])
        sums = {key: scored.sums(one) for key, one in data.items()}
        response = cluster_bootstrap(rmse, sums, clusters=question)
        line = np.nan
        if held_reference is not None and name in held:
            fit = fit_affine(held[name], held_reference)
            line = affine_rmse(values, scored.reference, fit=fit)
        rank = spearman(values, scored.reference) if values.std() else np.nan
        lines.append(
            f"| {name} | {values.mean():.4f} | {_interval(token)} | {line:.4f} "
            f"| {_interval(response)} | {rank:.3f} |".replace("nan", "n/a")
        )
    n = f"{len(scored.sampled.attempts)} responses, {len(scored.reference)} tokens"
    return [*lines, "", f"{n}, {len(set(question))} questions.", ""]


def auroc_table(title: str, scored: Scored, rows: Mapping[str, FloatArray]) -> list[str]:
    """Return the table of how well sums over the response find wrong answers."""
    right, n = int(scored.sampled.correct.sum()), len(scored.sampled.correct)
    lines = [f"## {title}", "", f"{right} of {n} responses are right.", ""]
    if right in (0, n):
        return lines
    lines += ["| estimate, summed | AUROC |", "|---|---|"]
    for name, values in rows.items():
        if name == "always 0":
            continue
        found = cluster_bootstrap(
            auroc,
            {"correct": scored.sampled.correct, "uncertainty": scored.sums(values)},
            clusters=scored.sampled.question,
        )
        lines.append(f"| {name} | {_interval(found, 3)} |")
    return [*lines, ""]


def kl_lines(folder: Path, arms: Sequence[str], weak: float) -> tuple[list[str], bool]:
    """Return each draft's held-out KL, and whether some draft is too weak to decide anything."""
    lines, too_weak = (
        ["## Held-out KL of each draft", "", "| arm | KL(target, draft), nats |"],
        False,
    )
    lines.append("|---|---|")
    for arm in arms:
        path = folder / f"kl-{arm}.json"
        if path.exists():
            means = [float(np.mean(values)) for values in _read(path)]
            too_weak |= max(means) > weak
            lines.append(f"| {arm} | {', '.join(f'{mean:.3f}' for mean in means)} |")
    depths = {int(path.stem): _read(path) for path in (folder / "depth").glob("*.json")}
    tried = ", ".join(f"{depth} layers {kl:.2f}" for depth, kl in sorted(depths.items()))
    return [*lines, "", f"Depths tried, KL after a few steps: {tried}.", ""], too_weak


def report(
    plan: Plan, folder: Path, work: Sequence[str], arms: Sequence[str], kept: Kept | None,
    usual: Mapping[str, Any],
) -> str:  # fmt: skip
    """Judge the claims, write ``verdicts.json`` and ``report.md``, and return the latter.

    Parameters
    ----------
    plan
        The study's.
    folder
        Its output.
    work
        Names of its parts.
    arms
        The method's and the baseline's name.
    kept
        The responses; None if they are not sampled yet.
    usual
        The default settings, to say what was cut.
    """
    found = _all_scores(folder)
    judged = judge(plan, {} if kept is None else measures(plan, arms, found, kept.test, "test"))
    kl, too_weak = kl_lines(folder, arms, plan.settings["weak"])
    lines = [f"# Drafts of {plan.settings['pretrained']}", ""]
    if too_weak:
        judged = [_undecided(one) for one in judged]
        weak = plan.settings["weak"]
        lines += [f"**Drafts too weak to decide**: held-out KL above {weak} nats, see below.", ""]
    write_json(folder / "verdicts.json", judgement_records(judged))
    lines += [
        *judgement_table(judged),
        "",
        "One training seed: this holds for these drafts only.",
        "",
    ]
    missing = [part for part in work if not (folder / "done" / part).exists()]
    lines.append(f"Cut, or not finished: {', '.join(missing) or 'nothing'}.")
    for name, value in usual.items():
        if json.loads(json.dumps(value)) != json.loads(json.dumps(plan.settings[name])):
            lines.append(f"`{name}`: {plan.settings[name]} instead of {value}.")
    lines += ["", *kl]
    if kept is not None:
        lines += _score_tables(found, kept, arms)
    text = "\n".join([*lines, *cost_lines(folder)])
    (folder / "report.md").write_text(text + "\n", encoding="utf-8")
    return text


def _score_tables(found: Mapping[str, Any], kept: Kept, arms: Sequence[str]) -> list[str]:
    lines: list[str] = []
    reference, held_reference = found.get("test-reference"), found.get("held-out-reference")
    if reference:
        scored = scored_part(kept.test, reference["reference_eu"])
        zero = np.zeros_like(scored.reference)
        rows, held = {"always 0": zero}, {}
        if held_reference:
            held_mean = held_reference["reference_eu"].mean()
            rows["held-out mean"] = np.full_like(zero, held_mean)
        rows |= _baselines(scored.sampled)
        held |= _baselines(kept.held)
        for arm in arms:
            rows |= _of_arm(arm, found.get(f"test-{arm}"), len(scored.reference))
            held |= _of_arm(arm, found.get(f"held-out-{arm}"))
        line = held_reference["reference_eu"] if held_reference else None
        title = "Against TokUR's reference"
        lines += estimates_table(title, scored, rows, held, line)
        rows["TokUR"] = scored.reference
        lines += auroc_table("Wrong answers among these", scored, rows)
    everything = Scored(kept.test, kept.test.entropy)
    rows = _baselines(kept.test)
    for arm in arms:
        rows |= _of_arm(arm, found.get(f"test-{arm}"), len(kept.test.entropy))
    return [*lines, *auroc_table("Wrong answers among all responses", everything, rows)]


def _baselines(sampled: Sampled) -> dict[str, FloatArray]:
    return {"target's entropy": sampled.entropy, "target's -log p": sampled.surprise}


def _of_arm(
    arm: str, scores: Mapping[str, FloatArray] | None, n_tokens: int | None = None
) -> dict[str, FloatArray]:
    """Return the estimates of an arm at the first tokens; none where so many are not scored."""
    if not scores or (n_tokens is not None and len(scores["eu"]) < n_tokens):
        return {}
    return {f"{arm}: {label}": scores[key][:n_tokens] for key, label in ESTIMATES.items()}


def _all_scores(folder: Path) -> dict[str, Any]:
    found = {path.name: read_scores(path) for path in (folder / "scores").glob("*")}
    return {name: scores for name, scores in found.items() if scores}


def _undecided(one: Judgement) -> Judgement:
    return one._replace(verdict="not decidable here", questions_to_decide=None)


def _interval(found: Any, digits: int = 4) -> str:
    return f"{found.estimate:.{digits}f} ({found.low:.{digits}f}, {found.high:.{digits}f})"


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))

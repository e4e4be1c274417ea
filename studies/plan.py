"""What a study compares, fixed before its first run, and the verdict about each of its claims.

    plan = Plan(
        study="rsp",
        primary=Comparison("RSP raises pass@16", "pass@16", "rsp", "sampled", margin=0.02),
        secondary=(...),                          # at most two
        settings={"pretrained": "smollm2", "questions": 250, "seed": 1234},
    )
    plan.keep(folder)                             # plan.json, plan.md; other settings are refused
    keep_pilot(plan, folder, {claim: difference}, n_questions=250)     # pilot.json, pilot.md
    judged = judge(plan, {claim: measure})        # measure(level) -> the difference at that level
    judgement_table(judged), judgement_records(judged)                 # for table.md, results.json

A difference is that of `lm_eval_ext.metrics.paired_bootstrap`: treatment minus baseline, over the
same questions. `measure_of` makes a measure of two runs' data.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from lm_eval_ext.errors import UserError
from lm_eval_ext.metrics import PairedDifference, minimum_detectable_effect, paired_bootstrap
from lm_eval_ext.training.run import keep_settings, write_json

Kind = Literal["superiority", "non-inferiority", "equivalence"]
"""More than the margin better than the baseline, less than the margin worse than it, or within the
margin of it on either side."""

Verdict = Literal["holds", "does not hold", "not decidable here"]

PLAN, PILOT = "plan", "pilot"
_SIGNS: dict[Kind, str] = {"superiority": "> ", "non-inferiority": "> -", "equivalence": "±"}
N_RESAMPLES = 10_000
_ROUNDING = 1e-12
PILOT_QUESTIONS = 50

Measure = Callable[[float], PairedDifference]
"""The difference treatment - baseline, with its interval at a confidence level."""


@dataclass(frozen=True)
class Comparison:
    """A claim that a study decides.

    Parameters
    ----------
    claim
        One short sentence; names the comparison wherever it is asked for.
    metric
        Name of the metric.
    treatment, baseline
        Names of the two runs; differences are the first minus the second.
    margin
        In the unit of the metric, and at least 0; above 0 for equivalence. See `Kind`.
    kind
        See `Kind`.
    higher_is_better
        Direction of the metric; without meaning for equivalence.
    """

    claim: str
    metric: str
    treatment: str
    baseline: str
    margin: float = 0.0
    kind: Kind = "superiority"
    higher_is_better: bool = True

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UserError(f"kind={self.kind!r}: use one of {', '.join(get_args(Kind))}")
        if not 0 <= self.margin < math.inf or (self.kind == "equivalence" and not self.margin):
            least = "above 0" if self.kind == "equivalence" else "at least 0"
            raise UserError(f"margin={self.margin} of {self.claim!r} must be {least} and finite")

    def verdict(self, low: float, high: float) -> Verdict:
        """Return what an interval of the difference says about the claim.

        Parameters
        ----------
        low, high
            Bounds of treatment - baseline. With NaN nothing is decided.

        Examples
        --------
        >>> gain = Comparison("A beats B by 2 points", "accuracy", "A", "B", margin=0.02)
        >>> [gain.verdict(*bounds) for bounds in ((0.03, 0.09), (0.01, 0.05), (-0.04, 0.01))]
        ['holds', 'not decidable here', 'does not hold']
        >>> same = Comparison("A matches B", "accuracy", "A", "B", margin=0.02, kind="equivalence")
        >>> [same.verdict(*bounds) for bounds in ((-0.01, 0.01), (-0.01, 0.03), (0.03, 0.05))]
        ['holds', 'not decidable here', 'does not hold']
        """
        if self.kind == "equivalence":
            if -self.margin < low and high < self.margin:
                return "holds"
            return self._undecided_unless(low > self.margin or high < -self.margin)
        if not self.higher_is_better:
            low, high = -high, -low
        if low > self._least_gain:
            return "holds"
        return self._undecided_unless(high < self._least_gain)

    @property
    def _least_gain(self) -> float:
        return -self.margin if self.kind == "non-inferiority" else self.margin

    @staticmethod
    def _undecided_unless(excluded: bool) -> Verdict:
        return "does not hold" if excluded else "not decidable here"

    def questions_to_decide(self, found: PairedDifference, *, alpha: float) -> float:
        """Return how many questions would decide, if the true difference is the measured one.

        With 80% probability, at a two-sided level of `alpha`; infinite where the measured
        difference is the margin itself, NaN where there is no standard error.

        Parameters
        ----------
        found
            What was measured.
        alpha
            Level of the test.
        """
        difference = found.difference
        if self.kind == "equivalence":
            distance = abs(self.margin - abs(difference))
        else:
            gain = difference if self.higher_is_better else -difference
            distance = abs(gain - self._least_gain)
        if not distance:
            return math.inf
        detectable = minimum_detectable_effect(found.standard_error, alpha=alpha)
        return float(found.n_questions * (detectable / distance) ** 2)


@dataclass(frozen=True)
class Plan:
    """What a study compares, and with which settings.

    Parameters
    ----------
    study
        Its name.
    primary
        The comparison that the study is made for.
    secondary
        At most two more. All of them are one family, corrected together after Holm.
    settings
        Everything else that decides the results, JSON-serializable: model, tasks, numbers of
        questions and attempts, seeds.
    alpha
        Family-wise level, strictly between 0 and 1.
    """

    study: str
    primary: Comparison
    secondary: tuple[Comparison, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    alpha: float = 0.05

    def __post_init__(self) -> None:
        if len(self.secondary) > 2:
            raise UserError(f"{self.study}: {len(self.secondary)} secondary comparisons, at most 2")
        claims = [comparison.claim for comparison in self.family]
        if len(set(claims)) < len(claims):
            raise UserError(f"{self.study}: two comparisons have the same claim")
        if not 0 < self.alpha < 1:
            raise UserError(f"alpha={self.alpha} must be strictly between 0 and 1")

    @property
    def family(self) -> tuple[Comparison, ...]:
        """All comparisons, the primary one first."""
        return (self.primary, *self.secondary)

    def keep(self, folder: Path) -> bool:
        """Write the plan before the first run, or see that a continued study has the same one.

        Parameters
        ----------
        folder
            The study's output; gets ``plan.json`` and ``plan.md``, which are never overwritten.

        Returns
        -------
        bool
            Whether the study was begun before.

        Raises
        ------
        UserError
            If the folder holds another plan; names what differs.
        """
        flat: dict[str, Any] = {"study": self.study, "alpha": self.alpha}
        for i, comparison in enumerate(self.family):
            role = f"secondary_{i}" if i else "primary"
            flat |= {f"{role}.{k}": v for k, v in dataclasses.asdict(comparison).items()}
        flat |= {f"settings.{name}": value for name, value in self.settings.items()}
        begun = keep_settings(folder, flat, name=f"{PLAN}.json")
        _write_once(folder / f"{PLAN}.md", self.lines())
        return begun

    def lines(self) -> list[str]:
        """Lay the plan out as Markdown."""
        lines = [f"# Plan of the study {self.study}, written before its first run", ""]
        lines += ["| | claim | metric | compared | margin | test |", "|---" * 6 + "|"]
        for i, one in enumerate(self.family):
            cells = ["secondary" if i else "primary", one.claim, one.metric]
            cells += [f"{one.treatment} - {one.baseline}", f"{one.margin:g}", one.kind]
            lines.append(f"| {' | '.join(cells)} |")
        lines += ["", f"Family-wise level {self.alpha:g}, after Holm; paired by question.", ""]
        lines += ["| setting | value |", "|---|---|"]
        lines += [f"| {name} | {json.dumps(value)} |" for name, value in self.settings.items()]
        return lines


def keep_pilot(
    plan: Plan,
    folder: Path,
    found: Mapping[str, PairedDifference],
    *,
    n_questions: int,
    note: str = "",
) -> dict[str, float]:
    """Note what the study will be able to see, from a pilot on questions it does not report.

    Parameters
    ----------
    plan
        The plan.
    folder
        Gets ``pilot.json`` and ``pilot.md``; once they are there, they are only read.
    found
        By claim, the pilot's difference. Only its standard error is used.
    n_questions
        Of the study.
    note
        Which questions the pilot asked, and how.

    Returns
    -------
    dict
        By claim, the smallest difference that is found with 80% probability at the level of the
        whole family, the first step of Holm's procedure.
    """
    path = folder / f"{PILOT}.json"
    if not path.exists():
        level = plan.alpha / len(plan.family)
        rows = {
            claim: {
                "pilot_questions": one.n_questions,
                "pilot_standard_error": one.standard_error,
                "questions": n_questions,
                "smallest_detectable_difference": minimum_detectable_effect(
                    one.standard_error * math.sqrt(one.n_questions / n_questions), alpha=level
                ),
            }
            for claim, one in found.items()
        }
        lines = [f"# Pilot of the study {plan.study}", "", *([note, ""] if note else [])]
        heads = "claim | pilot n | standard error | study n | smallest detectable difference"
        lines += [f"| {heads} |", "|---" * 5 + "|"]
        for claim, row in rows.items():
            n, error, questions, smallest = row.values()
            lines.append(f"| {claim} | {n} | {error:.4f} | {questions} | {smallest:.4f} |")
        lines += ["", f"At a two-sided level of {level:.3g}, with 80% probability."]
        _write_once(folder / f"{PILOT}.md", lines)
        write_json(path, {"note": note, "claims": rows})
    kept = json.loads(path.read_text(encoding="utf-8"))["claims"]
    return {claim: row["smallest_detectable_difference"] for claim, row in kept.items()}


def _write_once(path: Path, lines: Sequence[str]) -> None:
    if not path.exists():
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def measure_of(
    metric: Callable[..., Any],
    treatment: Mapping[str, Any],
    baseline: Mapping[str, Any],
    **options: Any,
) -> Measure:
    """Return the paired difference of a metric between two runs, at any confidence level.

    Parameters
    ----------
    metric, treatment, baseline
        As for `paired_bootstrap`.
    options
        Of `paired_bootstrap`, such as ``clusters``.
    """
    options = {"n_resamples": N_RESAMPLES, **options}
    compare = partial(paired_bootstrap, metric, dict(treatment), dict(baseline), **options)
    return lambda level: compare(confidence_level=level)


class Judgement(NamedTuple):
    """A claim, what was measured, and the verdict.

    Parameters
    ----------
    comparison
        The claim.
    found
        The difference, with its interval at the level the verdict was made at; None if not run.
    verdict
        See `Verdict`.
    questions_to_decide
        Where it is not decided, see `Comparison.questions_to_decide`; else None.
    """

    comparison: Comparison
    found: PairedDifference | None
    verdict: Verdict
    questions_to_decide: float | None = None


def judge(plan: Plan, measured: Mapping[str, Measure]) -> list[Judgement]:
    """Decide the claims of a plan together, by Holm's procedure on intervals.

    All claims are first tried with intervals at 1 - alpha / m, m being their number; those that are
    decided leave the family, and the others are tried again at the level of what is left. That is
    Holm's procedure on the p-values that belong to the intervals.

    Parameters
    ----------
    plan
        The plan.
    measured
        By claim. A claim that is missing was not run: it stays undecided, and in the family.
    """
    unknown = measured.keys() - {comparison.claim for comparison in plan.family}
    if unknown:
        raise UserError(f"{sorted(unknown)[0]!r} is no claim of the plan of {plan.study}")
    judged: dict[str, Judgement] = {}
    left = list(plan.family)
    while left:
        alpha, tried = plan.alpha / len(left), {}
        for one in left:
            found = measured[one.claim](1 - alpha) if one.claim in measured else None
            if found is None:
                tried[one.claim] = Judgement(one, None, "not decidable here")
                continue
            # Where no question differs, the interval is a point that says nothing of others.
            varies = found.standard_error > _ROUNDING
            verdict = one.verdict(found.low, found.high) if varies else "not decidable here"
            undecided = verdict == "not decidable here"
            needed = one.questions_to_decide(found, alpha=alpha) if undecided and varies else None
            tried[one.claim] = Judgement(one, found, verdict, needed)
        judged |= tried
        undecided_ones = [one for one in left if tried[one.claim].verdict == "not decidable here"]
        if len(undecided_ones) == len(left):
            break
        left = undecided_ones
    return [judged[comparison.claim] for comparison in plan.family]


def judgement_records(judged: Sequence[Judgement]) -> list[dict[str, Any]]:
    """Return judgements as JSON has them: null where a number is not known or not finite."""
    return [
        {
            **dataclasses.asdict(one.comparison),
            "found": None if one.found is None else _finite(one.found._asdict()),
            "verdict": one.verdict,
            **_finite({"questions_to_decide": one.questions_to_decide}),
        }
        for one in judged
    ]


def _finite(values: Mapping[str, float | None]) -> dict[str, float | None]:
    return {
        name: value if value is not None and math.isfinite(value) else None
        for name, value in values.items()
    }


def judgement_table(judged: Sequence[Judgement]) -> list[str]:
    """Lay judgements out as Markdown: claim, difference with interval, n, verdict."""
    heads = ("claim", "metric", "treatment", "baseline", "difference", "n", "margin", "verdict")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for one in judged:
        what, found = one.comparison, one.found
        cells = [what.claim, what.metric, what.treatment, what.baseline]
        if found is None:
            cells = [*cells[:2], "", "", "not run", ""]
        else:
            cells[2] += f": {found.estimate_a:.4f}"
            cells[3] += f": {found.estimate_b:.4f}"
            level = f"{100 * found.confidence_level:.3g}%"
            cells.append(f"{found.difference:+.4f} ({found.low:+.4f}, {found.high:+.4f}; {level})")
            cells.append(f"{found.n_questions}")
        margin = f"{_SIGNS[what.kind]}{what.margin:g}"
        lines.append(f"| {' | '.join([*cells, margin, _verdict_cell(one)])} |")
    return lines


def _verdict_cell(one: Judgement) -> str:
    needed = one.questions_to_decide
    if needed is None or math.isnan(needed):
        return one.verdict
    many = "no n would" if math.isinf(needed) else f"about {needed:,.0f} questions would"
    return f"{one.verdict}: {many}"

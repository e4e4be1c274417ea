"""Small drafts as estimators of the epistemic uncertainty of a pretrained model.

The claims are those of "Efficient Epistemic Uncertainty Estimation for LLMs via Knowledge
Distillation" (arXiv:2602.01956); the reference is TokUR's (arXiv:2505.11737).

    python studies/draft_eu.py --output runs/draft_eu               # SmolLM2-135M-Instruct
    python studies/draft_eu.py --output runs/smoke --smoke          # the shipped tiny model
    python studies/draft_eu.py --output runs/full --full --device cuda

The same command resumes. The plan is written first, then the parts run in the order of `WORK`;
`--parts` runs some, `--read` only writes the report. Sizes given here are kept in the plan.

Drafts begin as the first layers of the target, are distilled together on the clean target, and
then apart: OSD on disjoint data against the clean teacher on the same data. They learn from the
target's own answers to training questions of MAWPS and to those of SVAMP without a twin in MAWPS,
from the answer's tokens only. Questions that held-out KL, the choice of depth, the fitted lines
and the pilot use are training questions that no draft learns from. One training seed: what is
found holds for these checkpoints.

Hours on one thread of a 2.5 GHz core: responses .3, depth .3, start 1.9, arms 1.4, pilot .1,
primary .3, auroc .3, cost .2. A step with 12 layers takes 14 s, most of it for the examples in
the prompts.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from draft_cost import cost_ratio, cost_split
from draft_parts import (
    CHUNK,
    Sampled,
    held_out_kl,
    once,
    questions_of,
    sample,
    score,
    tokur,
    train,
    training_questions,
    with_steps,
)
from draft_reading import Kept, pilot, report
from plan import Comparison, Plan

from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.epistemic.drafts import draft_names
from lm_eval_ext.model_wrappers.sampled import SampledLM
from lm_eval_ext.training.drafts.settings import (
    DraftJob,
    OptimizationSettings,
    ResponseSettings,
    TeacherSettings,
)

ARMS = {"osd-disjoint": ("osd", "disjoint"), "clean-same": ("clean", "same")}


@dataclass(frozen=True)
class Settings:
    """What decides the results.

    Parameters
    ----------
    pretrained, dtype
        The target.
    task, train_tasks
        Of the questions judged on, and of those learned from, joined by "+".
    shots
        Solved examples before each question.
    stop, max_gen_toks, temperature, seed
        Of the responses.
    questions, attempts
        Test questions (0: all) and responses to each.
    reference, reference_samples
        Responses with TokUR's reference, and its M.
    train_questions, held_out
        Training questions learned from, of each task, and others kept for held-out figures.
    depths, depth_steps, depth_responses
        Numbers of first layers tried, the steps each gets, and the responses it is judged on.
    drafts, start_steps, steps, batch_size, start_rate, rate
        Drafts of an arm; steps that all share, and each arm's; responses per step; peak rates.
    cost_questions, cost_rounds
        Of the measurement of cost.
    margin
        Of log RMSE: -log(.9), ten percent lower.
    auroc_margin
        Within which AUROC matches the reference's.
    weak
        Nats of held-out KL above which drafts are too weak to decide anything.
    """

    pretrained: str = "smollm2"
    dtype: str = "float32"
    task: str = "mawps_singleop_passn"
    train_tasks: str = "mawps_train_passn+svamp_untwinned_passn"
    shots: int = 8
    stop: str = "Question:"
    max_gen_toks: int = 64
    temperature: float = 0.7
    seed: int = 1234
    questions: int = 250
    attempts: int = 4
    reference: int = 300
    reference_samples: int = 10
    train_questions: int = 450
    held_out: int = 50
    depths: tuple[int, ...] = (6, 12, 18)
    depth_steps: int = 30
    depth_responses: int = 20
    drafts: int = 3
    start_steps: int = 480
    steps: int = 60
    batch_size: int = 4
    start_rate: float = 1e-3
    rate: float = 3e-4
    cost_questions: int = 4
    cost_rounds: int = 2
    margin: float = 0.105
    auroc_margin: float = 0.05
    weak: float = 0.5


DEFAULT = Settings()
SMOKE = Settings(
    pretrained="tiny",
    task="tiny_gsm8k_passn",
    train_tasks="",
    max_gen_toks=48,
    questions=6,
    attempts=2,
    reference=8,
    reference_samples=3,
    train_questions=16,
    held_out=6,
    depths=(2, 4),
    depth_steps=2,
    depth_responses=4,
    drafts=2,
    start_steps=4,
    steps=2,
    cost_questions=2,
    cost_rounds=1,
)
FULL = Settings(
    questions=0, attempts=16, reference=2000, train_questions=10_000, start_steps=3000, steps=1000,
    depth_steps=200, batch_size=32,
)  # fmt: skip

LOWER_RMSE = "OSD on disjoint data has a tenth less RMSE to TokUR than clean drafts on all data"
BEATS_ENTROPY = "The drafts' estimate finds wrong answers better than the target's entropy"
MATCHES_TOKUR = "The drafts' estimate finds wrong answers as well as TokUR's"


def plan_of(settings: Settings) -> Plan:
    """Return the plan of the study."""
    method, baseline = ARMS
    rmse = Comparison(
        LOWER_RMSE,
        "log RMSE per token",
        method,
        baseline,
        margin=settings.margin,
        higher_is_better=False,
    )
    entropy = Comparison(BEATS_ENTROPY, "AUROC", method, "sum of the target's entropy")
    tokur_ = Comparison(
        MATCHES_TOKUR,
        "AUROC",
        method,
        "TokUR",
        margin=settings.auroc_margin,
        kind="equivalence",
    )
    return Plan("draft_eu", rmse, (entropy, tokur_), dataclasses.asdict(settings))


class Work:
    """The parts of the study, each of which can be interrupted and resumed.

    Parameters
    ----------
    settings
        Of the study.
    folder
        Its output.
    device
        As for lm-eval.
    """

    def __init__(self, settings: Settings, folder: Path, device: str | None) -> None:
        self.settings, self.folder = settings, folder
        self.arguments: dict[str, Any] = {
            "dtype": settings.dtype,
            "device": device,
            "seed": settings.seed,
            "batch_size": 64,
        }
        self.lm = SampledLM(settings.pretrained, **self.arguments)
        self.decoding = {
            "do_sample": True,
            "temperature": settings.temperature,
            "top_k": 0,
            "until": [settings.stop],
            "max_gen_toks": settings.max_gen_toks,
        }
        self.learned, self.held_out = training_questions(
            settings.train_tasks, settings.shots, settings.train_questions, settings.held_out
        )

    def responses(self) -> Kept:
        """Sample the responses that are judged on, and the held-out ones."""
        return Kept(self.test(), self.held())

    def test(self) -> Sampled:
        """Return the responses to test questions."""
        settings = self.settings
        asked = questions_of(settings.task, settings.questions or None, settings.shots)
        return sample(self.lm, self.folder / "test", asked, settings.attempts, **self.decoding)

    def held(self) -> Sampled:
        """Return the responses to held-out training questions, one each."""
        return sample(self.lm, self.folder / "held-out", self.held_out, 1, **self.decoding)

    def job(self) -> DraftJob:
        """Return the training that all drafts share, but for its steps, teacher and split."""
        settings = self.settings
        prompts = self.folder / "prompts.jsonl"
        lines = [json.dumps({"prompt": prompt}) for prompt in self.learned]
        prompts.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return DraftJob(
            pretrained=settings.pretrained,
            draft_init=f"first:{settings.depths[0]}",
            num_drafts=1,
            problems=str(prompts),
            split="same",
            seed=settings.seed,
            dtype=settings.dtype,
            responses=ResponseSettings(
                temperature=settings.temperature,
                max_new_tokens=settings.max_gen_toks,
                stop=(settings.stop,),
            ),
            teacher=TeacherSettings(teacher="clean"),
            optimization=OptimizationSettings(
                batch_size=settings.batch_size, learning_rate=settings.start_rate
            ),
        )

    def depth(self) -> int:
        """Choose how many of the target's layers a draft has: the one with the lowest KL."""
        settings = self.settings
        depths = [n for n in settings.depths if n <= self.lm.model.config.num_hidden_layers]
        judged_on = self.held().attempts[: settings.depth_responses]
        first = self.folder / "depth" / f"{depths[0]}"

        def kl(depth: int) -> float:
            folder = self.folder / "depth" / f"{depth}"
            job = with_steps(self.job(), settings.depth_steps, draft_init=f"first:{depth}")
            train(job, folder, first)
            (values,) = held_out_kl(self.lm, folder, judged_on)
            return sum(values) / len(values)

        found = {
            depth: once(self.folder / "depth" / f"{depth}.json", lambda d=depth: kl(d))  # type: ignore[misc]
            for depth in depths
        }
        return min(found, key=found.__getitem__)

    def start(self) -> None:
        """Distil the start that all drafts share."""
        job = with_steps(self.job(), self.settings.start_steps, draft_init=f"first:{self.depth()}")
        train(job, self.folder / "start", self.folder / "depth" / f"{self.settings.depths[0]}")

    def arms(self) -> None:
        """Train the drafts of both arms, and measure their held-out KL to the target."""
        settings = self.settings
        start, held = self.folder / "start", self.held().attempts
        for name, (teacher, split) in ARMS.items():
            job = with_steps(
                self.job(),
                settings.steps,
                draft_init=str(start / "draft-0"),
                num_drafts=settings.drafts,
                split=split,
                teacher=TeacherSettings(teacher=teacher),  # type: ignore[arg-type]
            )
            rate = replace(job.optimization, learning_rate=settings.rate)
            train(replace(job, optimization=rate), self.folder / name, start)
            once(
                self.folder / f"kl-{name}.json",
                lambda name=name: held_out_kl(self.lm, self.folder / name, held),  # type: ignore[misc]
            )

    def pilot(self) -> None:
        """Score held-out responses: the fitted lines, and what the study will be able to see."""
        reference = tokur(self.lm, self.settings.reference_samples, self.settings.seed)
        scores = self.folder / "scores"
        held = self.held()
        score(self.lm, held, scores / "held-out-reference", reference=reference)
        for name in ARMS:
            score(self.lm, held, scores / f"held-out-{name}", self.folder / name)
        pilot(plan_of(self.settings), self.folder, self.responses())

    def primary(self) -> None:
        """Score the first responses by the reference and by both arms."""
        n = -(-self.settings.reference // CHUNK) * CHUNK  # whole files, which `auroc` adds to
        first = self.test().first(n)
        reference = tokur(self.lm, self.settings.reference_samples, self.settings.seed)
        score(self.lm, first, self.folder / "scores" / "test-reference", reference=reference)
        self._arms_on_test(first)

    def auroc(self) -> None:
        """Score the other responses by both arms."""
        self._arms_on_test(self.test())

    def _arms_on_test(self, sampled: Sampled) -> None:
        for name in ARMS:
            score(self.lm, sampled, self.folder / "scores" / f"test-{name}", self.folder / name)

    def cost(self) -> None:
        """Measure the time of ``draft-eu`` over that of ``sampled``."""
        settings = self.settings
        drafts = draft_names(str(self.folder / next(iter(ARMS))))
        asked = questions_of(settings.task, 4 * settings.cost_questions, settings.shots)
        prompts = [one.prompt for one in asked]
        few = prompts[: settings.cost_questions]
        for n in (16, 1):
            for k in (settings.drafts, 1):
                once(
                    self.folder / "cost" / f"n{n}-k{k}.json",
                    lambda n=n, k=k: cost_ratio(  # type: ignore[misc]
                        settings.pretrained, drafts[:k], few if n > 1 else prompts, n,
                        self.arguments, self.decoding, settings.cost_rounds,
                    ),
                )  # fmt: skip
        once(
            self.folder / "cost" / "split.json",
            lambda: cost_split(
                self.lm, self.folder / next(iter(ARMS)), self.test().attempts[:16],
                settings.cost_rounds,
            ),
        )  # fmt: skip


WORK = ("responses", "depth", "start", "arms", "pilot", "primary", "auroc", "cost")
"""The parts, in order: each is a method of `Work`."""


def main(arguments: list[str] | None = None) -> None:
    """Run the parts that are missing, and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder; the same one resumes")
    parser.add_argument("--smoke", action="store_true", help="a minute's run on tiny")
    parser.add_argument("--full", action="store_true", help="all questions, long trainings")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (%(default)s)")
    parser.add_argument("--parts", default=",".join(WORK), help="parts to run (%(default)s)")
    parser.add_argument("--read", action="store_true", help="run nothing, write the report")
    for field in dataclasses.fields(Settings):
        if isinstance(field.default, (str, int, float)):
            parser.add_argument(f"--{field.name}", type=type(field.default))
    args = parser.parse_args(arguments)
    preset = SMOKE if args.smoke else FULL if args.full else DEFAULT
    given = {
        field.name: value
        for field in dataclasses.fields(Settings)
        if (value := getattr(args, field.name, None)) is not None
    }
    settings = replace(preset, **given)
    parts = [] if args.read else args.parts.split(",")
    unknown = [part for part in parts if part not in WORK]
    if unknown:
        raise UserError(f"--parts={unknown[0]} is not one of {', '.join(WORK)}")
    plan = plan_of(settings)
    plan.keep(args.output)
    work = Work(settings, args.output, args.device)
    for part in WORK:
        if part in parts:
            action: Callable[[], object] = getattr(work, part)
            action()
            (args.output / "done").mkdir(exist_ok=True)
            (args.output / "done" / part).touch()
    kept = work.responses() if (args.output / "done" / "responses").exists() else None
    print(report(plan, args.output, WORK, tuple(ARMS), kept, dataclasses.asdict(DEFAULT)))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from error

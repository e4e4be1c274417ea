"""Does the sink score find the heads that can go? Pruning by BOS sinks, on a pretrained model.

The claim is that of "Garbage Attention in Large Language Models: BOS Sink Heads and Sink-aware
Pruning" (arXiv:2601.06787).

    python studies/bos_sinks.py --output runs/bos_sinks              # SmolLM2-135M-Instruct
    python studies/bos_sinks.py --output runs/smoke --smoke          # the shipped tiny model
    python studies/bos_sinks.py --output runs/full --full --device cuda

The same command resumes. The plan is written first (`plan.md`), then the pilot, then the parts in
the order of `WORK`: the primary comparison comes first, and what may be cut comes last. `--parts`
runs only some, `--read` only writes the report. Sizes given here are kept in the plan, and a
resumed study must have the same.

Texts: GSM8K and MATH problems with their solutions. Heads are scored on the part `calibration`,
the best weight-based and the best activation-based criterion are chosen on `choice`, and all is
judged on `test`. Intervals are over texts, whose tokens are not independent.

Hours on one thread of a 2.5 GHz core, at 285 tokens/s: scores .02, choice .07, primary .3, lengths
.05, quarter .25, spared .04, alone .6, ratios .5, blocks .55, export .05, piqa .6, singleop 1.2.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lm_eval.tasks import TaskManager
from plan import Comparison, Plan
from sink_parts import Bench, Texts, texts_of
from sink_reading import best_criteria, pilot, report

from lm_eval_ext.commands.prune.subject import Subject
from lm_eval_ext.commands.prune.sweep import RANDOM
from lm_eval_ext.commands.prune.task_values import TaskRunner
from lm_eval_ext.data.datasets import DATA_VARIABLE
from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.sinks.block_layout import find_layout
from lm_eval_ext.methods.sinks.criteria import BLOCK_CRITERIA, HEAD_CRITERIA
from lm_eval_ext.methods.sinks.plan import PruningSettings
from lm_eval_ext.methods.sinks.sink_scores import SinkConvention
from lm_eval_ext.model_wrappers.sink_pruned import SinkPrunedLM

WEIGHT_BASED = ("magnitude",)
ACTIVATION_BASED = ("wanda", "wanda_per_layer", "ahon", "ahon_ln")
PIQA_FILE = "piqa_validation.jsonl"
TASKS_FOLDER = Path(__file__).parent / "tasks"


@dataclass(frozen=True)
class Settings:
    """What decides the results.

    Parameters
    ----------
    pretrained, dtype
        The model.
    calibration, choice, tokens, longest
        See `Texts`.
    ratio
        Share of the heads that the primary comparison removes.
    second_ratio, other_ratios, block_ratios
        Further shares.
    seeds
        Of the random criterion.
    spared
        Blocks after the first that the further row leaves alone.
    alone_tokens
        Tokens that each head is ablated on.
    lengths, segments
        Prompt lengths to score at, over how many segments of the longest.
    choice_task, choice_questions
        Task of loglikelihoods, "" to leave it out, and its questions (0: all).
    task, questions, attempts, max_gen_toks
        Task of generations, its questions (0: all), attempts at each, and their most tokens.
    repeats
        Of each timing of an exported model.
    seed
        Of the attempts.
    margin
        Nats per token by which the sink criterion's loss must be lower.
    rank_margin
        By which the rank correlation over lengths may be below 1.
    """

    pretrained: str = "smollm2"
    dtype: str = "float32"
    calibration: int = 64
    choice: int = 50
    tokens: int = 20_000
    longest: int = 512
    ratio: float = 0.125
    second_ratio: float = 0.25
    other_ratios: tuple[float, ...] = (0.0625, 0.5)
    block_ratios: tuple[float, ...] = (0.125, 0.25, 0.0625)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    spared: int = 11
    alone_tokens: int = 2_000
    lengths: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)
    segments: int = 16
    choice_task: str = "piqa"
    choice_questions: int = 300
    task: str = "mawps_singleop_passn"
    questions: int = 200
    attempts: int = 4
    max_gen_toks: int = 64
    repeats: int = 5
    seed: int = 1234
    margin: float = 0.02
    rank_margin: float = 0.1


DEFAULT = Settings()
SMOKE = Settings(
    pretrained="tiny",
    calibration=16,
    choice=16,
    other_ratios=(0.5,),
    block_ratios=(0.25,),
    seeds=(0, 1),
    spared=1,
    alone_tokens=500,
    lengths=(16, 32, 64),
    segments=8,
    choice_task="",
    task="tiny_gsm8k_passn",
    questions=2,
    attempts=2,
    repeats=1,
)
FULL = Settings(tokens=10**9, longest=2048, choice_questions=0, questions=0, attempts=64)

SINK_WINS = "Pruning by the sink score costs less than by the best {} criterion"
SAME_RANKS = "Heads rank alike by sink score at the shortest and at the longest length"


def plan_of(settings: Settings) -> Plan:
    """Return the plan of the study: its claim holds if both of the first two comparisons do."""

    def wins(kind: str, names: tuple[str, ...]) -> Comparison:
        return Comparison(
            SINK_WINS.format(kind),
            f"log-perplexity at {settings.ratio:.1%} of heads",
            "sink",
            f"best of {', '.join(names)} on the texts of choice",
            margin=settings.margin,
            higher_is_better=False,
        )

    lengths = settings.lengths
    ranks = Comparison(
        SAME_RANKS,
        "rank correlation of heads",
        f"{lengths[0]} with {lengths[-1]} tokens",
        f"{lengths[-1]} with itself",
        margin=settings.rank_margin,
        kind="equivalence",
    )
    return Plan(
        study="bos_sinks",
        primary=wins("activation-based", ACTIVATION_BASED),
        secondary=(wins("weight-based", WEIGHT_BASED), ranks),
        settings=dataclasses.asdict(settings),
    )


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
        sizes = Texts(settings.calibration, settings.choice, settings.tokens, settings.longest)
        lm = SinkPrunedLM(
            settings.pretrained,
            ratio=0,
            dtype=settings.dtype,
            device=device,
            seed=settings.seed,
            batch_size=64,
            store=folder / "attempts",
        )
        texts = texts_of(lm, settings.pretrained, "calibration", sizes)
        subject = Subject(
            lm, find_layout(lm.model), texts, settings.pretrained, SinkConvention("all", "zero")
        )
        self.bench = Bench(subject, folder, sizes)

    def scores(self) -> None:
        """Score heads and blocks by every criterion, on the calibration texts."""
        self.bench.scores(self.settings.seed)

    def choice(self) -> None:
        """Choose the best criterion of each kind, and note what the study will be able to see."""
        names = ("sink", *WEIGHT_BASED, *ACTIVATION_BASED)
        cells = [PruningSettings(ratio=self.settings.ratio, criterion=name) for name in names]
        self.bench.cells("choice", cells, text=self.bench.text("choice"))
        best = best_criteria(self.folder, (WEIGHT_BASED, ACTIVATION_BASED), self.settings.ratio)
        pilot(plan_of(self.settings), self.folder, best, len(self.bench.text("test").prompts))

    def primary(self) -> None:
        """Measure log-perplexity at the primary ratio: the compared criteria first."""
        chosen = best_criteria(self.folder, (WEIGHT_BASED, ACTIVATION_BASED), self.settings.ratio)
        self._heads(self.settings.ratio, first=("sink", *chosen))

    def lengths(self) -> None:
        """Score heads over several prompt lengths."""
        self.bench.lengths(self.settings.lengths, self.settings.segments)

    def quarter(self) -> None:
        """Measure log-perplexity at the second ratio."""
        self._heads(self.settings.second_ratio)

    def spared(self) -> None:
        """Measure the sink criterion with the first blocks left alone."""
        cells = [
            PruningSettings(ratio=ratio, criterion="sink", skip_first=self.settings.spared)
            for ratio in (self.settings.ratio, self.settings.second_ratio)
        ]
        self.bench.cells("spared", cells, text=self.bench.text("test"))

    def alone(self) -> None:
        """Measure the loss without each head alone."""
        self.bench.single_heads(self.settings.alone_tokens)

    def ratios(self) -> None:
        """Measure log-perplexity at the other ratios."""
        for ratio in self.settings.other_ratios:
            self._heads(ratio)

    def blocks(self) -> None:
        """Measure log-perplexity without whole blocks."""
        for ratio in self.settings.block_ratios:
            cells = self._settings("block", tuple(BLOCK_CRITERIA), ratio)
            self.bench.cells("blocks", cells, text=self.bench.text("test"))

    def piqa(self) -> None:
        """Measure accuracy on a task of loglikelihoods."""
        if self.settings.choice_task:
            name, folder = local_if_there(self.settings.choice_task)
            manager = TaskManager(include_path=folder)
            self._task("piqa", TaskRunner(name, self.settings.choice_questions or None, manager))

    def singleop(self) -> None:
        """Measure pass@1 on generated attempts."""
        settings = self.settings
        manager = TaskManager(
            metadata={"attempts": settings.attempts, "ks": [1, settings.attempts]}
        )
        limit = f"max_gen_toks={settings.max_gen_toks}"
        self._task(
            "singleop", TaskRunner(settings.task, settings.questions or None, manager, limit)
        )

    def export(self) -> None:
        """Measure speed and size of models with parts cut out."""
        cells = [
            PruningSettings(
                ratio=ratio, unit=unit, allocation="global" if unit == "block" else "even"
            )
            for unit in ("block", "head", "kv_group")
            for ratio in (self.settings.ratio, self.settings.second_ratio)
        ]
        self.bench.export(cells, self.settings.repeats)

    def _heads(self, ratio: float, *, first: tuple[str, ...] = ()) -> None:
        names = tuple(dict.fromkeys((*first, *HEAD_CRITERIA)))
        cells = self._settings("head", names, ratio)
        self.bench.cells("heads", cells, text=self.bench.text("test"))

    def _settings(self, unit: str, names: tuple[str, ...], ratio: float) -> list[PruningSettings]:
        """Return cells of all criteria, the random one last."""
        return [
            PruningSettings(ratio=ratio, unit=unit, criterion=name, seed=seed)
            for name in (*(n for n in names if n != RANDOM), RANDOM)
            for seed in (self.settings.seeds if name == RANDOM else (0,))
        ]

    def _task(self, part: str, runner: TaskRunner) -> None:
        for ratio in (self.settings.ratio, self.settings.second_ratio):
            cells = self._settings("head", tuple(HEAD_CRITERIA), ratio)
            self.bench.cells(part, cells, tasks=runner)


WORK = (
    "scores", "choice", "primary", "lengths", "quarter", "spared", "alone", "ratios", "blocks",
    "export", "piqa", "singleop",
)  # fmt: skip
"""The parts, in order: each is a method of `Work`."""


def local_if_there(task: str) -> tuple[str, Path | None]:
    """Return lm-eval's task, or for PIQA the same over a local file where there is one."""
    folder = os.environ.get(DATA_VARIABLE)
    if task == "piqa" and folder and (Path(folder).expanduser() / PIQA_FILE).is_file():
        return "piqa_published", TASKS_FOLDER
    return task, None


def main(arguments: list[str] | None = None) -> None:
    """Run the parts that are missing, and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder; the same one resumes")
    parser.add_argument("--smoke", action="store_true", help="a minute's run on tiny")
    parser.add_argument("--full", action="store_true", help="whole test sets and 64 attempts")
    parser.add_argument("--device", help="cpu or cuda (the GPU if there is one)")
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
    settings = dataclasses.replace(preset, **given)
    parts = args.parts.split(",")
    unknown = [part for part in parts if part not in WORK]
    if unknown:
        raise UserError(f"--parts={unknown[0]} is not one of {', '.join(WORK)}")
    plan = plan_of(settings)
    plan.keep(args.output)
    if not args.read:
        work = Work(settings, args.output, args.device)
        for part in WORK:
            if part in parts:
                action: Callable[[], None] = getattr(work, part)
                action()
                (args.output / "done").mkdir(exist_ok=True)
                (args.output / "done" / part).touch()
    print(report(plan, args.output, WORK, (WEIGHT_BASED, ACTIVATION_BASED), DEFAULT))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from error

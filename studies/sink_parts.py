"""The measurements of the study of BOS sinks: texts, cells, single heads, lengths, export.

Everything measured is a small JSON file in the study's folder; what is there is not measured again.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from lm_eval_ext.commands.prune.perplexity import token_nll
from lm_eval_ext.commands.prune.score import all_scores
from lm_eval_ext.commands.prune.subject import Subject
from lm_eval_ext.commands.prune.sweep import RANDOM, measure
from lm_eval_ext.commands.prune.sweep_table import DENSE
from lm_eval_ext.commands.prune.task_values import TaskRunner
from lm_eval_ext.data.datasets import MATH_SUBJECTS, load_split
from lm_eval_ext.errors import UserError
from lm_eval_ext.harness import requests as harness
from lm_eval_ext.methods.sinks.calibration_data import TINY, CalibrationSet, calibration_set
from lm_eval_ext.methods.sinks.masks import pruned
from lm_eval_ext.methods.sinks.padded_batches import batches
from lm_eval_ext.methods.sinks.plan import PruningPlan, PruningSettings, make_plan
from lm_eval_ext.methods.sinks.probe import plain_forward
from lm_eval_ext.methods.sinks.scores_file import read_scores, scores_report
from lm_eval_ext.methods.sinks.selection import Removal
from lm_eval_ext.methods.sinks.sink_scores import SinkConvention, score_sinks
from lm_eval_ext.methods.sinks.statistics import CalibrationStatistics, collect_statistics
from lm_eval_ext.methods.sinks.structural import shrink
from lm_eval_ext.model_wrappers.sink_pruned import SinkPrunedLM
from lm_eval_ext.training.run import write_json

SCORES = "sink_scores.json"
PARTS = ("calibration", "choice", "test")
"""Three sets of texts that share none: to score heads, to choose criteria, to judge by."""

_TINY_SPLITS = {"calibration": "validation", "choice": "train", "test": "test"}
_CALCULATOR = re.compile(r"<<[^<>]*>>")


class Texts(NamedTuple):
    """How many texts of each part, and how long they may be.

    Parameters
    ----------
    calibration, choice
        Texts.
    tokens
        Tokens of the part ``test`` in all, reached by whole texts.
    longest
        Tokens; longer texts are left out, since a cut one has another last sentence.
    """

    calibration: int
    choice: int
    tokens: int
    longest: int


def once(path: Path, compute: Callable[[], Any]) -> Any:
    """Return what an earlier run wrote, or compute and write it."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, compute())
    return json.loads(path.read_text(encoding="utf-8"))


def published_texts(part: str) -> Iterator[str]:
    """Yield problems of GSM8K and MATH in turn, each with its solution.

    GSM8K is judged on its test split. Of MATH there is one split that all sources have; a hash of
    the problem puts each in one of the parts, and gives the order.
    """
    split = "test" if part == "test" else "train"
    gsm8k = [(row["question"], row["answer"]) for row in load_split("gsm8k", split)]
    math = [
        (row["problem"], row["solution"])
        for subject in MATH_SUBJECTS
        for row in load_split(f"math_{subject}", "test")
    ]
    columns = [
        sorted(
            (digest, f"{problem}\n{_CALCULATOR.sub('', solution)}")
            for problem, solution in rows
            if (digest := hashlib.sha256(problem.encode()).hexdigest())
            and PARTS[int(digest, 16) % len(PARTS)] == part
        )
        for rows in (gsm8k, math)
    ]
    return (row[1] for row in chain.from_iterable(zip_longest(*columns)) if row is not None)


def texts_of(lm: SinkPrunedLM, pretrained: str, part: str, sizes: Texts) -> CalibrationSet:
    """Return the texts of a part as tokens, with what identifies them."""
    wanted = {"calibration": sizes.calibration, "choice": sizes.choice}.get(part)
    if pretrained.startswith(TINY):
        return calibration_set(lm, f"{TINY}:{_TINY_SPLITS[part]}", size=wanted or 40)
    chosen: list[tuple[int, ...]] = []
    for text in published_texts(part):
        tokens = tuple(harness.prompt_tokens(lm, text))
        if len(tokens) <= sizes.longest:
            chosen.append(tokens)
        if len(chosen) == wanted or (not wanted and sum(map(len, chosen)) >= sizes.tokens):
            break
    record = {
        "source": f"GSM8K and MATH, {part}",
        "sha256": hashlib.sha256(json.dumps(chosen).encode()).hexdigest(),
        "n_prompts": len(chosen),
        "n_tokens": sum(map(len, chosen)),
        "token_0_id": chosen[0][0],
        "token_0": "the first of the text" if not lm.add_bos_token else "BOS",
        "token_0_share": sum(one[0] == chosen[0][0] for one in chosen) / len(chosen),
        "add_bos_token": lm.add_bos_token,
    }
    return CalibrationSet(tuple(chosen), record)


class Bench:
    """A model, its texts, and the folder that keeps what was measured of it.

    Parameters
    ----------
    subject
        The model, unpruned, with the calibration texts.
    folder
        The study's output.
    sizes
        Of the texts.
    """

    def __init__(self, subject: Subject, folder: Path, sizes: Texts) -> None:
        self.subject, self.folder, self.sizes = subject, folder, sizes
        self._texts = {"calibration": subject.calibration}

    def text(self, part: str) -> CalibrationSet:
        """Return the texts of a part, and note how long each is beside the measurements."""
        if part not in self._texts:
            self._texts[part] = texts_of(self.subject.lm, self.subject.pretrained, part, self.sizes)
        found = self._texts[part]
        once(
            self.folder / "texts" / f"{part}.json",
            lambda: {**found.record, "predicted_tokens": [len(t) - 1 for t in found.prompts]},
        )
        return found

    def scores(self, seed: int) -> None:
        """Score all heads and blocks by every criterion."""

        def compute() -> dict[str, Any]:
            subject = self.subject
            found = collect_statistics(
                subject.lm.model, self.text("calibration").prompts, {"sinks", "outputs", "blocks"}
            )
            assert found.sinks is not None
            return scores_report(
                subject.layout,
                all_scores(subject, found, seed),
                pretrained=subject.pretrained,
                calibration=subject.calibration.record,
                sinks=found.sinks,
                convention=SinkConvention(),
            )

        once(self.folder / SCORES, compute)

    def plan(self, settings: PruningSettings) -> PruningPlan:
        """Decide what a cell removes, from the scores that were kept."""
        scores = None
        if settings.ratio and settings.criterion != RANDOM:
            path = self.folder / SCORES
            scores = read_scores(path, settings.criterion, settings.unit)[0]
        return make_plan(self.subject.layout, settings, CalibrationStatistics(), scores=scores)

    def cells(
        self,
        name: str,
        wanted: Sequence[PruningSettings],
        *,
        text: CalibrationSet | None = None,
        tasks: TaskRunner | None = None,
    ) -> None:
        """Measure the dense model and some pruned ones into a folder, in order."""
        plans = {
            self.folder / name / cell_name(settings): self.plan(settings)
            for settings in (PruningSettings(ratio=0.0), *wanted)
        }
        runner = tasks or TaskRunner("", None)
        missing = {path: plan for path, plan in plans.items() if not path.exists()}
        for path, plan in tqdm(missing.items(), desc=name, unit="cell"):
            once(path, lambda plan=plan: measure(self.subject, plan, text, runner))  # type: ignore[misc]

    def single_heads(self, n_tokens: int) -> None:
        """Measure the loss without each head alone, a file per layer."""
        prompts, total = [], 0
        for prompt in self.text("test").prompts:
            if total < n_tokens:
                prompts.append(prompt)
                total += len(prompt)
        model, layout = self.subject.lm.model, self.subject.layout

        def losses(removal: Removal) -> list[float]:
            with pruned(model, removal):
                return [float(values.sum()) for values in token_nll(model, prompts)]

        folder = self.folder / "alone"
        once(
            folder / "dense.json",
            lambda: {"loss": losses(Removal()), "tokens": [len(p) - 1 for p in prompts]},
        )
        for layer in tqdm(range(layout.n_layers), desc="single heads", unit="layer"):
            once(
                folder / f"layer-{layer:02d}.json",
                lambda layer=layer: [  # type: ignore[misc]
                    losses(Removal(heads=((layer, head),))) for head in range(layout.n_heads)
                ],
            )

    def lengths(self, lengths: Sequence[int], n_segments: int) -> None:
        """Score heads over several lengths of the same segments of text."""
        prompts = self.text("calibration").prompts
        if not self.subject.pretrained.startswith(TINY):
            wider = self.sizes._replace(calibration=50 * n_segments * lengths[-1] // 2048)
            prompts = texts_of(
                self.subject.lm, self.subject.pretrained, "calibration", wider
            ).prompts
        stream = [token for prompt in prompts for token in prompt]
        longest = lengths[-1]
        segments = [stream[i : i + longest] for i in range(0, len(stream), longest)][:n_segments]
        if len(segments[-1]) < longest:
            segments.pop()
        if len(segments) < 2:
            raise UserError(f"lengths={lengths}: fewer than two segments of text are that long")
        once(
            self.folder / "lengths.json",
            lambda: {
                "lengths": list(lengths),
                "by_segment": [
                    score_sinks(
                        self.subject.lm.model, [segment], lengths=lengths
                    ).by_length.tolist()
                    for segment in tqdm(segments, desc="lengths", unit="segment")
                ],
            },
        )

    def export(self, wanted: Sequence[PruningSettings], repeats: int) -> None:
        """Measure how fast and how large the model is with parts cut out for good."""
        once(self.folder / "export" / "dense.json", lambda: self._export_row(None, repeats))
        for settings in wanted:
            once(
                self.folder / "export" / f"{settings.unit}_{settings.ratio:g}.json",
                lambda s=settings: self._export_row(s, repeats),  # type: ignore[misc]
            )

    def _export_row(self, settings: PruningSettings | None, repeats: int) -> dict[str, Any]:
        dense = self.subject.lm.model
        row: dict[str, Any] = {
            "unit": DENSE,
            "ratio": 0.0,
            **speed_and_size({DENSE: dense}, repeats)[DENSE],
        }
        if settings is None:
            return row
        row |= {"unit": settings.unit, "ratio": settings.ratio}
        try:
            plan = self.plan(settings)
            if not plan.removal:
                raise UserError(f"ratio={settings.ratio} of this model's groups rounds to none")
            smaller = shrink(copy.deepcopy(dense), plan.removal)
        except UserError as error:
            return {**row, "refused": str(error)}
        # Dense and smaller take turns, so that other work on the machine slows both alike.
        found = speed_and_size({DENSE: dense, "smaller": smaller}, repeats)
        return row | {
            **found["smaller"],
            "removed_heads": len(plan.removal.heads),
            "removed_blocks": len(plan.removal.blocks),
            "reading_ratio": found["smaller"]["reading"] / found[DENSE]["reading"],
            "writing_ratio": found["smaller"]["writing"] / found[DENSE]["writing"],
        }


def cell_name(settings: PruningSettings) -> str:
    """Return the name of a cell's file, which says all that the cells of a folder differ in.

    Examples
    --------
    >>> cell_name(PruningSettings(ratio=0.25, criterion="random", seed=3))
    'random_0.25_3.json'
    """
    if not settings.ratio:
        return f"{DENSE}.json"
    ending = f"_{settings.seed}" if settings.criterion == RANDOM else ""
    return f"{settings.criterion}_{settings.ratio:g}{ending}.json"


@torch.inference_mode()
def speed_and_size(models: dict[str, PreTrainedModel], repeats: int) -> dict[str, dict[str, Any]]:
    """Return tokens per second, reading 256 and writing 16 after them, and bytes of weights."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(100, 500, (1, 256), generator=generator)
    n_new = 16
    (batch,) = batches(ids.tolist())

    def read(model: PreTrainedModel) -> None:
        plain_forward(model, batch.input_ids, batch.attention_mask)

    def write(model: PreTrainedModel) -> None:
        inputs = ids.to(model.device)
        model.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=n_new,
            min_new_tokens=n_new,
            do_sample=False,
            pad_token_id=0,
        )

    seconds: dict[tuple[str, str], list[float]] = {}
    for round_ in range(repeats + 1):  # the first is a warm-up
        for name, model in models.items():
            for what, action in (("reading", read), ("writing", write)):
                started = time.perf_counter()
                action(model)
                if round_:
                    spent = time.perf_counter() - started
                    seconds.setdefault((name, what), []).append(spent)
    return {
        name: {
            "reading": ids.numel() / statistics.median(seconds[name, "reading"]),
            "writing": n_new / statistics.median(seconds[name, "writing"]),
            "parameters": model.num_parameters(),
            "bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
        }
        for name, model in models.items()
    }

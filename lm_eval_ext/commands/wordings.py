"""``lm-eval-ext wordings``: ask a model about the attempts of a finished run in four wordings.

How good a self-evaluation is depends on how the question is worded; one wording says little about
the model. The attempts are not sampled again.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lm_eval_ext.checks import option, required
from lm_eval_ext.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from lm_eval.models.huggingface import HFLM
    from numpy.typing import NDArray

    from lm_eval_ext.methods.self_evaluation.template import SelfEvalTemplate

METRICS = ("ece", "brier", "auroc", "within_question_auroc")
_TOKENS_PER_PASS = 8192


@dataclass(frozen=True, kw_only=True)
class WordingsOptions:
    """Ask a model about the attempts of a finished run in four wordings of the question.

    Prints ECE, Brier score and AUROC of each, their mean and their standard deviation.

    Example: lm-eval-ext wordings --run runs/epicar --pretrained tiny-epicar
    """

    run: Path = required("folder of an lm_eval run (--output_path) with --log_samples")
    pretrained: str = required("the model that judges: Hub id, folder or shipped model")
    model_args: str = option("more arguments, as for lm_eval --model sampled", "")
    tasks: tuple[str, ...] = option("only these tasks of the run", ())
    limit: int | None = option("questions per task; by default all")
    output: Path | None = option("also write JSON to this file")


class Judged(NamedTuple):
    """The attempts of a run: prompt and response of each, its verdict, number of its question."""

    texts: list[tuple[str, str]]
    correct: list[bool]
    questions: list[int]


def run(options: WordingsOptions) -> int:
    """Ask, print the table and write the figures."""
    from lm_eval_ext.harness.requests import parse_model_args
    from lm_eval_ext.leaderboard.console import Column, print_table, table_console
    from lm_eval_ext.methods.self_evaluation.template import WORDINGS
    from lm_eval_ext.model_wrappers.sampled import SampledLM

    judged = read_attempts(options)
    lm = SampledLM(options.pretrained, **parse_model_args(options.model_args))
    rows = [_quality(confidences(lm, template, judged.texts), judged) for template in WORDINGS]
    found = summary(rows)
    columns = [
        Column(name, [f"{row[name]:.3f}" for row in (*rows, *found.values())]) for name in METRICS
    ]
    names = [Column("wording", [*(one.prompt for one in WORDINGS), *found], is_name=True)]
    print_table(table_console(), names, [[columns]], title=f"{len(judged.correct)} attempts")
    if options.output is not None:
        wordings = [{**asdict(one), **row} for one, row in zip(WORDINGS, rows, strict=True)]
        record = {"pretrained": options.pretrained, "wordings": wordings, **found}
        options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


def read_attempts(options: WordingsOptions) -> Judged:
    """Return the attempts of the newest run below a folder.

    Raises
    ------
    UserError
        If there are none, or their texts lack the thought.
    """
    from lm_eval_ext.leaderboard.run_files import attempt_texts, newest_run, read_samples

    files, judged = newest_run(options.run), Judged([], [], [])
    unknown = set(options.tasks) - files.samples.keys()
    if unknown:
        raise UserError(
            f"--tasks={','.join(sorted(unknown))}: the run has {', '.join(files.samples)}"
        )
    for task in options.tasks or files.samples:
        for sample in list(read_samples(files.samples[task]))[: options.limit]:
            details = sample.get("attempts") or []
            if any("unfinished_thought" in one for one in details):
                raise UserError(
                    f"--run={options.run}: attempts with thoughts, whose text samples of lm_eval "
                    "lack; use --model epicar with another self_eval_prompt instead"
                )
            prompt = sample["arguments"]["gen_args_0"]["arg_0"]
            number = judged.questions[-1] + 1 if judged.questions else 0
            for text, one in zip(attempt_texts(sample), details, strict=False):
                judged.texts.append((prompt, text))
                judged.correct.append(bool(one["correct"]))
                judged.questions.append(number)
    if not judged.correct:
        raise UserError(f"--run={options.run}: no logged attempts; run lm_eval with --log_samples")
    return judged


def confidences(
    lm: HFLM, template: SelfEvalTemplate, texts: Sequence[tuple[str, str]]
) -> NDArray[np.float64]:
    """Return the confidence that the model has in each response to its prompt."""
    import numpy as np
    import torch
    from tqdm import tqdm

    from lm_eval_ext.engine.teacher_forcing import following_logits
    from lm_eval_ext.harness.requests import autocast, prompt_tokens
    from lm_eval_ext.methods.self_evaluation.confidence import confidence
    from lm_eval_ext.methods.self_evaluation.layout import SelfEvalLayout

    layout = SelfEvalLayout(lm.tokenizer, template, max_length=int(lm.max_length))
    prompts = {prompt: prompt_tokens(lm, prompt) for prompt, _ in texts}
    contexts = {pair: layout.context_ids(prompts[pair[0]], pair[1]) for pair in texts}
    waiting = sorted(contexts, key=lambda pair: len(contexts[pair]))
    values: dict[tuple[str, str], float] = {}
    with tqdm(total=len(waiting), desc=template.prompt[:30], unit="response") as progress:
        while waiting:
            n = max(
                1,
                sum((i + 1) * len(contexts[p]) <= _TOKENS_PER_PASS for i, p in enumerate(waiting)),
            )
            part, waiting = waiting[:n], waiting[n:]
            with torch.inference_mode(), autocast(lm):
                logits = following_logits(lm.model, [contexts[pair] for pair in part])
            for pair, row in zip(
                part, logits[:, list(layout.label_ids)].float().tolist(), strict=True
            ):
                values[pair] = confidence(*row)
            progress.update(len(part))
    return np.array([values[pair] for pair in texts])


def summary(rows: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return the mean and the standard deviation of each metric over wordings.

    Examples
    --------
    >>> rows = [dict.fromkeys(METRICS, value) for value in (0.1, 0.3)]
    >>> {name: round(row["ece"], 4) for name, row in summary(rows).items()}
    {'mean': 0.2, 'standard deviation': 0.1414}
    """
    from statistics import mean, stdev

    return {
        name: {metric: float(of([row[metric] for row in rows])) for metric in METRICS}
        for name, of in (("mean", mean), ("standard deviation", stdev))
    }


def _quality(confidence: NDArray[np.float64], judged: Judged) -> dict[str, float]:
    import numpy as np

    from lm_eval_ext import metrics

    correct = np.array(judged.correct, dtype=float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", metrics.UndefinedMetricWarning)
        return {
            "ece": float(metrics.ece(confidence, correct)),
            "brier": float(metrics.brier(confidence, correct)),
            "auroc": float(metrics.auroc(correct, confidence=confidence)),
            "within_question_auroc": float(
                metrics.within_question_auroc(
                    correct, confidence=confidence, clusters=np.array(judged.questions)
                )
            ),
        }

"""The loop: in every round the phases one after the other, each a process, each continued."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lm_eval_ext.errors import UserError
from lm_eval_ext.models.model_loading import readable_load_errors
from lm_eval_ext.training.run import SETTINGS, RunFolder, flat, last_step
from lm_eval_ext.training.self_training.calibrate import written
from lm_eval_ext.training.self_training.folders import (
    ADAPTER,
    MANIFEST,
    MODEL,
    Stage,
    read_attempts,
)
from lm_eval_ext.training.self_training.models import (
    adapter_or_model,
    base_model,
    generator_arguments,
    generator_class,
)
from lm_eval_ext.training.self_training.phase import USER_ERROR, die_with_parent
from lm_eval_ext.training.self_training.problems import (
    load_training_problems,
    problems_hash,
    write_problems,
)
from lm_eval_ext.training.self_training.rows import RowBuilder
from lm_eval_ext.training.self_training.settings import SelfTraining, SelfTrainingRuntime
from lm_eval_ext.training.self_training.table import HEADER, round_line
from lm_eval_ext.training.self_training.taken_attempts import TakenAttempts

logger = logging.getLogger(__name__)

ROUND_PHASES = ("generate", "label", "rows", "tune")
HELD_OUT_PHASES = ("generate", "label", "calibrate")
_PARALLEL = ("generate", "tune")

Launch = Callable[[str, Stage, SelfTrainingRuntime], None]
"""Runs a phase of a stage to its end."""


class PhaseFailedError(Exception):
    """A phase ended with an error that it has reported itself."""


def self_train(
    run: SelfTraining,
    output: Path,
    *,
    runtime: SelfTrainingRuntime | None = None,
    may_run_code: bool = False,
    launch: Launch | None = None,
) -> None:
    """Run or continue self-training.

    Parameters
    ----------
    output
        Folder of the run; ``model`` (or ``adapter``) in it is the last round's.
    may_run_code
        Consent to run programs that the model wrote, which grading code means.
    launch
        Runs a phase; by default as processes of their own.

    Raises
    ------
    UserError
        For settings that do not fit each other or the run in the folder, and missing consent.
    PhaseFailedError
        If a phase failed.
    """
    from lm_eval_ext.leaderboard.score import UNSAFE_GRADERS

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            "every phase is a launch of its own: start this command in one process, and give "
            "--num-processes"
        )
    _check_packages(run)
    runtime = runtime or SelfTrainingRuntime()
    launch = launch or partial(_launch, run.tuning.num_processes)
    problems = load_training_problems(run, trust_remote_code=runtime.trust_remote_code)
    unsafe = sorted({problem.family for problem in problems} & UNSAFE_GRADERS)
    if unsafe and not may_run_code:
        raise UserError(
            f"problems={run.problems}: judging {unsafe[0]} runs programs that the model wrote; add "
            "--confirm-run-unsafe-code"
        )
    kept = {
        "method": run.method,
        **flat(run, SelfTraining),
        "problems_sha256": problems_hash(problems),
    }
    if runtime.attempts_from is not None:
        taken = TakenAttempts(Path(runtime.attempts_from), run, problems)
        kept["attempts_from"] = taken.record()
    folder = RunFolder(output, kept, manifest=MANIFEST)
    if not folder.begun:
        _check_model(run, runtime)
    with folder.work(partial(_next_phase, run, output)):
        write_problems(output, problems)
        print(HEADER)
        for stage, phases in _stages(run, output):
            for phase in phases:
                if not stage.report(phase).exists():
                    logger.info("%s: %s", stage.name, phase)
                    launch(phase, stage, runtime)
            if not stage.held_out:
                print(round_line(stage.number, _round_report(stage)), flush=True)
        link_model(output, run.rounds)
        _write_manifest(run, folder, n_problems=len(problems))


def _check_packages(run: SelfTraining) -> None:
    """Find out what is missing before hours of sampling."""
    for package in ("trl", "peft") if run.tuning.lora_rank else ("trl",):
        if find_spec(package) is None:
            raise UserError(
                f"this needs the package {package!r}, which is not installed: pip install "
                "'lm-eval-ext[train]'"
            )


def _check_model(run: SelfTraining, runtime: SelfTrainingRuntime) -> None:
    """Find a model, wrapper, question or label that cannot be used, before anything is written."""
    from transformers import AutoConfig, AutoTokenizer

    allow = {"trust_remote_code": runtime.trust_remote_code}
    with readable_load_errors(run.pretrained, f"train {run.method}", argument="pretrained"):
        AutoConfig.from_pretrained(base_model(run), **allow)
        tokenizer = AutoTokenizer.from_pretrained(base_model(run), **allow)
    RowBuilder(tokenizer, run.rows, max_length=run.rows.max_length)
    generator_class(run)
    generator_arguments(run)


def _stages(run: SelfTraining, output: Path) -> list[tuple[Stage, tuple[str, ...]]]:
    """Return the stages of a run, each with its phases, in their order."""
    stages: list[tuple[Stage, tuple[str, ...]]]
    stages = [(Stage(output, number), ROUND_PHASES) for number in range(1, run.rounds + 1)]
    if run.held_out_share:
        stages.append((Stage(output, run.rounds + 1, held_out=True), HELD_OUT_PHASES))
    return stages


def _next_phase(run: SelfTraining, output: Path) -> str:
    """Return what the same command does next."""
    for stage, phases in _stages(run, output):
        for phase in phases:
            if stage.report(phase).exists():
                continue
            step = last_step(stage.checkpoints, "trainer_state.json")
            done = f"; {sum(1 for _ in read_attempts(stage))} attempts are there"
            more = {"generate": done, "tune": f", step {step or 0}"}.get(phase, "")
            return f"{stage.name}, phase {phase}{more}"
    return "the manifest"


def _launch(num_processes: int, phase: str, stage: Stage, runtime: SelfTrainingRuntime) -> None:
    words = [sys.executable]
    if num_processes > 1 and phase in _PARALLEL:
        launcher = "-m torch.distributed.run --standalone --nproc_per_node"
        words += [*launcher.split(), str(num_processes)]
    words += [
        "-m",
        "lm_eval_ext.training.self_training.phase",
        phase,
        "--output",
        str(stage.output),
    ]
    words += ["--number", str(stage.number), "--runtime", json.dumps(asdict(runtime))]
    words += ["--held-out"] if stage.held_out else []
    dies = die_with_parent if sys.platform == "linux" else None
    done = subprocess.run(words, check=False, preexec_fn=dies)
    if done.returncode == USER_ERROR:
        raise PhaseFailedError
    if done.returncode:
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
        raise UserError(
            f"{stage.name}: phase {phase} ended with {how}; the same command continues the run"
        )


def link_model(output: Path, rounds: int) -> None:
    """Let ``model`` and ``adapter`` in the folder of a run be those of its last round."""
    last = Stage(output, rounds).folder
    for name in (MODEL, ADAPTER):
        if (last / name).is_dir() and not (output / name).is_symlink():
            (output / name).symlink_to(Path(last.name) / name, target_is_directory=True)


def _round_report(stage: Stage) -> dict[str, Any]:
    report: dict[str, Any] = {}
    for phase in ROUND_PHASES:
        report.update(stage.counts(phase))
    del report["max_length"], report["fingerprint"]
    return report


def _write_manifest(run: SelfTraining, folder: RunFolder, *, n_problems: int) -> None:
    rounds, held_out = [], None
    for stage, phases in _stages(run, folder.path):
        if stage.held_out:
            held_out = {name: stage.counts(name) for name in phases}
        else:
            rounds.append(_round_report(stage))
    settings = json.loads((folder.path / SETTINGS).read_text(encoding="utf-8"))
    folder.finish(
        {
            "settings": {**settings, "learning_rate": run.tuning.rate},
            "n_problems": n_problems,
            "rounds": rounds,
            "held_out": held_out,
        }
    )
    model = folder.path / adapter_or_model(folder.path)
    found = " ".join(path.name for path in written(folder.path))
    print(f"{run.method} of {run.pretrained}: {model}" + (f", {found}" if found else ""))

"""Command ``lm-eval-ext train dapo``: reinforcement learning on graded questions.

DAPO through TRL, with dynamic sampling, and with random soft prompts in the rollouts where asked.
Killed at any point, the same command continues from the last checkpoint. Launched on several
processes (``accelerate launch -m lm_eval_ext train dapo ...``), they share the groups of a step.
"""

from __future__ import annotations

import argparse
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.version import Version

from lm_eval_ext.errors import UserError

if TYPE_CHECKING:
    from lm_eval_ext.training.dapo.configuration import Optimization
    from lm_eval_ext.training.dapo.job import DapoJob, Upkeep

OLDEST_TRL = "1.16"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument_group("model and data").add_argument
    add("--pretrained", default="tiny", help="Hub id, folder or shipped model (tiny)")
    add("--output", required=True, help="folder of the run; the same command continues it")
    add(
        "--problems",
        default="gsm8k_zero_shot:train",
        help="graded problems: gsm8k:train, gsm8k_zero_shot:train, tiny_gsm8k:train_hard, ..., a "
        "JSON Lines file of records, or several joined by + (gsm8k_zero_shot:train)",
    )
    add("--grader", help="family of the records of a file: gsm8k, math, mbpp")
    add("--num-problems", type=int, help="most problems of each source (all; 4000 generated ones)")
    add("--seed", type=int, default=0, help="of rollouts, vectors and order (0)")
    add("--dtype", default="float32", help="of the weights (float32)")
    add("--trust-remote-code", action="store_true", help="allow the model's own code")
    _add_rollout_arguments(parser)
    _add_rsp_arguments(parser)
    _add_optimization_arguments(parser)
    _add_upkeep_arguments(parser)


def _add_rollout_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("rollouts and rewards").add_argument
    add("--group-size", type=int, default=8, help="rollouts per prompt (8)")
    add("--temperature", type=float, default=1.0, help="of rollouts and update (1.0)")
    add("--max-new-tokens", type=int, help="(that of the problems' source)")
    add("--overlong-buffer", type=int, default=0, help="tokens before the end over which the "
        "penalty grows from 0 to -1; 0: no penalty (0)")  # fmt: skip
    add("--stop", action="append", help="stop string, repeatable (those of the problems' source)")
    add(
        "--dynamic-sampling",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="drop groups without right and wrong rollouts, and refill (on)",
    )
    add("--max-refills", type=int, default=10, help="most refill rounds of a step (10)")
    add("--rollout-batch-size", default="auto", help="rollouts decoded at once (auto)")
    add(
        "--sampler",
        choices=("engine", "transformers"),
        default="engine",
        help="the package's decoder, or TRL's own generation (engine)",
    )


def _add_rsp_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("random soft prompts").add_argument
    add("--rsp-length", type=int, default=0, help="vectors drawn for each rollout; 0: none (0)")
    add("--rsp-scale", type=float, default=1.0, help="factor on their deviation (1.0)")
    add("--rsp-position", choices=("auto", "end_of_user", "after_prompt", "prefix"), default="auto")
    add(
        "--rsp-update",
        choices=("same", "clean"),
        default="same",
        help="the update reads the rollout's own vectors, or the prompt alone with the explicit "
        "importance ratio (same)",
    )


def _add_optimization_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("optimization").add_argument
    add("--steps", type=int, default=100, help="updates (100)")
    add("--groups-per-step", type=int, default=16, help="prompts of an update (16)")
    add("--updates-per-rollout", type=int, default=1, help="updates per generation batch (1)")
    add("--micro-batch-size", type=int, default=8, help="rollouts of one pass of a device (8)")
    add("--optimizer", default="adamw_torch_fused", help="as transformers' --optim")
    add("--learning-rate", type=float, default=1e-6, help="(1e-6; adapters want 1e-5 and more)")
    add("--warmup-steps", type=int, default=10, help="(10)")
    add("--schedule", default="constant_with_warmup", help="(constant_with_warmup)")
    add("--weight-decay", type=float, default=0.0, help="(0)")
    add("--max-grad-norm", type=float, default=1.0, help="(1.0)")
    add("--bf16", action="store_true", help="mixed precision")
    add("--gradient-checkpointing", action="store_true", help="less memory, more time")
    add("--trainable", default="", help="train only parameters with this text in their name (all)")
    add("--lora-rank", type=int, default=0, help="train adapters of this rank; 0: all weights (0)")
    add("--lora-alpha", type=int, default=32, help="(32)")
    add("--lora-modules", default="all-linear", help="joined by + (all-linear)")


def _add_upkeep_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("checkpoints and logs").add_argument
    add("--checkpoint-every", type=int, default=20, help="steps between saves (20)")
    add("--report-to", nargs="+", default=["none"], help="as in transformers (none)")


def run(args: argparse.Namespace) -> int:
    """Train and return the exit status."""
    try:
        found = version("trl")
    except PackageNotFoundError as error:
        raise UserError(
            "train dapo needs trl, which is not installed: pip install 'lm-eval-ext[train]'"
        ) from error
    # The trainer overrides what GRPOTrainer has had since then.
    if Version(found) < Version(OLDEST_TRL):
        raise UserError(
            f"trl {found} is installed, and train dapo needs {OLDEST_TRL} or later: on Python 3.11 "
            f"or later, pip install 'trl>={OLDEST_TRL}'"
        )
    from lm_eval_ext.training.dapo.job import train_dapo

    train_dapo(job_from(args), Path(args.output), upkeep_from(args))
    return 0


def job_from(args: argparse.Namespace) -> DapoJob:
    """Return what the command's options ask for."""
    from lm_eval_ext.training.dapo.job import DapoJob

    return DapoJob(
        pretrained=args.pretrained,
        problems=args.problems,
        num_problems=args.num_problems,
        grader=args.grader,
        seed=args.seed,
        dtype=args.dtype,
        temperature=args.temperature,
        max_new_tokens=args.max_new_tokens,
        overlong_buffer=args.overlong_buffer,
        dynamic_sampling=args.dynamic_sampling,
        sampler=args.sampler,
        rsp_length=args.rsp_length,
        rsp_scale=args.rsp_scale,
        rsp_position=args.rsp_position,
        rsp_update=args.rsp_update,
        stop=None if args.stop is None else tuple(args.stop),
        optimization=_optimization_from(args),
    )


def _optimization_from(args: argparse.Namespace) -> Optimization:
    from dataclasses import fields

    from lm_eval_ext.training.dapo.configuration import Optimization

    return Optimization(**{field.name: getattr(args, field.name) for field in fields(Optimization)})


def upkeep_from(args: argparse.Namespace) -> Upkeep:
    """Return what does not change the result."""
    from lm_eval_ext.training.dapo.job import Upkeep

    return Upkeep(
        checkpoint_every=args.checkpoint_every,
        max_refills=args.max_refills,
        max_rows=args.rollout_batch_size,
        report_to=tuple(args.report_to),
        trust_remote_code=args.trust_remote_code,
    )

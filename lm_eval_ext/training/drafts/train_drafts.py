"""Command ``lm-eval-ext train drafts``: small drafts of a target, by distillation.

The target responds to the prompts, the prompts are split among the drafts, and each draft is
distilled on its own responses. Killed at any point, the same command continues. Launched on several
processes (``accelerate launch -m lm_eval_ext train drafts ...``), they share the responses and then
the drafts, with the same result.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from lm_eval_ext.checks import check_at_least

if TYPE_CHECKING:
    from lm_eval_ext.training.drafts.draft_job import DraftJob


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add = parser.add_argument_group("models and data").add_argument
    add("--target", default="tiny", help="Hub id, folder or shipped model (tiny)")
    add("--output", required=True, help="folder of the run; the same command continues it")
    add(
        "--draft-init",
        default="first:2",
        help="first:N (the target's first N layers), first:N,mlp:W (and W neurons of each MLP), a "
        "model with the same tokenizer, or a configuration for random weights (first:2)",
    )
    add("--num-drafts", type=int, default=4, help="number of drafts (4)")
    add(
        "--prompts",
        default="gsm8k:train",
        help="gsm8k:train, gsm8k_zero_shot:train, tiny_gsm8k:train, tiny_math:train, a JSON Lines "
        "file with a field 'prompt', or several joined by + (gsm8k:train)",
    )
    add("--num-prompts", type=int, help="most prompts of each source (all; 4000 generated ones)")
    add("--split", choices=("disjoint", "same", "bootstrap"), default="disjoint")
    add("--seed", type=int, default=0, help="of responses, split, order and teachers (0)")
    add("--dtype", default="auto", help="the target's precision (auto)")
    add("--trust-remote-code", action="store_true", help="allow the models' own code")
    _add_response_arguments(parser)
    _add_teacher_arguments(parser)
    _add_optimization_arguments(parser)


def _add_response_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("the target's responses").add_argument
    add("--responses-per-prompt", type=int, default=1, help="(1)")
    add("--temperature", type=float, default=1.0, help="of sampling; 0 is greedy (1.0)")
    add("--max-new-tokens", type=int, default=256, help="(256)")
    add("--stop", action="append", help="stop string, repeatable (those of the prompts' source)")
    add("--generation-batch-size", default="auto", help="attempts decoded at once (auto)")


def _add_teacher_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("teacher").add_argument
    add(
        "--teacher",
        choices=("osd", "clean", "exact"),
        default="osd",
        help="a fresh perturbation of the target per step, the target itself, or the average over "
        "several perturbations per step (osd)",
    )
    add("--teacher-samples", type=int, default=10, help="perturbations of --teacher exact (10)")
    add("--rank", type=int, default=8, help="of the perturbation (8)")
    add("--sigma", type=float, default=0.1, help="its standard deviation (0.1)")
    add("--modules", default="q_proj+v_proj", help="perturbed modules (q_proj+v_proj)")
    add("--kl", choices=("forward", "reverse"), default="forward")


def _add_optimization_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("optimization").add_argument
    add("--steps", type=int, default=1000, help="of each draft (1000)")
    add("--learning-rate", type=float, default=1e-3, help="peak rate (0.001)")
    add("--batch-size", type=int, default=32, help="responses per step (32)")
    add("--warmup-steps", type=int, default=50, help="(50)")
    add("--weight-decay", type=float, default=0.01, help="on matrices (0.01)")
    add("--checkpoint-every", type=int, default=100, help="steps between saves (100)")


def run(args: argparse.Namespace) -> int:
    """Train the drafts and return the exit status."""
    check_at_least(args, num_drafts=1, checkpoint_every=1)
    from lm_eval_ext.training.drafts.draft_job import train_drafts

    train_drafts(
        job_from(args),
        Path(args.output),
        checkpoint_every=args.checkpoint_every,
        generation_batch_size=args.generation_batch_size,
        trust_remote_code=args.trust_remote_code,
    )
    return 0


def job_from(args: argparse.Namespace) -> DraftJob:
    """Return what the command's options ask for."""
    from lm_eval_ext.training.drafts.distillation import TeacherSettings
    from lm_eval_ext.training.drafts.draft_job import DraftJob
    from lm_eval_ext.training.drafts.draft_training import OptimizationSettings
    from lm_eval_ext.training.drafts.target_responses import ResponseSettings

    return DraftJob(
        target=args.target,
        draft_init=args.draft_init,
        num_drafts=args.num_drafts,
        prompts=args.prompts,
        num_prompts=args.num_prompts,
        split=args.split,
        seed=args.seed,
        dtype=args.dtype,
        stop=None if args.stop is None else tuple(args.stop),
        responses=ResponseSettings(
            args.responses_per_prompt, args.temperature, args.max_new_tokens
        ),
        teacher=TeacherSettings(
            kind=args.teacher,
            rank=args.rank,
            sigma=args.sigma,
            modules=tuple(args.modules.split("+")),
            samples=args.teacher_samples,
        ),
        optimization=OptimizationSettings(
            steps=args.steps,
            learning_rate=args.learning_rate,
            batch_size=args.batch_size,
            warmup_steps=args.warmup_steps,
            weight_decay=args.weight_decay,
            kl=args.kl,
        ),
    )

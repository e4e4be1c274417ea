"""The options of ``train epicar`` and ``train star``."""

from __future__ import annotations

import argparse
from pathlib import Path

from lm_eval_ext.training.self_training.settings import (
    Method,
    SelfTraining,
    Workings,
)


def add_options(parser: argparse.ArgumentParser, method: Method) -> None:
    """Declare the options."""
    _add_run_options(parser)
    _add_sampling_options(parser)
    _add_row_options(parser, method)
    _add_tuning_options(parser, method)
    _add_working_options(parser)


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("models and data").add_argument
    add("--pretrained", default="tiny", help="base model: Hub id, folder or shipped (tiny)")
    add("--output", required=True, type=Path, help="folder of the run; the same command continues")
    add(
        "--problems",
        default="gsm8k:train",
        help="gsm8k:train, gsm8k_zero_shot:train, mbpp_zero_shot:train, tiny_gsm8k:train, "
        "tiny_math:train, tiny_mbpp:train (or :train_hard), a JSON Lines file of records, or "
        "several joined by + (gsm8k:train)",
    )
    add("--num-problems", type=int, help="most problems of each source (all; 4000 generated ones)")
    add("--grader", choices=("gsm8k", "math", "mbpp"), help="what grades the records of a file")
    add("--rounds", type=int, default=3, help="T (3)")
    add(
        "--init-from",
        choices=("base", "previous"),
        default="base",
        help="the model a round's fine-tuning starts from (base)",
    )
    add(
        "--held-out-share",
        type=float,
        default=0.1,
        help="share of the problems never trained on, for temperature.json and tau.json (0.1)",
    )
    add("--seed", type=int, default=0, help="of attempts, order and adapters (0)")
    add(
        "--confirm-run-unsafe-code",
        "--confirm_run_unsafe_code",
        action="store_true",
        help="let the grader of code run programs that the model wrote",
    )


def _add_sampling_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("attempts").add_argument
    add("--attempts", type=int, default=8, help="K, at each problem (8)")
    add("--temperature", type=float, default=0.7, help="(0.7)")
    add("--max-new-tokens", type=int, help="(that of the tasks over the source)")
    add("--stop", action="append", help="stop string, repeatable (those of the source)")
    add(
        "--box-completion",
        choices=("auto", "on", "off"),
        default="auto",
        help="append a lead-in to attempts without a closed box; auto: of MATH problems (auto)",
    )
    add(
        "--attempts-from",
        metavar="FOLDER",
        help="take the first round's attempts from an lm_eval run over the same problems or from "
        "another training, instead of sampling them",
    )
    add("--generator", default="sampled", help="model wrapper that samples (sampled)")
    add("--generator-args", default="", help="more --model_args for it")


def _add_row_options(parser: argparse.ArgumentParser, method: Method) -> None:
    add = parser.add_argument_group("rows").add_argument
    add("--no-dedup", action="store_true", help="keep exact duplicates of correct solutions")
    add("--max-length", type=int, default=2048, help="tokens of a row, cut from the left (2048)")
    add("--self-eval-prompt", help="the question about an attempt (that of --model epicar)")
    add("--self-eval-labels", help="its labels, joined by + (' A+ B')")
    if method == "epicar":
        add(
            "--balance",
            choices=("none", "undersample", "oversample"),
            default="none",
            help="make as many yes as no rows (none)",
        )


def _add_tuning_options(parser: argparse.ArgumentParser, method: Method) -> None:
    add = parser.add_argument_group("fine-tuning").add_argument
    if method == "epicar":
        add(
            "--schedule",
            choices=("mixed", "sequential", "eval_only"),
            default="mixed",
            help="all rows shuffled, solutions before self-evaluation, or the latter only (mixed)",
        )
        add(
            "--alpha",
            type=float,
            help="loss = alpha * mean over solutions + (1 - alpha) * mean over labels (one mean "
            "over all tokens)",
        )
    add("--epochs", type=float, default=1.0, help="of a round (1)")
    add("--steps", type=int, help="optimizer steps of a round, instead of --epochs")
    add("--learning-rate", type=float, help="peak rate (1e-4 with LoRA, 1e-5 without)")
    add("--warmup-ratio", type=float, default=0.03, help="share of the steps (0.03)")
    add("--weight-decay", type=float, default=0.0, help="(0)")
    add("--batch-size", type=int, default=16, help="rows per pass and process (16)")
    add("--gradient-accumulation", type=int, default=1, help="passes per step (1)")
    add("--num-processes", type=int, default=1, help="processes that generate and train (1)")
    add(
        "--lora-rank",
        type=int,
        default=16,
        help="of an adapter on all linear layers; 0 trains all weights (16)",
    )
    add("--merge", action="store_true", help="also write the model with the adapter merged")
    add("--save-dtype", choices=("auto", "float32", "float16", "bfloat16"), default="auto")
    add(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="of training; auto: bfloat16 mixed precision on a GPU that has it (auto)",
    )
    add("--gradient-checkpointing", action="store_true", help="keep fewer activations")


def _add_working_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("working, without effect on the outcome").add_argument
    add("--generation-batch-size", default="auto", help="attempts decoded at once (auto)")
    add("--attempts-per-save", type=int, default=1024, help="attempts between writes (1024)")
    add("--steps-per-checkpoint", type=int, default=200, help="steps between checkpoints (200)")
    add("--trust-remote-code", action="store_true", help="allow the model's own code")


def run_from(args: argparse.Namespace, method: Method) -> SelfTraining:
    """Return what the options ask for."""
    values = vars(args)
    labels = args.self_eval_labels
    return SelfTraining.from_flat(
        {
            **{name: value for name, value in values.items() if name != "output"},
            "method": method,
            "stop": None if args.stop is None else tuple(args.stop),
            "dedup": not args.no_dedup,
            "self_eval_labels": None if labels is None else tuple(labels.split("+")),
        }
    )


def run_command(args: argparse.Namespace, method: Method) -> int:
    """Run the command and return its exit status."""
    from lm_eval_ext.training.self_training.job import PhaseFailedError, self_train

    workings = Workings(
        generation_batch_size=args.generation_batch_size,
        attempts_per_save=args.attempts_per_save,
        steps_per_checkpoint=args.steps_per_checkpoint,
        trust_remote_code=args.trust_remote_code,
        attempts_from=args.attempts_from,
    )
    try:
        self_train(
            run_from(args, method),
            args.output,
            workings=workings,
            may_run_code=args.confirm_run_unsafe_code,
        )
    except PhaseFailedError:
        return 2  # it has said why
    return 0

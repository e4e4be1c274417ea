"""``lm-eval-ext plan``: rows, memory and time of a run with N attempts, before it is started."""

from __future__ import annotations

import argparse
import json

from lm_eval_ext.commands.plan.cost import Run
from lm_eval_ext.commands.plan.hardware import GPUS, find_device
from lm_eval_ext.commands.plan.task_workload import task_workload
from lm_eval_ext.commands.plan.workload import Stated, Workload, stated_workload
from lm_eval_ext.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--model-config",
        required=True,
        metavar="MODEL",
        help="Hub id, folder, config.json or known name; weights are read by --measure only",
    )
    parser.add_argument(
        "--task", help="task of lm-eval, for its questions, prompts and token limit"
    )
    parser.add_argument(
        "--attempts", type=int, help="per question (those of the task; 16 without one)"
    )
    parser.add_argument("--questions", type=int, help="number of questions")
    parser.add_argument("--prompt-tokens", type=float, help="mean tokens of a prompt")
    parser.add_argument("--response-tokens", type=float, help="mean tokens of a response")
    parser.add_argument("--max-gen-toks", type=int, help="most tokens of a response")
    parser.add_argument("--gpu", help=f"{', '.join(GPUS)}, or cpu: this machine's")
    parser.add_argument("--gpus", type=int, default=1, help="how many, data parallel (%(default)s)")
    parser.add_argument("--memory-gb", type=float, help="memory of a GPU that is not in the table")
    parser.add_argument("--bandwidth-gb-s", type=float, help="its memory bandwidth")
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="of weights and cache; auto: as stored",
    )
    parser.add_argument("--batch-size", type=int, help="most rows per GPU (as many as fit)")
    parser.add_argument(
        "--measure",
        type=float,
        nargs="?",
        const=60.0,
        metavar="SECONDS",
        help="begin the run on this machine, end it after so long (%(const)s), and say how long "
        "it would take",
    )
    parser.add_argument(
        "--apply-chat-template", action="store_true", help="with --measure: as lm-eval's option"
    )
    parser.add_argument("--json", action="store_true", help="print every number as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the plan; return the exit status."""
    for option in ("gpus", "batch_size", "measure"):
        value = getattr(args, option)
        if value is not None and not value >= 1:
            raise UserError(f"--{option.replace('_', '-')}={value} must be 1 or more")
    stated = Stated(
        attempts=args.attempts,
        questions=args.questions,
        prompt_tokens=args.prompt_tokens,
        max_new_tokens=args.max_gen_toks,
        response_tokens=args.response_tokens,
    )
    return _plan(args, stated) if args.measure is None else _measure(args, stated)


def _measure(args: argparse.Namespace, stated: Stated) -> int:
    if args.task is None:
        raise UserError("--measure needs --task, whose questions it asks")
    from lm_eval_ext.commands.plan.measure import measure

    found = measure(
        args.model_config,
        args.task,
        stated,
        seconds=args.measure,
        n_devices=args.gpus,
        apply_chat_template=args.apply_chat_template,
        dtype=args.dtype,
        batch_size="auto" if args.batch_size is None else args.batch_size,
    )
    print(json.dumps(found._asdict(), indent=1) if args.json else found.text())
    return 0


def _plan(args: argparse.Namespace, stated: Stated) -> int:
    # Wrong options are told before anything slow is imported.
    device = find_device(args.gpu, memory_gb=args.memory_gb, bandwidth_gb_s=args.bandwidth_gb_s)
    workload = _workload(args, stated)

    from lm_eval_ext.commands.plan.model_shape import BYTES_OF_DTYPE, read_shape
    from lm_eval_ext.commands.plan.report import as_json, plan_of, text

    shape = read_shape(args.model_config)
    dtype = shape.dtype if args.dtype == "auto" else args.dtype
    if dtype not in BYTES_OF_DTYPE:
        raise UserError(f"{shape.name} is stored as {dtype}: give --dtype, such as bfloat16")
    plan = plan_of(
        Run(
            shape=shape,
            device=device,
            workload=workload,
            number_bytes=BYTES_OF_DTYPE[dtype],
            n_devices=args.gpus,
            batch_size=args.batch_size,
        )
    )
    print(json.dumps(as_json(plan), indent=1) if args.json else "\n".join(text(plan)))
    return 0


def _workload(args: argparse.Namespace, stated: Stated) -> Workload:
    if args.task is None:
        return stated_workload(stated)
    return task_workload(args.task, args.model_config, stated)

"""Train one of the shipped models and export it: ``python recipes/tiny/train.py --output RUN``."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training import Run, Settings

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to ``parser``."""
    parser.add_argument("--output", required=True, help="folder of the run and of its export")
    parser.add_argument(
        "--recipe",
        choices=("tiny", "sink"),
        default="tiny",
        help="tiny, from nothing; or sink, on from tiny to attention sinks (reads GSM8K) (tiny)",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, help="training time; the rate follows the clock")
    length.add_argument("--tokens", type=int, help="training length, the same on every machine")
    parser.add_argument("--seed", type=int, default=0, help="of weights and documents (0)")
    parser.add_argument(
        "--batch-tokens", type=int, help="positions per step (4096; 1024 for the recipe sink)"
    )
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="peak rate (0.003)")
    parser.add_argument(
        "--reading-cost",
        type=float,
        help="recipe sink: price of attention at the start, in nats per token; 0: none (0.5)",
    )
    parser.add_argument("--checkpoint-minutes", type=float, default=3.0, help="between saves (3)")
    parser.add_argument("--resume", action="store_true", help="continue the run in --output")


def _settings(args: argparse.Namespace) -> Settings:
    given: dict[str, Any] = {
        "tokens": args.tokens,
        "minutes": 60.0 if args.minutes is None and args.tokens is None else args.minutes,
        "seed": args.seed,
        "learning_rate": args.learning_rate,
    }
    if args.batch_tokens is not None:
        given["batch_tokens"] = args.batch_tokens
    if args.reading_cost is not None:
        if args.recipe != "sink":
            raise ValueError(
                f"reading_cost={args.reading_cost} belongs to the recipe sink: add --recipe sink"
            )
        given["reading_cost"] = args.reading_cost
    return _run_type(args.recipe).settings_type(**given)


def _run_type(recipe: str) -> type[Run]:
    from sink_recipe import SinkRun
    from training import Run

    return SinkRun if recipe == "sink" else Run


def run(args: argparse.Namespace) -> int:
    """Train, export to ``OUTPUT/export`` and return the exit code.

    A run that is continued keeps the settings it was started with.
    """
    from model import export

    try:
        settings = None if args.resume else _settings(args)
        training = _run_type(args.recipe)(args.output, settings)
    except ValueError as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2
    logger.info("training on %s from step %d", training.device, training.step)
    training.train(checkpoint_minutes=args.checkpoint_minutes)
    losses = ", ".join(f"{name} {loss:.4f}" for name, loss in training.validation_loss().items())
    logger.info("validation loss (nats per answer token): %s", losses)
    folder = Path(args.output) / "export"
    size = export(training.model, training.tokenizer, folder)
    print(f"exported {training.tokens:,} tokens' training to {folder} ({size / 1e6:.2f} MB)")
    return 0


def main() -> int:
    """Run the command line."""
    logging.basicConfig(level=logging.INFO)
    parser = argparse.ArgumentParser(description="Train one of the models that are shipped.")
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())

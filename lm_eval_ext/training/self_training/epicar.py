"""Command ``lm-eval-ext train epicar``: teach a model to solve problems and to judge its solutions.

Each round the model answers the training problems, a grader says which attempts are right, and the
model is fine-tuned on the right ones (D_reason) and on judging all of them (D_eval): EpiCaR,
arXiv:2601.06786. Killed at any point, the same command continues.
"""

from __future__ import annotations

import argparse

from lm_eval_ext.training.self_training.options import add_options, run_command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_options(parser, "epicar")


def run(args: argparse.Namespace) -> int:
    """Train and return the exit status."""
    return run_command(args, "epicar")

"""Command ``lm-eval-ext train star``: the loop of ``train epicar`` without the rows that judge.

Each round the model is fine-tuned on its right attempts: STaR (Zelikman et al. 2022,
arXiv:2203.14465) without rationalization, the baseline of EpiCaR.
"""

from __future__ import annotations

import argparse

from lm_eval_ext.training.self_training.options import add_options, run_command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_options(parser, "star")


def run(args: argparse.Namespace) -> int:
    """Train and return the exit status."""
    return run_command(args, "star")

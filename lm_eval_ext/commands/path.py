"""``lm-eval-ext path``: where a shipped or fetched model lies, for commands that take a folder."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("name", help="name of a shipped or fetched model, for example: tiny")


def run(args: argparse.Namespace) -> int:
    """Print the folder of the model, so that ``pretrained=$(lm-eval-ext path tiny)`` works."""
    from lm_eval_ext.models.fetching import FETCHED, fetched_path
    from lm_eval_ext.models.shipped import model_path

    name = args.name
    print(fetched_path(name, argument="name") if name in FETCHED else model_path(name))
    return 0

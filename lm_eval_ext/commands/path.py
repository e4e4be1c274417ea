"""``lm-eval-ext path``: where a shipped or fetched model lies, for commands that take a folder."""

from __future__ import annotations

from dataclasses import dataclass

from lm_eval_ext.checks import required


@dataclass(frozen=True)
class PathOptions:
    """Print the folder of a shipped or fetched model.

    Example: lm-eval-ext path tiny
    """

    name: str = required("name of the model")


def run(options: PathOptions) -> int:
    """Print the folder of the model, so that ``pretrained=$(lm-eval-ext path tiny)`` works."""
    from lm_eval_ext.models.fetching import FETCHED, fetched_path
    from lm_eval_ext.models.shipped import model_path

    name = options.name
    print(fetched_path(name, argument="name") if name in FETCHED else model_path(name))
    return 0

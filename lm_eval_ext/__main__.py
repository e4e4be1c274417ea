"""The ``lm-eval-ext`` command: finds the sub-command and imports its module, and only that.

A sub-command is a module with two functions: ``add_arguments(parser)`` declares its options on an
`argparse.ArgumentParser`, and ``run(args)`` does the work and returns the exit status. Adding one
is a line in `COMMANDS`.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import lm_eval_ext

PROGRAM = "lm-eval-ext"
USER_ERROR = 2
INTERRUPTED = 130
BROKEN_PIPE = 141
"""Exit statuses: the first as argparse has it, the others as a shell reports those signals."""


class Command(NamedTuple):
    """A sub-command: the module that does the work, and its line in the list of commands."""

    module: str
    summary: str


COMMANDS = {
    "diagnose rsp": Command(
        "lm_eval_ext.commands.diagnose_rsp", "show what random soft prompts do to the first tokens"
    ),
    "doctor": Command(
        "lm_eval_ext.commands.doctor", "check the installation and say what is missing"
    ),
    "fetch": Command(
        "lm_eval_ext.models.fetching.command",
        "put a small pretrained model into the local cache, once",
    ),
    "leaderboard add": Command(
        "lm_eval_ext.leaderboard.add", "store finished runs as small JSON files"
    ),
    "leaderboard build": Command(
        "lm_eval_ext.leaderboard.build",
        "write the board of many runs as Markdown, CSV, JSON, LaTeX and HTML",
    ),
    "leaderboard check": Command(
        "lm_eval_ext.leaderboard.check", "fail where a run is significantly worse than a stored one"
    ),
    "leaderboard compare": Command(
        "lm_eval_ext.leaderboard.compare", "compare runs on the same questions in one table"
    ),
    "leaderboard sources": Command(
        "lm_eval_ext.leaderboard.sources", "compare the confidence sources of one run"
    ),
    "leaderboard votes": Command(
        "lm_eval_ext.leaderboard.votes", "set weighted votes against a baseline's majority vote"
    ),
    "path": Command("lm_eval_ext.commands.path", "print the folder of a shipped or fetched model"),
    "plan": Command(
        "lm_eval_ext.commands.plan.command",
        "say how many attempts fit at once and how long a run takes",
    ),
    "prune analyse": Command(
        "lm_eval_ext.commands.prune.analyse",
        "set ablations of single heads against their sink scores",
    ),
    "prune export": Command(
        "lm_eval_ext.commands.prune.export",
        "write a pruned checkpoint that loads with transformers",
    ),
    "prune score": Command(
        "lm_eval_ext.commands.prune.score", "score heads and blocks, and draw the sink scores"
    ),
    "prune sweep": Command(
        "lm_eval_ext.commands.prune.sweep",
        "measure criteria and ratios of pruning on tasks and text",
    ),
    "score": Command(
        "lm_eval_ext.leaderboard.score",
        "compute the metrics of a finished run again, without a model",
    ),
    "store info": Command("lm_eval_ext.store.info", "say what an attempt store holds"),
    "store merge": Command(
        "lm_eval_ext.store.merge", "put the attempts of several stores into one file"
    ),
    "store verify": Command("lm_eval_ext.store.verify", "check every line of an attempt store"),
    "train calibrator": Command(
        "lm_eval_ext.training.tuning.calibrator",
        "fit the probability that an attempt is correct on training problems",
    ),
    "train dapo": Command(
        "lm_eval_ext.training.dapo.train",
        "train a model on graded questions with DAPO and soft prompts",
    ),
    "train drafts": Command(
        "lm_eval_ext.training.drafts.train_drafts",
        "distil small drafts of a model, for --model draft-eu",
    ),
    "train epicar": Command(
        "lm_eval_ext.training.self_training.epicar",
        "teach a model to solve problems and judge its answers",
    ),
    "train star": Command(
        "lm_eval_ext.training.self_training.star",
        "the baseline of train epicar: learn correct answers only",
    ),
    "train tau": Command(
        "lm_eval_ext.training.tuning.tau",
        "choose the temperature of the softmax vote on training problems",
    ),
    "train temperature": Command(
        "lm_eval_ext.training.tuning.temperature",
        "fit the temperature of self_eval on training problems",
    ),
}
"""The sub-commands by name; a name of two words is a sub-command of a group."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        Arguments without the program's name; those of the process by default.

    Returns
    -------
    int
        Exit status: 0, what the sub-command returned, or 2 after an error of the user's, which is
        reported in one line on standard error.
    """
    try:
        try:
            return _dispatch(_parser().parse_args(argv))
        finally:
            print(end="", flush=True)
    except BrokenPipeError:
        # The reader is gone (`| head`). Python would fail again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def _dispatch(options: argparse.Namespace) -> int:
    """Run the sub-command that the options name, and report what goes wrong in it."""
    name, command = find_command(options.command)
    if command is None:
        return _report_unknown(options.command)
    debug = options.debug or bool(os.environ.get("LM_EVAL_EXT_DEBUG"))
    _configure_logging(debug)
    try:
        return run_command(name, command, options.command[len(name.split()) :])
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError, ModuleNotFoundError) as error:
        message = _user_message(error)
        if debug or message is None:
            raise
        print(f"{PROGRAM}: error: {message}", file=sys.stderr)
        return USER_ERROR


def find_command(words: Sequence[str]) -> tuple[str, Command | None]:
    """Return the command that the arguments begin with, and its name; ``("", None)`` if none.

    Examples
    --------
    >>> find_command(["train", "epicar", "--rounds", "1"])[0]
    'train epicar'
    >>> find_command(["train"])
    ('', None)
    """
    for length in (2, 1):
        name = " ".join(words[:length])
        if len(words) >= length and name in COMMANDS:
            return name, COMMANDS[name]
    return "", None


def run_command(name: str, command: Command, arguments: Sequence[str]) -> int:
    """Import a command's module, let it parse its arguments, and run it."""
    module = importlib.import_module(command.module)
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} {name}",
        description=f"{command.summary[0].upper()}{command.summary[1:]}.",
    )
    module.add_arguments(parser)
    return module.run(parser.parse_args(arguments))


def _parser() -> argparse.ArgumentParser:
    """Return the parser of what stands before the sub-command."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [-h] [--version] [--debug] COMMAND ...",
        description="Pass@N, calibration and uncertainty for lm-evaluation-harness.",
        epilog=_listing(COMMANDS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=lm_eval_ext.__version__)
    parser.add_argument(
        "--debug",
        action="store_true",
        help="show the traceback of an error (also: LM_EVAL_EXT_DEBUG=1)",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _listing(names: Sequence[str] | dict[str, Command]) -> str:
    """Return a list of commands with their summaries."""
    width = max(map(len, names)) + 2
    lines = [f"{name:{width}}{COMMANDS[name].summary}" for name in sorted(names)]
    more = f"\n`{PROGRAM} COMMAND --help` shows a command's options."
    return "commands:\n" + textwrap.indent("\n".join(lines), "  ") + "\n" + more


def _report_unknown(words: Sequence[str]) -> int:
    """Say which commands there are; return the exit status."""
    in_group = [name for name in COMMANDS if words and name.split()[0] == words[0]]
    if in_group and words[1:2] in (["-h"], ["--help"]):
        print(_listing(in_group))
        return 0
    if not words:
        _parser().print_help()
        return USER_ERROR
    given = " ".join(words[:2] if in_group else words[:1])
    known = ", ".join(in_group or COMMANDS)
    print(f"{PROGRAM}: error: no command {given!r}; choose from {known}", file=sys.stderr)
    return USER_ERROR


def _configure_logging(debug: bool) -> None:
    """Send our progress messages, and other packages' warnings, to standard error."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("lm_eval_ext").setLevel(logging.DEBUG if debug else logging.INFO)


def _user_message(error: ValueError | OSError | ModuleNotFoundError) -> str | None:
    """Return an error as the one line for the user, or None where it is a defect of ours."""
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        if package in ("", "lm_eval_ext"):
            return None
        return f"this needs the package {package!r}, which is not installed: pip install {package}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error)


if __name__ == "__main__":
    sys.exit(main())

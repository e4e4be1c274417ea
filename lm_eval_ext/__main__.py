"""The ``lm-eval-ext`` command: finds the sub-command and imports what it needs, and only that.

A sub-command is a dataclass of its options (see `lm_eval_ext.commands.options`) in a module that
imports nothing heavy, and a module with ``run(options)``, which does the work and returns the exit
status. Adding one is a line in `COMMANDS`.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

import click

import lm_eval_ext
from lm_eval_ext.checks import did_you_mean
from lm_eval_ext.commands.options import HELP_OPTIONS, DataclassCommand

PROGRAM = "lm-eval-ext"
COMPLETION = "_LM_EVAL_EXT_COMPLETE"
"""The variable by which a shell asks for completions."""

USER_ERROR = 2
INTERRUPTED = 130
BROKEN_PIPE = 141
"""Exit statuses: the first as click has it, the others as a shell reports those signals."""


class Command(NamedTuple):
    """Where a sub-command is, below ``lm_eval_ext``.

    Parameters
    ----------
    module
        The module with ``run(options)``.
    options
        Module and name of the dataclass of its options.
    """

    module: str
    options: str


COMMANDS: dict[str, Command] = {
    "annotate": Command("commands.annotate", "commands.annotate_options:AnnotateOptions"),
    "diagnose rsp": Command("commands.diagnose_rsp", "commands.diagnose_options:RspOptions"),
    "doctor": Command("commands.doctor", "commands.doctor:DoctorOptions"),
    "fetch": Command("models.fetching.command", "models.fetching.command:FetchOptions"),
    "leaderboard add": Command("leaderboard.add", "leaderboard.options:AddOptions"),
    "leaderboard build": Command("leaderboard.build", "leaderboard.options:BuildOptions"),
    "leaderboard check": Command("leaderboard.check", "leaderboard.options:CheckOptions"),
    "leaderboard compare": Command("leaderboard.compare", "leaderboard.options:CompareOptions"),
    "leaderboard sources": Command("leaderboard.sources", "leaderboard.options:SourcesOptions"),
    "leaderboard votes": Command("leaderboard.votes", "leaderboard.options:VotesOptions"),
    "path": Command("commands.path", "commands.path:PathOptions"),
    "plan": Command("commands.plan.command", "commands.plan.command:PlanOptions"),
    "prune analyse": Command("commands.prune.analyse", "commands.prune.options:AnalyseOptions"),
    "prune export": Command("commands.prune.export", "commands.prune.options:ExportOptions"),
    "prune score": Command("commands.prune.score", "commands.prune.options:ScoreOptions"),
    "prune sweep": Command("commands.prune.sweep", "commands.prune.options:SweepOptions"),
    "score": Command("leaderboard.score", "leaderboard.options:ScoreOptions"),
    "store info": Command("store.info", "store.options:InfoOptions"),
    "store merge": Command("store.merge", "store.options:MergeOptions"),
    "store verify": Command("store.verify", "store.options:VerifyOptions"),
    "tasks": Command("commands.tasks", "commands.tasks:TasksOptions"),
    "train calibrator": Command(
        "training.tuning.calibrator", "training.tuning.options:CalibratorOptions"
    ),
    "train dapo": Command("training.dapo.train", "training.dapo.settings:DapoOptions"),
    "train drafts": Command(
        "training.drafts.train_drafts", "training.drafts.settings:DraftOptions"
    ),
    "train epicar": Command(
        "training.self_training.train", "training.self_training.settings:EpicarOptions"
    ),
    "train eu-fit": Command("training.tuning.eu_fit", "training.tuning.options:EUFitOptions"),
    "train star": Command(
        "training.self_training.train", "training.self_training.settings:StarOptions"
    ),
    "train tau": Command("training.tuning.tau", "training.tuning.options:TauOptions"),
    "train temperature": Command(
        "training.tuning.temperature", "training.tuning.options:TemperatureOptions"
    ),
    "wordings": Command("commands.wordings", "commands.wordings:WordingsOptions"),
}
"""The sub-commands by name; a name of two words is a sub-command of a group."""


class Group(click.Group):
    """The sub-commands whose names begin alike, or all of them.

    Parameters
    ----------
    name
        The words that the names begin with; empty for all.
    """

    def __init__(self, name: str = "") -> None:
        super().__init__(name or PROGRAM, context_settings=HELP_OPTIONS)
        self.prefix = f"{name} " * bool(name)
        self.below = sorted(n for n in COMMANDS if n.startswith(self.prefix))

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the words that may follow."""
        return list(dict.fromkeys(n.removeprefix(self.prefix).split()[0] for n in self.below))

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Return the command or the group with a name, or None."""
        name = self.prefix + name
        if name in COMMANDS:
            return _loaded(name, COMMANDS[name])
        return Group(name) if any(n.startswith(f"{name} ") for n in self.below) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the first word names, or say which it may have meant."""
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-"):
            given, close = self.prefix + args[0], did_you_mean(args[0], known)
            ctx.fail(f"no command {given!r}{close or '; choose from ' + ', '.join(self.below)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List all commands with their summaries."""
        found = {name: _loaded(name, COMMANDS[name]).short_help or "" for name in self.below}
        with formatter.section("Commands"):
            formatter.write_dl(list(found.items()))


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
            return _dispatch(_program(), list(sys.argv[1:] if argv is None else argv))
        finally:
            print(end="", flush=True)
    except BrokenPipeError:
        # The reader is gone (`| head`). Python would fail again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def _dispatch(program: Group, argv: list[str]) -> int:
    """Run the sub-command that the arguments name, and report what goes wrong in it."""
    if COMPLETION in os.environ:
        from click.shell_completion import shell_complete

        return shell_complete(program, {}, PROGRAM, COMPLETION, os.environ[COMPLETION])
    debug = bool(os.environ.get("LM_EVAL_EXT_DEBUG"))
    try:
        with program.make_context(PROGRAM, argv) as context:
            debug |= context.params["debug"]
            _configure_logging(debug)
            return program.invoke(context)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        return error.exit_code
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else PROGRAM
        print(f"{path}: error: {' '.join(error.format_message().split())}", file=sys.stderr)
        return error.exit_code
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


def _program() -> Group:
    """Return the whole command line."""
    program = Group()
    program.help = "Pass@N, calibration and uncertainty for lm-evaluation-harness."
    program.epilog = f"`{PROGRAM} COMMAND --help` shows a command's options and an example."
    program.params = [
        click.Option(
            ["--debug"],
            is_flag=True,
            help="Show the traceback of an error (also: LM_EVAL_EXT_DEBUG=1).",
        )
    ]
    return click.version_option(lm_eval_ext.__version__, message="%(version)s")(program)


def _loaded(name: str, where: Command) -> click.Command:
    """Import what a command needs to be described."""
    module, _, options = where.options.partition(":")
    kind = getattr(importlib.import_module(f"lm_eval_ext.{module}"), options)
    return DataclassCommand(
        name, kind, lambda given: importlib.import_module(f"lm_eval_ext.{where.module}").run(given)
    )


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

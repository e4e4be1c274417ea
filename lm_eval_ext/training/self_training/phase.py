"""One phase of one stage, as a process: ``python -m lm_eval_ext.training.self_training.phase``.

The command starts these; what they do is in the folder's settings.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import json
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from lm_eval_ext.errors import UserError
from lm_eval_ext.training.run import SETTINGS
from lm_eval_ext.training.self_training.folders import Stage
from lm_eval_ext.training.self_training.settings import SelfTrainingRuntime, from_flat

PHASES = ("generate", "label", "rows", "tune", "calibrate")
USER_ERROR, INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a phase and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="lm_eval_ext.training.self_training.phase", description=__doc__
    )
    parser.add_argument("phase", choices=PHASES)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--number", type=int, required=True)
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--runtime", type=json.loads, default={})
    args = parser.parse_args(argv)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("lm_eval_ext").setLevel(logging.INFO)
    die_with_parent()
    stage = Stage(args.output, args.number, args.held_out)
    try:
        run_phase(args.phase, stage, SelfTrainingRuntime(**args.runtime))
    except UserError as error:
        print(f"lm-eval-ext: error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        return INTERRUPTED  # the command, interrupted too, says how to resume
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(
            f"lm-eval-ext: error: {stage.folder}: no space left on the device; make room, and the "
            "same command resumes the run",
            file=sys.stderr,
        )
        return USER_ERROR
    return 0


def run_phase(phase: str, stage: Stage, runtime: SelfTrainingRuntime) -> None:
    """Do a phase in this process."""
    settings = json.loads((stage.output / SETTINGS).read_text(encoding="utf-8"))
    run = from_flat(settings)
    if phase == "generate":
        from lm_eval_ext.training.self_training.attempts import generate

        generate(run, stage, runtime)
    elif phase == "label":
        from lm_eval_ext.training.self_training.labels import label

        label(stage)
    elif phase == "rows":
        from lm_eval_ext.training.self_training.rows import build_rows

        build_rows(run, stage, runtime)
    elif phase == "tune":
        from lm_eval_ext.training.self_training.tune import tune

        tune(run, stage, runtime)
    else:
        from lm_eval_ext.training.self_training.calibrate import calibrate

        calibrate(run, stage)


def die_with_parent() -> None:
    """End this process when its parent is killed: nothing may keep writing into the folder."""
    if sys.platform != "linux":
        return
    set_parent_death_signal = 1
    with contextlib.suppress(OSError, AttributeError):  # a C library without prctl
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())

"""How long the help of every command takes: processor time of a whole process, user and system.

Other programs disturb processor time less than wall time. Each command is run several times and
the least time counts. The limit is 0.5 s.

    python benchmarks/help_time.py [--runs 5] [--quick]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

from lm_eval_ext.__main__ import COMMANDS

LIMIT = 0.5
"""Seconds."""


def seconds(words: list[str]) -> float:
    """Return the processor time of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "lm_eval_ext", *words, "--help"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    """Time every command and print a table, the slowest first."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5, help="processes per command (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="one process per command")
    options = parser.parse_args()
    runs = 1 if options.quick else options.runs
    groups = {name.split()[0] for name in COMMANDS if " " in name}
    names = ["", *sorted({*COMMANDS, *groups})]
    times = {name: min(seconds(name.split()) for _ in range(runs)) for name in names}
    for name, time in sorted(times.items(), key=lambda item: -item[1]):
        print(f"{time:.2f} s  lm-eval-ext {name} --help".replace("  --", " --"))
    slowest = max(times.values())
    print(f"ratio: {LIMIT / slowest:.1f}x (the limit of {LIMIT} s / the slowest help)")


if __name__ == "__main__":
    main()

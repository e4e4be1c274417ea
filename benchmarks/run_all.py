"""Run the benchmarks of the project, one after the other, and write a table of their ratios.

    python benchmarks/run_all.py [--full] [--only NAME ...] [--timeout 600] [--output FILE]

Each benchmark is a process of its own, with ``--quick`` unless ``--full`` is given; its last line
that begins with ``ratio:`` goes into the table, all it prints below it. One that fails or takes too
long is noted, and the next one runs. The exit status is 1 if any failed. A file in this folder is a
benchmark unless it is listed in `HELPERS`.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).resolve().parent

HELPERS = {
    "run_all": "this script",
    "synthetic_runs": "makes the runs that leaderboard_build and leaderboard_page read",
    "vllm_worker": "the vLLM side of passn_throughput",
}
"""Files that are no benchmarks, and what they are."""

SKIPPED = 77
"""Exit status of a benchmark that lacks what it needs, as of automake's tests."""

GRACE = 10.0
"""Seconds a benchmark that takes too long has to clean up."""

_RATIO = re.compile(r"^ratio: (?P<ratio>.*?)(?: \((?P<what>.*)\))?$", re.MULTILINE)
# Two or more components: a ratio like "ours / peer" or "1/2" is no path.
_PATH = re.compile(r"(?<![\w.:/])(?:~|[A-Za-z]:)?(?:[/\\][\w.+@-]+){2,}[/\\]?")


class Outcome(NamedTuple):
    """What became of a benchmark.

    Parameters
    ----------
    name
        Its file without the ending.
    command
        The command that was run.
    status
        ``"ok"``, ``"skipped"``, ``"timeout"``, ``"no ratio"`` or ``"failed"`` with the exit status.
    ratio, what
        The line with the ratio, and what stands behind it in brackets.
    seconds
        Wall time.
    output
        What it printed, without paths.
    """

    name: str
    command: str
    status: str
    ratio: str
    what: str
    seconds: float
    output: str


def benchmarks(folder: Path) -> list[Path]:
    """Return the benchmarks of a folder by name."""
    return sorted(path for path in folder.glob("*.py") if path.stem not in HELPERS)


def run_benchmark(path: Path, arguments: Sequence[str], timeout: float) -> Outcome:
    """Run one benchmark; a failure is an outcome."""
    command = [sys.executable, str(path), *arguments]
    shown = " ".join(["python", f"benchmarks/{path.name}", *arguments])
    started = time.perf_counter()
    # Into a file: workers that outlive a timeout would keep a pipe open, and us waiting.
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment(os.environ, path.parent.parent),
            start_new_session=True,
        )
        try:
            returned: int | None = process.wait(timeout)
        except subprocess.TimeoutExpired:
            returned = None
        finally:
            end_group(process)  # whether it is late or we are interrupted
        log.seek(0)
        output = without_paths(log.read().decode(errors="replace"))
    seconds = time.perf_counter() - started
    lines = list(_RATIO.finditer(output))
    ratio, what = (lines[-1]["ratio"], lines[-1]["what"] or "") if lines else ("", "")
    status = status_of(returned, bool(lines))
    return Outcome(path.stem, shown, status, ratio, what, seconds, output)


def end_group(process: subprocess.Popen[bytes], grace: float = GRACE) -> None:
    """End a benchmark that still runs, and its workers.

    It is asked first, so that it can remove what it made (files, network namespaces), and killed
    after so many seconds. Workers that outlive it are killed in either case.
    """
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    with suppress(ProcessLookupError, PermissionError):  # nobody is left in its group
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def environment(variables: Mapping[str, str], root: Path) -> dict[str, str]:
    """Return the environment of a benchmark: the checkout is found where nothing is installed."""
    paths = [str(root), *filter(None, [variables.get("PYTHONPATH")])]
    return {**variables, "PYTHONPATH": os.pathsep.join(paths)}


def status_of(returned: int | None, has_ratio: bool) -> str:
    """Return the status to an exit status, None for one that took too long."""
    if returned is None:
        return "timeout"
    if returned == SKIPPED:
        return "skipped"
    if returned:
        return f"failed ({returned})"
    return "ok" if has_ratio else "no ratio"


def without_paths(text: str) -> str:
    """Leave of every path its last part, and of a progress bar its last state.

    Examples
    --------
    >>> without_paths("wrote /home/me/runs/a.json, ratio: 2 (ours / peer)")
    'wrote a.json, ratio: 2 (ours / peer)'
    """
    lines = (line.rpartition("\r")[2] for line in text.replace("\r\n", "\n").split("\n"))
    return _PATH.sub(lambda found: re.split(r"[/\\]", found[0].rstrip("/\\"))[-1], "\n".join(lines))


def machine_class() -> str:
    """Return cores, kind of processor and memory of this machine, and no name of it."""
    cores, model, memory = os.cpu_count(), platform.machine(), ""
    try:
        names = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        model = names[1].strip() if names else model
        memory = f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    except (OSError, ValueError, AttributeError):  # not Linux
        pass
    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return f"{cores} cores of {model}{memory}, {platform.system()}, Python " + (
        f"{platform.python_version()}{load}"
    )


def report(outcomes: Sequence[Outcome], machine: str, command: str) -> str:
    """Return the table, and below it what each benchmark printed."""
    lines = [
        "# Results of the benchmarks",
        "",
        f"Written by `{command}`.",
        "",
        f"Machine: {machine}. One run each; what a ratio relates, and n, is in its line, and the",
        "output of every benchmark is below.",
        "",
        "| Benchmark | Ratio | What | Seconds | Status |",
        "|---|---|---|---|---|",
        *(
            f"| [{o.name}](#{o.name}) | {_cell(o.ratio)} | {_cell(o.what)} | {o.seconds:.0f} | "
            f"{o.status} |"
            for o in outcomes
        ),
    ]
    for outcome in outcomes:
        fence = "```"
        printed = outcome.output.strip().replace(fence, "'''").splitlines()[-40:]
        lines += ["", f"## {outcome.name}", "", f"`{outcome.command}`", "", fence, *printed, fence]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|") or "-"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--full", action="store_true", help="without --quick: an hour or more")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these benchmarks")
    parser.add_argument("--timeout", type=float, default=600, help="seconds each (%(default)s)")
    parser.add_argument("--output", type=Path, help="file to write (results.md beside this script)")
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help="folder of the benchmarks (this one)"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks; return the exit status."""
    options = parse(argv)
    found = {path.stem: path for path in benchmarks(options.folder)}
    wanted = [name.removesuffix(".py") for name in options.only] or list(found)
    unknown = sorted(set(wanted) - set(found))
    if unknown:
        print(
            f"run_all.py: error: --only={' '.join(unknown)}: no such benchmark; choose from "
            f"{', '.join(found)}",
            file=sys.stderr,
        )
        return 2
    arguments = [] if options.full else ["--quick"]
    shown = ["python benchmarks/run_all.py", *(["--full"] if options.full else [])]
    shown += ["--only", *wanted] if options.only else []
    output = options.output or options.folder / "results.md"
    machine, outcomes = machine_class(), []
    for name in wanted:
        print(f"{name} ...", end=" ", flush=True)
        outcomes.append(run_benchmark(found[name], arguments, options.timeout))
        last = outcomes[-1]
        print(f"{last.status}, {last.seconds:.0f} s{', ratio ' if last.ratio else ''}{last.ratio}")
        # After each: a run that is stopped leaves what it has.
        output.write_text(report(outcomes, machine, " ".join(shown)))
    failed = [o.name for o in outcomes if o.status not in ("ok", "skipped")]
    print(f"{len(outcomes) - len(failed)} of {len(outcomes)} without a failure: {output.name}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

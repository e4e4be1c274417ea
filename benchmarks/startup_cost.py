"""What the start-up hook costs: a process without lm-eval, and `lm_eval --help`.

Two virtual environments that differ in the ``.pth`` file alone run the same command in turn, in
alternating order, so that a change of the machine's load meets both. Counts processor time, which
other programs disturb less than wall time. Prints medians, and the median difference with a 95%
interval from resampling the pairs.

    python benchmarks/startup_cost.py [--runs 100] [--quick]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import numpy as np
from tqdm import tqdm

PTH = "lm_eval_ext_bridge.pth"
HELP = "import sys; from lm_eval.__main__ import cli_evaluate; sys.argv[1:] = ['--help']; "
COMMANDS = {"python -c pass": "pass", "lm_eval --help": HELP + "cli_evaluate()"}


def make_environment(folder: Path, with_hook: bool) -> Path:
    """Return the interpreter of an environment that borrows this one's packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site_packages = next(folder.glob("lib/python*/site-packages"))
    ours = Path(sysconfig.get_path("purelib"))
    paths = f"{ours}\n{Path(__file__).parents[1]}\n"
    (site_packages / "borrowed.pth").write_text(paths)
    if with_hook:
        (site_packages / PTH).write_text((ours / PTH).read_text())
    return folder / "bin" / "python"


def seconds(python: Path, code: str) -> float:
    """Return the processor time of one process, user and system."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([python, "-c", code], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def compare(without: Path, with_hook: Path, code: str, n_runs: int) -> tuple[np.ndarray, ...]:
    """Return the times without and with the hook, seconds, each of shape (n_runs,)."""
    times = np.empty((2, n_runs))
    for run in tqdm(range(-2, n_runs), leave=False):  # two runs to warm the disk cache
        order = [0, 1] if run % 2 else [1, 0]
        for which in order:
            times[which, run] = seconds((without, with_hook)[which], code)  # warm-up: overwritten
    return times[0], times[1]


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=100, help="pairs per command (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="10 pairs")
    args = parser.parse_args()
    n_runs, ratios = 10 if args.quick else args.runs, []
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        without = make_environment(Path(folder, "without"), with_hook=False)
        with_hook = make_environment(Path(folder, "with"), with_hook=True)
        for name, code in COMMANDS.items():
            bare, hooked = compare(without, with_hook, code, n_runs)
            resampled = random.choice(hooked - bare, (2000, n_runs))
            low, high = np.percentile(np.median(resampled, axis=1), [2.5, 97.5]) * 1e3
            difference = np.median(hooked - bare) * 1e3
            print(
                f"{name:16} without {np.median(bare) * 1e3:7.2f} ms, "
                f"with {np.median(hooked) * 1e3:7.2f} ms, difference {difference:+.2f} ms "
                f"[{low:+.2f}, {high:+.2f}] = {difference / np.median(bare) / 10:+.2f}%, "
                f"n = {n_runs} pairs"
            )
            ratios.append(f"{name} {np.median(hooked) / np.median(bare):.3f}")
    print(
        f"ratio: {', '.join(ratios)} (with the hook / without, median processor time, n = {n_runs} "
        "pairs each)"
    )


if __name__ == "__main__":
    main()

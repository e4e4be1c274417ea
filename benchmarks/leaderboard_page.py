"""How large the leaderboard's page is, and how long it takes to open in Chromium.

    python benchmarks/leaderboard_page.py [PAGE] [--quick] [--runs FOLDER] [--screenshots FOLDER]
        [--run N]

Without PAGE, 50 runs x 1,319 questions x 16 attempts are made up by synthetic_runs.py (not timed;
--runs keeps and reuses them), and their page is built by two processes. It is then opened three
times in headless Chromium, with an empty cache: until the table can be used, until the browser has
read the whole file, and from there until a run's questions, its first chart and one question are
shown. The slowest of the three is printed, with the largest process's memory. --screenshots saves
pictures of the page instead of timing it. Needs selenium, chromium and chromedriver, and says so
where they are missing.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from synthetic_runs import plans_of, write_runs

from lm_eval_ext.leaderboard.board import board_of
from lm_eval_ext.leaderboard.build import read_all
from lm_eval_ext.leaderboard.page.build import build_page
from lm_eval_ext.leaderboard.task_samples import HEADLINE

PROCESSES = 2
REPEATS = 3
SKIPPED = 77
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars "
    "--disable-background-networking --disable-component-update --disable-sync"
)
CHART = ".plot[data-drawn] .main-svg"


def build(folders: list[Path], output: Path) -> None:
    """Read the runs and write their page."""
    runs, problems = read_all(
        [str(folder) for folder in folders], store=output, pooled=HEADLINE, processes=PROCESSES
    )
    assert not problems, problems
    board = board_of(runs)
    by_id = {run["id"]: Path(run["folder"]) for run in board["runs"]}
    start = time.perf_counter()
    build_page(board, by_id, output, processes=PROCESSES)
    print(f"page of {len(runs)} runs: {time.perf_counter() - start:.1f} s, {PROCESSES} processes")


@contextmanager
def browser(width: int, height: int, *, dark: bool = False) -> Iterator[Any]:
    """Start Chromium with an empty profile and a window of a size."""
    from selenium import webdriver

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        print("skipped: needs chromium and chromedriver (Debian: chromium-driver)")
        raise SystemExit(SKIPPED)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    with tempfile.TemporaryDirectory() as profile:
        for flag in (*FLAGS.split(), f"--user-data-dir={profile}"):
            options.add_argument(flag)
        started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        started.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        started.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        try:
            yield started
        finally:
            started.quit()


def seconds_until(condition: Callable[[], Any], timeout: float = 60) -> float:
    """Return how long it takes until a condition is true."""
    start = time.perf_counter()
    while not condition():
        if time.perf_counter() - start > timeout:
            raise SystemExit("nothing was shown in time")
        time.sleep(0.01)
    return time.perf_counter() - start


def times(page: Path) -> dict[str, float]:
    """Return the times of one opening, in seconds, and the browser's memory, in GB."""
    with browser(1280, 900) as chromium:

        def find(selector: str) -> list[Any]:
            return chromium.find_elements("css selector", selector)

        chromium.get(page.resolve().as_uri())
        table, whole = chromium.execute_script(
            "return [performance.getEntriesByName('table-ready')[0].startTime,"
            " performance.getEntriesByType('navigation')[0].loadEventEnd]"
        )
        found = {"table": table / 1000, "whole file": whole / 1000}
        chromium.execute_script("performance.mark('asked'); location.hash = 'run/0'")
        seconds_until(lambda: find(CHART))
        for name, mark in (("questions of a run", "run-shown"), ("first chart", "chart-drawn")):
            script = "const at = n => performance.getEntriesByName(n)[0].startTime;"
            script += f"return at('{mark}') - at('asked')"
            found[name] = chromium.execute_script(script) / 1000
        chromium.execute_script("document.querySelectorAll('.list tbody button')[3].click()")
        found["one question"] = seconds_until(lambda: find(".attempt"))
        processes = psutil.Process(chromium.service.process.pid).children(recursive=True)
        found["memory"] = max(process.memory_info().rss for process in processes) / 1e9
        return found


def screenshots(page: Path, folder: Path, run: int) -> None:
    """Save the table in light and dark colors and on a phone, and a run."""
    from PIL import Image

    views = {
        "light": ((1280, 640), False, ""),
        "dark": ((1280, 640), True, ""),
        "phone": ((390, 844), False, ""),
        "run": ((1280, 2300), False, f"#run/{run}/1"),
    }
    for name, ((width, height), dark, place) in views.items():
        with browser(width, height, dark=dark) as chromium:
            chromium.get(page.resolve().as_uri() + place)
            if place:
                seconds_until(lambda c=chromium: c.find_elements("css selector", CHART))
                time.sleep(3)  # for the other charts
                chromium.find_elements("css selector", ".list tbody button")[2].click()
                time.sleep(1)
                chromium.execute_script("scrollTo(0, 0)")
            elif name != "light":  # the metrics of one task
                chromium.execute_script(
                    "const s = document.querySelector('#controls select');"
                    "s.value = s.options[s.options.length - 1].value;"
                    "s.dispatchEvent(new Event('change'))"
                )
            time.sleep(0.5)
            path = folder / f"leaderboard_{name}.png"
            chromium.save_screenshot(str(path))
        with Image.open(path) as picture:
            reduced = picture.convert("RGB").quantize(256)
        reduced.save(path, optimize=True)
        print(path)


def main() -> None:
    """Build a page where none is given, and time it or take pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path, nargs="?", metavar="PAGE")
    parser.add_argument("--quick", action="store_true", help="4 runs of 200 questions")
    parser.add_argument("--runs", type=Path, help="folder of the made-up runs, kept and reused")
    parser.add_argument("--screenshots", type=Path, metavar="FOLDER", help="take pictures instead")
    parser.add_argument("--run", type=int, default=0, metavar="N", help="in the pictures (0)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        page = args.page or Path(scratch) / "page.html"
        if args.page is None:
            folder = args.runs or Path(scratch) / "runs"
            plans = plans_of(*((4, 200) if args.quick else (50, 1_319)))
            folders = [folder / plan.label for plan in plans]
            if not all(path.is_dir() for path in folders):
                write_runs(folder, plans, processes=PROCESSES)
            build(folders, page)
        print(f"size: {page.stat().st_size / 1e6:.1f} MB")
        if args.screenshots is not None:
            screenshots(page, args.screenshots, args.run)
            return
        openings = [times(page) for _ in range(REPEATS)]
        for name in openings[0]:
            unit = "GB" if name == "memory" else "s"
            print(f"{name}: {max(opening[name] for opening in openings):.2f} {unit}")
        table = max(opening["table"] for opening in openings)
        whole = max(opening["whole file"] for opening in openings)
        print(
            f"ratio: {whole / table:.2f} (seconds until the whole file is read / until the table "
            f"can be used, slowest of n = {REPEATS})"
        )


if __name__ == "__main__":
    main()

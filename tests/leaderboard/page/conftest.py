"""Small runs with hostile texts, a board over them, the page, and a browser."""

import json
import math
import shutil

import numpy as np
import pytest

from lm_eval_ext.leaderboard.page.build import build_page

STAMP = "2026-01-01T00-00-00.000000"
TASK = "toy_passn"
HOSTILE = (
    "<script>document.title='hacked'</script>",
    "<img src=x onerror=\"document.title='hacked'\">",
    "</script><script>document.title='hacked'</script>",
    "<!--<script>",
    "<a href=\"javascript:document.title='hacked'\">a</a> [b](javascript:alert(1))",
    "line\u2028separator\u2029paragraph",
    "<svg onload=\"document.title='hacked'\"><style>*{display:none}</style>",
    "{{ 7 * 7 }} {% raw %} \\u003c ]]> \x00",
)
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
)


def attempts_at(number, n_attempts, skill, rng):
    """Return the details of the attempts at a question; the first ones are sure and wrong."""
    rows = []
    for i in range(n_attempts):
        right = bool(rng.random() < skill) and number > 1
        sure = 0.99 if number <= 1 else float(np.clip(rng.normal(0.4 + 0.4 * right, 0.2), 0, 1))
        rows.append(
            {
                "attempt": i,
                "answer": str(number if right else number + 1 + i % 2),
                "correct": right,
                "finish_reason": "eos",
                "n_tokens": 3,
                "mean_logprob": math.log(max(sure, 1e-3)),
                "probabilities": {"self_eval": sure},
                "token_scores": {"eu": [0.1, 0.5, 0.0], "jsd": [0.0, 0.2, 0.1]},
                "extra": {"token_texts": [" one", "<b>two</b>", "\n"]},
            }
        )
    return rows


def write_run(folder, *, skill, n_questions=60, n_attempts=4, seed=0):
    """Write an output folder of lm_eval; texts of the first questions are hostile."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    lines = []
    for number in range(n_questions):
        text = HOSTILE[number] if number < len(HOSTILE) else f"plain text {number}"
        attempts = attempts_at(number, n_attempts, skill, rng)
        attempts[0]["reason"] = text
        for attempt in attempts[1:]:
            if number % 2:  # some without token scores: they show the text itself
                del attempt["token_scores"]
        lines.append(
            {
                "doc_id": number,
                "doc": {"question": f"{text} What is {number}?"},
                "doc_hash": f"hash{number}",
                "target": f"{text} #### {number}",
                "arguments": {"gen_args_0": {"arg_0": f"{text} What is {number}?\nAnswer:"}},
                "resps": [[f"{text} answer {i}" for i in range(n_attempts)]],
                "filtered_resps": [[f"{text} answer {i}" for i in range(n_attempts)]],
                "filter": "none",
                "metrics": ["pass@1", "attempts"],
                "pass@1": float(np.mean([a["correct"] for a in attempts])),
                "attempts": attempts,
            }
        )
    samples = folder / f"samples_{TASK}_{STAMP}.jsonl"
    samples.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    pruning = {
        "criterion": "sink",
        "scores": [[0.1, 0.9, 0.3], [0.2, 0.4, 0.8]],
        "removed_heads": [[0, 1]],
    }
    results = {
        "n-samples": {TASK: {"effective": n_questions}},
        "configs": {TASK: {"metadata": {"attempts": n_attempts, "metrics": "passn"}}},
        "config": {"model": "sampled", "lm_eval_ext": {"pruning": pruning}},
    }
    (folder / f"results_{STAMP}.json").write_text(json.dumps(results))
    return folder


def board_over(runs):
    """Return a board with made-up values: `runs` maps ids to (label, pass@1)."""
    metrics = [("pass@1", True), ("maj@4", True), ("ece:self_eval", False), ("mean_tokens", None)]
    cells, details = [], []
    for place, (run_id, (_, value)) in enumerate(runs.items()):
        for task in (TASK, "toy_calib"):
            for metric, _ in metrics:
                shown = value + 0.01 * len(metric) - 0.2 * (task == "toy_calib")
                cells.append(
                    {
                        "run": run_id,
                        "task": task,
                        "metric": metric,
                        "value": shown,
                        "low": shown - 0.055,
                        "high": shown + 0.055,
                        "n": 60,
                        "printed": f"{shown:.3f} ± 0.055",
                        "rank": place + 1,
                        "best": metric == "pass@1" and place == 0,
                    }
                )
            details.append(
                {
                    "run": run_id,
                    "task": task,
                    "attempts": 4,
                    "temperature": 0.7,
                    "num_fewshot": 0,
                    "truncated_rate": 0.0,
                    "invalid_rate": 0.0125,
                    "tokens": 12345,
                    "seconds": None,
                    "tokens_per_second": None,
                    "samples_sha256": "ab" * 32,
                }
            )
    rows = [
        {
            "id": run_id,
            "label": label,
            "model": f"model-{run_id}",
            "wrapper": "sampled" if place % 2 else "draft-eu",
            "date": "2026-01-01",
            "settings": {"pretrained": HOSTILE[1]},
            "versions": {"lm_eval": "0.4.13"},
            "seconds": 12.0,
            "folder": "/somewhere/secret",
        }
        for place, (run_id, (label, _)) in enumerate(runs.items())
    ]
    tasks = [
        {
            "name": task,
            "n_questions": 60,
            "metrics": [{"name": m, "higher_is_better": better} for m, better in metrics],
        }
        for task in (TASK, "toy_calib")
    ]
    return {
        "schema": "lm_eval_ext.board/1",
        "runs": rows,
        "tasks": tasks,
        "cells": cells,
        "details": details,
    }


@pytest.fixture(scope="session")
def toy_runs(tmp_path_factory):
    """Return two output folders by run id."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        "good": write_run(folder / "good", skill=0.8, seed=1),
        "poor": write_run(folder / "poor", skill=0.4, seed=2),
    }


@pytest.fixture(scope="session")
def toy_board():
    """Return a board of three runs, one of them with a hostile name and without a folder."""
    return board_over(
        {"good": ("good run", 0.8), "poor": ("poor run", 0.4), "stored": (HOSTILE[2], 0.6)}
    )


@pytest.fixture(scope="session")
def toy_page(toy_board, toy_runs, tmp_path_factory):
    """Return the page over both."""
    pytest.importorskip("plotly", reason="needs plotly, of the extra 'report'")
    output = tmp_path_factory.mktemp("page") / "page.html"
    return build_page(toy_board, toy_runs, output, title="Toy <b>board</b>")


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Return headless Chromium, or skip the test where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in FLAGS.split():
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    started.set_script_timeout(30)
    yield started
    started.quit()

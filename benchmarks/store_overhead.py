"""Attempts per second with ``store=`` against without, and how fast a store is read again.

python benchmarks/store_overhead.py [--quick]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from lm_eval_ext.data.tiny.formats import prompt
from lm_eval_ext.data.tiny.problems import load_split
from lm_eval_ext.harness import requests as harness
from lm_eval_ext.model_wrappers.sampled import SampledLM
from lm_eval_ext.models.fingerprint import model_fingerprint

ATTEMPTS = 16
ROWS = 128


def seconds(lm: SampledLM, prompts: list[str]) -> float:
    """Return how long all attempts take."""
    asked = [text for text in prompts for _ in range(ATTEMPTS)]
    started = time.perf_counter()
    harness.complete(lm, asked, do_sample=True, temperature=0.7, max_gen_toks=200)
    return time.perf_counter() - started


def main() -> None:
    """Measure and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help="16 questions once, not 64 three times"
    )
    n_questions, rounds = (16, 1) if parser.parse_args().quick else (64, 3)
    prompts = [prompt("gsm8k", doc) for doc in load_split("gsm8k", "test", size=n_questions)]
    n = n_questions * ATTEMPTS
    lm = SampledLM("tiny", seed=0, batch_size=ROWS)
    seconds(lm, prompts[:2])
    plain, kept, read = [], [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            plain.append(seconds(lm, prompts))
            kept.append(seconds(SampledLM("tiny", seed=0, batch_size=ROWS, store=folder), prompts))
            again = SampledLM("tiny", seed=0, batch_size=ROWS, store=folder)
            read.append(seconds(again, prompts))
            assert again.store is not None
            assert again.store.n_appended == 0
            size = sum(path.stat().st_size for path in Path(folder).iterdir())
    started = time.perf_counter()
    model_fingerprint(lm.model)
    fingerprint = time.perf_counter() - started
    n_bytes = sum(p.numel() * p.element_size() for p in lm.model.parameters())
    print(f"{n} attempts, {ROWS} at once, {rounds} round(s), medians")
    print(f"without a store {n / statistics.median(plain):.1f} attempts/s")
    print(f"with a store    {n / statistics.median(kept):.1f} attempts/s")
    print(f"read again      {n / statistics.median(read):.0f} attempts/s")
    print(f"{size / n:.0f} bytes per attempt")
    print(f"fingerprint of {n_bytes / 1e6:.1f} MB of weights: {1e3 * fingerprint:.0f} ms")
    ratio = statistics.median(p / k for p, k in zip(plain, kept, strict=True))
    print(
        f"ratio: {ratio:.3f} (attempts per second with a store / without, same texts, n = {n} "
        f"attempts, {rounds} round(s))"
    )


if __name__ == "__main__":
    main()

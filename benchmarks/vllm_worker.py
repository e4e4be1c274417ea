"""Sample attempts with vLLM and print their rate as JSON; called by passn_throughput.py."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def main() -> None:
    """Read the task file named on the command line, run it twice and report the second run."""
    # Memory for keys and values in GiB; the CPU build would otherwise ask for too much.
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    # By default it leaves cores to a server around it; here there is none.
    cores = [str(core) for core in range(os.cpu_count() or 1)]
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", ",".join(cores))
    os.environ.setdefault("OMP_NUM_THREADS", str(len(cores)))
    from vllm import LLM, SamplingParams

    task = json.loads(Path(sys.argv[1]).read_text())
    model = LLM(task["model"], dtype="float32", enforce_eager=True, max_model_len=2048)
    settings = SamplingParams(
        n=task["n"],
        temperature=task["temperature"],
        top_k=50,
        max_tokens=task["max_tokens"],
        stop=task["stop"],
    )
    model.generate(task["prompts"][:2], settings, use_tqdm=False)  # warm-up
    started = time.perf_counter()
    outputs = model.generate(task["prompts"], settings, use_tqdm=False)
    seconds = time.perf_counter() - started
    attempts = sum(len(output.outputs) for output in outputs)
    print(json.dumps({"attempts_per_second": attempts / seconds}))


if __name__ == "__main__":
    main()

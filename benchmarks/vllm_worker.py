"""Sample attempts with vLLM and print their rate as JSON; called by passn_throughput.py."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def main() -> None:
    """Read the task file named on the command line, run it twice and report the second run."""
    task = json.loads(Path(sys.argv[1]).read_text())
    # Memory for keys and values in GiB; the CPU build would otherwise ask for too much.
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")
    # By default it leaves cores to a server around it; here there is none.
    cores = [str(core) for core in range(task["threads"] or os.cpu_count() or 1)]
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", ",".join(cores))
    os.environ["OMP_NUM_THREADS"] = str(len(cores))
    from vllm import LLM, SamplingParams

    model = LLM(
        task["model"],
        dtype="float32",
        enforce_eager=not task["compiled"],
        max_model_len=task["max_length"],
    )
    settings = SamplingParams(**task["sampling"])
    # As warm as the others are: what it compiles is there, the prompts are not in its cache.
    model.generate(task["prompts"][:2], settings, use_tqdm=False)
    if not model.reset_prefix_cache():
        raise RuntimeError("the prefix cache could not be emptied")
    started = time.perf_counter()
    outputs = model.generate(task["prompts"], settings, use_tqdm=False)
    seconds = time.perf_counter() - started
    lengths = [len(one.token_ids) for output in outputs for one in output.outputs]
    rate = {"attempts_per_second": len(lengths) / seconds, "tokens": sum(lengths) / len(lengths)}
    print(json.dumps(rate))


if __name__ == "__main__":
    main()

"""One run on two hosts, played by two network namespaces, against the run of one process.

python benchmarks/two_hosts.py [--quick]

Each namespace has its own network; the two are joined by a pair of virtual Ethernet devices, as two
machines by a cable. Exit status 0 if attempts and metrics are the same, 1 if not. Where namespaces
are not allowed, or ``ip`` is missing, it says so and exits with status 77.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SKIPPED = 77
HOSTS = ("lmx-host-0", "lmx-host-1")
ADDRESSES = ("10.213.77.1", "10.213.77.2")
DEVICES = ("lmx-eth-0", "lmx-eth-1")
PORT = 29613


def ip(*arguments: str) -> None:
    """Run ``ip``; raises CalledProcessError with its message."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@contextmanager
def two_hosts() -> Iterator[None]:
    """Make the namespaces, and remove them at the end."""
    try:
        for host in HOSTS:
            ip("netns", "add", host)
        ip("link", "add", DEVICES[0], "type", "veth", "peer", "name", DEVICES[1])
        for host, device, address in zip(HOSTS, DEVICES, ADDRESSES, strict=True):
            ip("link", "set", device, "netns", host)
            ip("-n", host, "address", "add", f"{address}/24", "dev", device)
            ip("-n", host, "link", "set", device, "up")
            ip("-n", host, "link", "set", "lo", "up")
        yield
    finally:
        for host in HOSTS:
            subprocess.run(["ip", "netns", "delete", host], check=False, capture_output=True)


def lm_eval(output: Path, store: Path, n_questions: int, attempts: int) -> list[str]:
    """Return the module and its arguments."""
    return [
        "-m", "lm_eval", "--model", "rsp",
        "--model_args", f"pretrained=tiny,length=2,seed=0,store={store}",
        "--tasks", "tiny_gsm8k_passn", "--limit", str(n_questions),
        "--metadata", json.dumps({"attempts": attempts}), "--gen_kwargs", "max_gen_toks=40",
        "--batch_size", "16", "--log_samples", "--output_path", str(output),
    ]  # fmt: skip


def on_two_hosts(folder: Path, arguments: Sequence[str]) -> list[int]:
    """Run one process per host; return their exit statuses."""
    processes = []
    for rank, host in enumerate(HOSTS):
        launcher = [
            sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node_rank",
            str(rank), "--nproc_per_node", "1", "--master_addr", ADDRESSES[0], "--master_port",
            str(PORT),
        ]  # fmt: skip
        environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"}
        environment["GLOO_SOCKET_IFNAME"] = DEVICES[rank]
        with (folder / f"host-{rank}.log").open("w") as log:
            processes.append(
                subprocess.Popen(
                    ["ip", "netns", "exec", host, *launcher, *arguments],
                    env=environment,
                    stdout=log,
                    stderr=log,
                )
            )
    return [process.wait(timeout=1800) for process in processes]


def outcome(folder: Path) -> tuple[dict[str, Any], dict[int, Any]]:
    """Return metrics and attempts of a run."""
    (results,) = folder.rglob("results_*.json")
    (samples,) = folder.rglob("samples_*.jsonl")
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    return json.loads(results.read_text())["results"], {
        line["doc_id"]: (line["resps"], [one["correct"] for one in line["attempts"]])
        for line in lines
    }


def main() -> int:
    """Run both and compare; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="5 questions x 4 instead of 31 x 16")
    n_questions, attempts = (5, 4) if parser.parse_args().quick else (31, 16)
    if shutil.which("ip") is None:
        print("skipped: no command ip (iproute2) on this machine")
        return SKIPPED
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            with two_hosts():
                began = time.perf_counter()
                statuses = on_two_hosts(
                    folder, lm_eval(folder / "two", folder / "store-2", n_questions, attempts)
                )
                seconds = time.perf_counter() - began
        except subprocess.CalledProcessError as error:
            print(f"skipped: network namespaces are not allowed here ({error.stderr.strip()})")
            return SKIPPED
        if any(statuses):
            print((folder / "host-0.log").read_text()[-4000:])
            print(f"the hosts ended with {statuses}")
            return 1
        one = lm_eval(folder / "one", folder / "store-1", n_questions, attempts)
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, *one],
            check=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
        )
        alone = time.perf_counter() - began
        shares = [path.read_bytes().count(b'{"key"') for path in (folder / "store-2").iterdir()]
        same = outcome(folder / "two") == outcome(folder / "one")
    print(f"{n_questions} questions x {attempts}; attempts per host: {sorted(shares)}")
    print(f"two hosts {seconds:.1f} s, one process {alone:.1f} s, start-up included")
    print(f"attempts and metrics: {'the same' if same else 'DIFFERENT'}")
    print(
        f"ratio: {alone / seconds:.2f} (speed of two hosts on one machine / one process, "
        f"n = {n_questions * attempts} attempts)"
    )
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())

"""One run on two hosts, played by two network namespaces, against the run of one process.

python benchmarks/two_hosts.py [--quick] [--timeout 1800]

Each namespace has its own network; the two are joined by a pair of virtual Ethernet devices, as two
machines by a cable. Exit status 0 if attempts and metrics are the same, 1 if not or if anything
failed. Where namespaces are not allowed, or ``ip`` is missing, it says so and exits with status 77.
What it made is removed at the end, also after SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

SKIPPED = 77
# Names of our own: another run, or somebody else, may have such namespaces too.
HOSTS = (f"lmx-{os.getpid()}-0", f"lmx-{os.getpid()}-1")
DEVICES = (f"lmx{os.getpid()}a", f"lmx{os.getpid()}b")  # at most 15 characters
ADDRESSES = ("10.213.77.1", "10.213.77.2")
PORT = 29613
_DENIED = ("operation not permitted", "permission denied")


class HostsError(Exception):
    """The benchmark did not get to an outcome; the message says why."""


class NotAllowedError(HostsError):
    """The system denies namespaces to this user."""


def ip(*arguments: str) -> None:
    """Run ``ip``.

    Raises
    ------
    NotAllowedError
        If the system denies it.
    HostsError
        If it fails for another reason.
    """
    found = subprocess.run(
        ["ip", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    if found.returncode:
        reason = found.stderr.strip() or f"status {found.returncode}"
        kind = NotAllowedError if any(words in reason.lower() for words in _DENIED) else HostsError
        raise kind(f"ip {' '.join(arguments)}: {reason}")


@contextmanager
def two_hosts() -> Iterator[None]:
    """Make the namespaces, and remove at the end what was made."""
    with ExitStack() as made:
        for host in HOSTS:
            ip("netns", "add", host)
            made.callback(_remove, host)
        ip("link", "add", DEVICES[0], "type", "veth", "peer", "name", DEVICES[1])
        # Both ends go with either of them; in a namespace it is no longer found under its name.
        made.callback(_quietly, "link", "delete", DEVICES[0])
        for host, device, address in zip(HOSTS, DEVICES, ADDRESSES, strict=True):
            ip("link", "set", device, "netns", host)
            ip("-n", host, "address", "add", f"{address}/24", "dev", device)
            ip("-n", host, "link", "set", device, "up")
            ip("-n", host, "link", "set", "lo", "up")
        yield


def _remove(host: str) -> None:
    """Remove a namespace that was made here, and what still runs in it."""
    for pid in _quietly("netns", "pids", host).split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    _quietly("netns", "delete", host)


def _quietly(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False).stdout


def lm_eval(output: Path, store: Path, n_questions: int, attempts: int) -> list[str]:
    """Return the module and its arguments."""
    return [
        "-m", "lm_eval", "--model", "rsp",
        "--model_args", f"pretrained=tiny,length=2,seed=0,store={store}",
        "--tasks", "tiny_gsm8k_passn", "--limit", str(n_questions),
        "--metadata", json.dumps({"attempts": attempts}), "--gen_kwargs", "max_gen_toks=40",
        "--batch_size", "16", "--log_samples", "--output_path", str(output),
    ]  # fmt: skip


def on_two_hosts(folder: Path, arguments: Sequence[str], timeout: float) -> None:
    """Run one process per host.

    Raises
    ------
    HostsError
        If one fails or they take too long; the message holds the end of both logs.
    """
    processes: list[subprocess.Popen[bytes]] = []
    deadline = time.monotonic() + timeout
    ended = f"did not end within {timeout:g} s"
    try:
        for rank, host in enumerate(HOSTS):
            processes.append(_start(folder, rank, host, arguments))
        statuses = [process.wait(max(0.0, deadline - time.monotonic())) for process in processes]
        if not any(statuses):
            return
        ended = f"ended with {statuses}"
    except subprocess.TimeoutExpired:
        pass
    finally:
        _end(processes)
    logs = [f"host {rank}:\n{_log(folder, rank).read_text()[-4000:]}" for rank in range(len(HOSTS))]
    raise HostsError("\n".join([*logs, f"the hosts {ended}"]))


def _log(folder: Path, rank: int) -> Path:
    return folder / f"host-{rank}.log"


def _start(folder: Path, rank: int, host: str, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    launcher = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node_rank",
        str(rank), "--nproc_per_node", "1", "--master_addr", ADDRESSES[0], "--master_port",
        str(PORT),
    ]  # fmt: skip
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"}
    environment["GLOO_SOCKET_IFNAME"] = DEVICES[rank]
    with _log(folder, rank).open("w") as log:
        return subprocess.Popen(
            ["ip", "netns", "exec", host, *launcher, *arguments],
            env=environment,
            stdout=log,
            stderr=log,
        )


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End what still runs: the launchers end their workers when they are asked to."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    patience = time.monotonic() + 5  # less than run_all grants us
    for process in processes:
        try:
            process.wait(max(0.0, patience - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def outcome(folder: Path) -> tuple[dict[str, Any], dict[int, Any]]:
    """Return metrics and attempts of a run."""
    (results,) = folder.rglob("results_*.json")
    (samples,) = folder.rglob("samples_*.jsonl")
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    return json.loads(results.read_text())["results"], {
        line["doc_id"]: (line["resps"], [one["correct"] for one in line["attempts"]])
        for line in lines
    }


def compare(folder: Path, n_questions: int, attempts: int, timeout: float) -> bool:
    """Run both, print what they took, and return whether the outcomes are the same."""
    two = lm_eval(folder / "two", folder / "store-2", n_questions, attempts)
    with two_hosts():
        began = time.perf_counter()
        on_two_hosts(folder, two, timeout)
        seconds = time.perf_counter() - began
    one = lm_eval(folder / "one", folder / "store-1", n_questions, attempts)
    began = time.perf_counter()
    alone = subprocess.run(
        [sys.executable, *one],
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    single = time.perf_counter() - began
    if alone.returncode:
        raise HostsError(
            f"{alone.stdout[-4000:]}\nthe single process ended with {alone.returncode}"
        )
    shares = [path.read_bytes().count(b'{"key"') for path in (folder / "store-2").iterdir()]
    same = outcome(folder / "two") == outcome(folder / "one")
    print(f"{n_questions} questions x {attempts}; attempts per host: {sorted(shares)}")
    print(f"two hosts {seconds:.1f} s, one process {single:.1f} s, start-up included")
    print(f"attempts and metrics: {'the same' if same else 'DIFFERENT'}")
    print(
        f"ratio: {single / seconds:.2f} (speed of two hosts on one machine / one process, "
        f"n = {n_questions * attempts} attempts)"
    )
    return same


def main(argv: Sequence[str] | None = None) -> int:
    """Run both and compare; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="5 questions x 4 instead of 31 x 16")
    parser.add_argument(
        "--timeout", type=float, default=1800, help="seconds for the two hosts (%(default)s)"
    )
    options = parser.parse_args(argv)
    n_questions, attempts = (5, 4) if options.quick else (31, 16)
    if shutil.which("ip") is None:
        print("skipped: no command ip (iproute2) on this machine")
        return SKIPPED
    try:
        with tempfile.TemporaryDirectory() as name:
            return 0 if compare(Path(name), n_questions, attempts, options.timeout) else 1
    except NotAllowedError as reason:
        print(f"skipped: network namespaces are not allowed here ({reason})")
        return SKIPPED
    except HostsError as reason:
        print(f"failed: {reason}")
        return 1


def _ended(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _ended)  # so that namespaces are removed
    sys.exit(main())

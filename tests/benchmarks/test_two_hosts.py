"""The benchmark of two hosts removes what it made and nothing else, with a stand-in for ``ip``."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "two_hosts.py"

# Notes what it is asked for; FAILS says which call fails and how, INSIDE what runs "on" a host.
FAKE = """#!/bin/sh
echo "$*" >> "$CALLS"
case "$*" in
  "netns exec "*) eval "$INSIDE" ;;
  "netns pids "*) exit 0 ;;
  $FAILS) echo "$REASON" >&2; exit 2 ;;
esac
"""


@pytest.fixture
def two_hosts():
    spec = importlib.util.spec_from_file_location("two_hosts", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def fake_ip(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "ip").write_text(FAKE)
    (folder / "ip").chmod(0o755)
    calls = tmp_path / "calls"
    calls.touch()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(calls))

    def prepare(fails="nothing", reason="", inside="exit 0"):
        monkeypatch.setenv("FAILS", fails)
        monkeypatch.setenv("REASON", reason)
        monkeypatch.setenv("INSIDE", inside)
        return lambda: calls.read_text().splitlines()

    return prepare


def deleted(calls):
    return [line.split()[-1] for line in calls if line.startswith("netns delete")]


def test_names_are_of_this_process(two_hosts):
    assert all(str(os.getpid()) in name for name in (*two_hosts.HOSTS, *two_hosts.DEVICES))
    assert all(len(name) <= 15 for name in two_hosts.DEVICES)


def test_somebody_elses_namespace_is_a_failure_and_stays(two_hosts, fake_ip, capsys):
    calls = fake_ip("netns add *", "Cannot create namespace file: File exists")
    assert two_hosts.main(["--quick"]) == 1
    printed = capsys.readouterr().out
    assert "failed: ip netns add" in printed
    assert "File exists" in printed
    assert "skipped" not in printed
    assert deleted(calls()) == []


def test_only_what_was_made_is_deleted(two_hosts, fake_ip, capsys):
    calls = fake_ip(f"netns add {two_hosts.HOSTS[1]}", "File exists")
    assert two_hosts.main(["--quick"]) == 1
    assert deleted(calls()) == [two_hosts.HOSTS[0]]
    capsys.readouterr()


@pytest.mark.parametrize("reason", ["Operation not permitted", "mkdir failed: Permission denied"])
def test_denied_is_skipped(two_hosts, fake_ip, capsys, reason):
    calls = fake_ip("netns add *", reason)
    assert two_hosts.main(["--quick"]) == two_hosts.SKIPPED
    assert "skipped: network namespaces are not allowed" in capsys.readouterr().out
    assert deleted(calls()) == []


def test_logs_of_both_hosts_are_shown(two_hosts, fake_ip, capsys):
    calls = fake_ip(inside='echo "log of $3"; exit 3')
    assert two_hosts.main(["--quick"]) == 1
    printed = capsys.readouterr().out
    assert all(f"log of {host}" in printed for host in two_hosts.HOSTS)
    assert "ended with [3, 3]" in printed
    assert sorted(deleted(calls())) == sorted(two_hosts.HOSTS)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_hosts_that_take_too_long_are_ended(two_hosts, fake_ip, capsys, tmp_path):
    calls = fake_ip(inside=f'echo $$ >> "{tmp_path}/pids"; exec sleep 60')
    assert two_hosts.main(["--quick", "--timeout", "2"]) == 1
    assert "did not end within 2 s" in capsys.readouterr().out
    pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    assert not any(map(alive, pids))
    assert sorted(deleted(calls())) == sorted(two_hosts.HOSTS)


def test_terminated_it_cleans_up(fake_ip, tmp_path):
    pids = tmp_path / "pids"
    calls = fake_ip(inside=f'echo $$ >> "{pids}"; exec sleep 60')
    process = subprocess.Popen([sys.executable, str(SCRIPT), "--quick"])
    try:
        deadline = time.monotonic() + 60
        while not pids.exists() or len(pids.read_text().split()) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.wait()
    assert not any(map(alive, map(int, pids.read_text().split())))
    assert len(deleted(calls())) == 2
    assert all(f"-{process.pid}-" in name for name in deleted(calls()))

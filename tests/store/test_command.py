"""Through the real ``lm_eval`` command: killed, interrupted, one of two processes dead."""

import json
import os
import re
import signal
import subprocess
import time

import psutil
import pytest
from kept_index import LM_EVAL

TIMES = {"date", "start_time", "end_time", "total_evaluation_time_seconds"}
# The speed of the CPU at the moment is in it.
MACHINE = {"pretty_env_info"}
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
N_ATTEMPTS, N_QUESTIONS, ROWS = 6, 5, 4


def command(output, store, *launcher):
    model_args = f"pretrained=tiny,seed=3,store={store}"
    return [
        LM_EVAL[0], *launcher, LM_EVAL[1], "--model", "epicar", "--model_args", model_args,
        "--tasks", "tiny_gsm8k_passn", "--limit", str(N_QUESTIONS),
        "--metadata", json.dumps({"attempts": N_ATTEMPTS}), "--gen_kwargs", "max_gen_toks=40",
        "--batch_size", str(ROWS), "--log_samples", "--output_path", str(output),
    ]  # fmt: skip


def heed_interrupts():
    """A shell starts its background jobs with Ctrl-C ignored, and their children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(*arguments, **options):
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "TMPDIR": os.environ.get("TMPDIR", "/tmp"),
    }
    return subprocess.Popen(
        command(*arguments), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, preexec_fn=heed_interrupts, **options,
    )  # fmt: skip


def finish(*arguments):
    process = start(*arguments)
    said = process.communicate(timeout=600)[1]
    assert process.returncode == 0, said[-2000:]
    return said


def n_kept(store):
    files = store.glob("*.jsonl")
    return sum(line.startswith(b'{"key"') for path in files for line in path.open("rb"))


def wait_for(process, store, n):
    deadline = time.monotonic() + 300
    while process.poll() is None and n_kept(store) < n:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def outcome(folder, store):
    """Return results and samples of a run without times, and without the name of the store."""
    (path,) = folder.rglob("results_*.json")
    results = json.loads(path.read_text())
    kept = {key: value for key, value in results.items() if key not in TIMES | MACHINE}
    kept["config"].get("lm_eval_ext", {}).pop("timing", None)
    for configuration in kept["configs"].values():
        configuration.pop("timing", None)
    samples = sorted(folder.rglob("samples_*.jsonl"))
    texts = [json.dumps(kept), *(sample.read_text() for sample in samples)]
    assert len(texts) == 2
    return [text.replace(str(store), "STORE") for text in texts]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    finish(folder / "output", folder / "store")
    return outcome(folder / "output", folder / "store")


def test_killed_interrupted_and_terminated(unbroken, tmp_path):
    store, output = tmp_path / "store", tmp_path / "output"
    n_before = 0
    for moment, request in ((3, signal.SIGKILL), (11, signal.SIGINT), (20, signal.SIGTERM)):
        process = start(output, store)
        wait_for(process, store, moment)
        process.send_signal(request)
        said = process.communicate(timeout=600)[1]
        assert process.returncode in {signal.SIGKILL: [-9], signal.SIGTERM: [143]}.get(
            request, [1, 130, -signal.SIGINT]
        )
        assert n_before < n_kept(store) < N_ATTEMPTS * N_QUESTIONS
        n_before = n_kept(store)
        if request != signal.SIGKILL:
            assert said.count("the same command resumes there") == 1
            (n_said,) = re.findall(r"holds (\d+) attempts", said)
            assert n_before - 1 <= int(n_said) <= n_before  # the signal may come after a write
    said = finish(output, store)
    assert f"{N_ATTEMPTS * N_QUESTIONS - n_before} of 30 attempts are to be generated" in said
    assert outcome(output, store) == unbroken


def attempts_of(outcome_texts):
    """Return what was answered and whether it is right, by question."""
    lines = map(json.loads, outcome_texts[1].splitlines())
    return {
        (line["doc_id"], line["filter"]): (
            line["resps"],
            [(one["attempt"], one["answer"], one["correct"]) for one in line["attempts"]],
        )
        for line in lines
    }


def test_one_of_two_processes_dies(unbroken, tmp_path):
    store, output = tmp_path / "store", tmp_path / "output"
    process = start(output, store, *TWO)
    wait_for(process, store, 6)
    ranks = {
        child.environ()["RANK"]: child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "RANK" in child.environ()
    }
    ranks["1"].kill()
    said = process.communicate(timeout=600)[1]
    assert process.returncode != 0
    assert not list(output.rglob("results_*.json"))
    assert "the same command resumes there" in said
    n_before = n_kept(store)
    assert n_before >= 6
    said = finish(output, store)  # with another number of processes
    assert f"{N_ATTEMPTS * N_QUESTIONS - n_before} of 30 attempts are to be generated" in said
    ours = outcome(output, store)
    assert attempts_of(ours) == attempts_of(unbroken)

"""``lm-eval-ext tasks`` lists what lm-eval would, from the files alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lm_eval_ext.__main__ import main
from lm_eval_ext.commands.tasks import ListedTask, listed_tasks

FOLDER = Path(__file__).resolve().parents[2] / "tasks"


def test_every_task_file_is_listed() -> None:
    found = [one.task for one in listed_tasks()]
    assert found == sorted(path.stem for path in FOLDER.rglob("*.yaml"))


@pytest.mark.parametrize(
    "row",
    [
        ("gsm8k_passn", "passn", "gsm8k:test", 8, "pass@k, maj@k, calibration"),
        ("gsm8k_calib_chat", "calib chat", "gsm8k:test", 0, "accuracy, calibration"),
        ("math_algebra_passn", "passn", "math:test", 4, "pass@k, maj@k, calibration"),
        ("mbpp_eu", "eu", "mbpp:test", 3, "AUROC of token uncertainty"),
        ("tiny_gsm8k_train_passn", "passn", "tiny_gsm8k:train", 0, "pass@k, maj@k, calibration"),
        ("math_passn", "group", "7 tasks", 0, "pass@k, maj@k, calibration"),
    ],
)
def test_a_row_says_what_the_file_says(row) -> None:
    assert ListedTask(*row) in listed_tasks()


def test_names_choose_rows(capsys) -> None:
    assert main(["tasks", "gsm8k_p*", "svamp_eu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "task", "gsm8k_passn", "gsm8k_passn_chat", "svamp_eu",
    ]  # fmt: skip
    assert main(["tasks", "gsm8k_passn", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["shots"] == 8
    assert main(["tasks", "gsm8k_pasn"]) == 2
    said = "gsm8k_pasn is not a task of this package: did you mean gsm8k_passn?"
    assert said in capsys.readouterr().err


def test_the_list_needs_nothing_of_lm_eval() -> None:
    code = (
        "import sys; from lm_eval_ext.__main__ import main; main(['tasks'])\n"
        "assert not {'lm_eval', 'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)

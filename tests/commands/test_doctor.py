"""The doctor's findings, each look by itself on a healthy and on a damaged state."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import re
import types
from pathlib import Path

import pytest
import torch

from lm_eval_ext.commands import doctor
from lm_eval_ext.harness import bridge


def statuses(look) -> dict[str, str]:
    return {finding.subject: finding.status for finding in look()}


def test_packages_of_this_environment_are_fine() -> None:
    found = statuses(doctor.packages)
    assert {"lm_eval_ext", *doctor.SHOWN_PACKAGES} <= set(found)
    assert set(found.values()) == {"ok"}


def test_a_missing_and_an_old_package_fail_with_a_remedy(monkeypatch) -> None:
    versions = {"torch": None, "transformers": "4.57.0"}
    real = doctor._installed_version
    monkeypatch.setattr(
        doctor, "_installed_version", lambda name: versions.get(name, real(name) or "0")
    )
    found = {finding.subject: finding for finding in doctor.packages()}
    assert (found["torch"].status, found["torch"].detail) == ("FAIL", "not installed")
    assert found["transformers"].status == "FAIL"
    assert "4.57.0 is installed, >=5 is needed" in found["transformers"].detail
    assert found["transformers"].remedy == "pip install 'transformers>=5'"
    assert found["accelerate"].status == "ok"


def test_a_missing_extra_is_a_warning(monkeypatch) -> None:
    monkeypatch.setattr(doctor, "_installed_version", lambda name: None if name == "trl" else "1")
    found = {finding.subject: finding for finding in doctor.extras()}
    assert found["extra train"].status == "warn"
    assert "trl" in found["extra train"].detail
    assert "lm-eval-ext[train]" in found["extra train"].remedy
    assert found["extra vllm"].status == "ok"
    assert "extra dev" not in found


@pytest.mark.parametrize(
    ("discovers", "armed", "status", "words"),
    [
        (True, False, "ok", "discovers plugins itself"),
        (False, True, "ok", "lm_eval_ext_bridge.pth"),
        (False, False, "FAIL", "not armed"),
    ],
)
def test_registration(monkeypatch, discovers, armed, status, words) -> None:
    monkeypatch.setattr(bridge, "lm_eval_discovers_plugins", lambda: discovers)
    monkeypatch.setattr(bridge, "is_armed", lambda: armed)
    (finding,) = doctor.registration()
    assert finding.status == status
    assert words in finding.detail
    assert bool(finding.remedy) == (status == "FAIL")


def entry_point(name: str, value: str) -> importlib.metadata.EntryPoint:
    return importlib.metadata.EntryPoint(name, value, "lm_eval.models")


def test_models_are_loaded_through_lm_eval(monkeypatch) -> None:
    bridge.arm()
    import lm_eval.models  # noqa: F401  # its first import registers: ours, not those below

    ours = [
        entry_point("dummy", "lm_eval_ext.model_wrappers.mine:Mine"),  # lm-eval's own name
        entry_point("nowhere", "lm_eval_ext.model_wrappers.nowhere:Nowhere"),
        entry_point("hf", "lm_eval.models.huggingface:HFLM"),
    ]
    monkeypatch.setattr(bridge, "entry_points", lambda group: ours)
    found = {finding.subject: finding for finding in doctor.models()}
    assert found["model dummy"].status == "warn"
    assert "belongs to lm_eval.models.dummy" in found["model dummy"].detail
    assert (found["model nowhere"].status, found["models"].detail) == ("FAIL", "lm-eval knows hf")
    loaded = {finding.subject: finding for finding in doctor.model_classes()}
    assert loaded["model class nowhere"].status == "FAIL"
    assert "nowhere" in loaded["model class nowhere"].detail
    assert "\n" not in loaded["model class nowhere"].detail
    assert loaded["model class hf"].status == "ok"


@pytest.mark.parametrize(("seen", "status"), [(True, "ok"), (False, "FAIL")])
def test_tasks(monkeypatch, seen: bool, status: str) -> None:
    import lm_eval.tasks

    folder = bridge.tasks_folder()
    assert folder is not None
    path = folder / "x" / "x.yaml" if seen else Path("/elsewhere/x.yaml")
    index = {
        "x": types.SimpleNamespace(yaml_path=path),
        "tag": types.SimpleNamespace(yaml_path=None),
    }
    manager = types.SimpleNamespace(task_index=index)
    monkeypatch.setattr(lm_eval.tasks, "TaskManager", lambda: manager)
    (finding,) = doctor.listed_tasks()
    assert finding.status == status
    assert bool(finding.remedy) == (not seen)


def test_devices_without_and_with_a_gpu(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    assert statuses(doctor.devices) == {"cpu": "ok", "cuda": "ok"}
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert statuses(doctor.devices)["cuda"] == "warn"
    properties = types.SimpleNamespace(name="H200", total_memory=141 * 2**30)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    assert "H200, 141 GiB" in [finding.detail for finding in doctor.devices()]


def test_data_folder(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LM_EVAL_EXT_DATA", raising=False)
    assert statuses(doctor.data) == {"data": "ok"}
    monkeypatch.setenv("LM_EVAL_EXT_DATA", str(tmp_path))
    assert statuses(doctor.data) == {"data": "FAIL"}
    (tmp_path / "gsm8k_test.jsonl").touch()
    (finding,) = doctor.data()
    assert finding.status == "ok"
    assert "gsm8k_test.jsonl" in finding.detail
    monkeypatch.setenv("LM_EVAL_EXT_DATA", str(tmp_path / "typo"))
    (finding,) = doctor.data()
    assert (finding.status, "is not a folder" in finding.detail) == ("FAIL", True)


def test_shipped_model(monkeypatch, tmp_path: Path) -> None:
    import lm_eval_ext.models.shipped

    (whole,) = doctor.shipped_models()
    assert whole.status == "ok"
    assert re.search(r"tiny-epicar \d.* MB, tiny-drafts \d.* MB$", whole.detail)
    monkeypatch.setattr(lm_eval_ext.models.shipped, "model_path", lambda name: str(tmp_path))
    (tmp_path / "config.json").touch()
    finding = next(doctor.shipped_models())
    assert finding.status == "FAIL"
    assert finding.detail.endswith("lacks model.safetensors, tokenizer.json")


def test_fetched_models(monkeypatch, tmp_path: Path) -> None:
    from lm_eval_ext.models.fetching import CACHE_VARIABLE

    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    (finding,) = doctor.fetched_models()
    assert (finding.subject, finding.status) == ("model files smollm2", "warn")
    assert finding.detail == (
        f"optional, SmolLM2-135M-Instruct (Q4_1) is not in the cache {tmp_path} yet"
    )
    assert finding.remedy == "lm-eval-ext fetch smollm2 if you need it"
    (tmp_path / "smollm2").mkdir()
    (tmp_path / "smollm2" / "fetched.json").write_text("{}")
    (finding,) = doctor.fetched_models()
    assert (finding.status, finding.remedy) == ("FAIL", "lm-eval-ext fetch smollm2")


def test_a_whole_fetched_model_is_listed(smollm2: str) -> None:
    (finding,) = doctor.fetched_models()
    assert finding.status == "ok"
    assert finding.detail == f"SmolLM2-135M-Instruct (Q4_1), 541.6 MB in {smollm2}"


def test_the_layers_of_the_sandbox_are_attacked(monkeypatch) -> None:
    """What it says holds is what held: with a layer left out, the line about it changes."""
    from lm_eval_ext.grading.sandbox import pool

    if statuses(doctor.sandbox) == {"sandbox": "warn"}:
        pytest.skip("no sandbox on this machine")
    found = statuses(doctor.attacks)
    assert found["attacks"] == "ok"
    for name in ("files outside cannot be read", "no network", "memory has a limit"):
        assert found[f"sandbox, {name}"] == "ok"
    monkeypatch.setattr(
        pool, "Pool", functools.partial(pool.Pool, ["process"], without=["seccomp", "landlock"])
    )
    monkeypatch.delenv(pool.UNSANDBOXED, raising=False)
    (refused,) = doctor.sandbox()
    assert refused.status == "warn"
    assert "files outside cannot be read" in refused.detail
    assert pool.UNSANDBOXED in refused.remedy
    monkeypatch.setenv(pool.UNSANDBOXED, "1")
    bare = {finding.subject: finding for finding in doctor.attacks()}
    assert bare["attacks"].status == "warn"
    assert bare["sandbox, files outside cannot be read"].status == "warn"
    assert bare["sandbox, files outside cannot be read"].detail == "it worked"
    assert bare["sandbox, seccomp"].detail == "left out"


def test_without_a_sandbox_it_is_a_warning(monkeypatch) -> None:
    from lm_eval_ext.grading.sandbox import pool

    monkeypatch.setattr(pool.sys, "platform", "win32")
    (finding,) = doctor.sandbox()
    assert finding.status == "warn"
    assert "only on Linux" in finding.detail
    assert pool.UNSANDBOXED in finding.remedy


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        ({"url": "file:///src", "dir_info": {"editable": True}}, "pip install --no-deps -e /src"),
        ({"url": "file:///src", "dir_info": {}}, "pip install --no-deps --force-reinstall /src"),
        (None, "pip install --no-deps --force-reinstall lm-eval-ext"),
    ],
)
def test_the_remedy_names_where_the_package_came_from(monkeypatch, origin, command) -> None:
    record = None if origin is None else json.dumps(origin)
    distribution = types.SimpleNamespace(read_text=lambda name: record)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: distribution)
    assert doctor.reinstall_command() == command


def test_a_look_that_crashes_is_a_finding(monkeypatch) -> None:
    def broken():
        raise ImportError("libtorch.so:\n cannot open shared object file")
        yield

    monkeypatch.setattr(doctor, "LOOKS", (broken, doctor.python_version))
    first, second = doctor.examine()
    assert (first.subject, first.status) == ("broken", "FAIL")
    assert first.detail == "ImportError: libtorch.so: cannot open shared object file"
    assert second.subject == "python"


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("warn", 0), ("FAIL", 1)])
@pytest.mark.parametrize("as_json", [True, False])
def test_report_and_exit_status(monkeypatch, capsys, status, code, as_json) -> None:
    finding = doctor.Finding("thing", status, "as it is", "mend it")
    monkeypatch.setattr(doctor, "LOOKS", (lambda: iter([finding]),))
    assert doctor.run(doctor.DoctorOptions(json=as_json)) == code
    out = capsys.readouterr().out
    if as_json:
        (only,) = json.loads(out)
        assert only == {
            "subject": "thing",
            "status": status,
            "detail": "as it is",
            "remedy": "mend it",
        }
    else:
        assert out == f"{status:4}  thing: as it is -> mend it\n"


def test_this_installation_is_healthy(capsys) -> None:
    assert doctor.run(doctor.DoctorOptions(json=True)) == 0, capsys.readouterr().out

"""``lm-eval-ext doctor``: what is installed, what lm-eval sees of it, and what is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from lm_eval_ext.checks import option
from lm_eval_ext.harness import bridge

Status = Literal["ok", "warn", "FAIL"]

SHOWN_PACKAGES = ("lm_eval", "torch", "transformers", "datasets", "accelerate")
"""Dependencies whose versions are always shown; the others only when something is wrong."""


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Parameters
    ----------
    subject
        What was looked at.
    status
        ``"ok"``; ``"warn"``: works, but not all of it; ``"FAIL"``: does not work.
    detail
        What was found.
    remedy
        What to do about it; empty when there is nothing to do.
    """

    subject: str
    status: Status
    detail: str
    remedy: str = ""


def examine(*, full: bool = False) -> Iterator[Finding]:
    """Look at everything, in the order of the report; what cannot be looked at is a finding too."""
    for look in (*LOOKS, *SLOW_LOOKS) if full else LOOKS:
        try:
            yield from look()
        except Exception as error:  # whatever a damaged installation raises
            detail = f"{type(error).__name__}: {_one_line(error)}"
            yield Finding(look.__name__, "FAIL", detail, "mend what is reported above, run again")


def python_version() -> Iterator[Finding]:
    """Look at the interpreter."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", "ok", f"{version} at {sys.executable}")


def packages() -> Iterator[Finding]:
    """Compare the installed dependencies with what our own metadata asks for."""
    yield Finding("lm_eval_ext", "ok", importlib.metadata.version(bridge.DISTRIBUTION))
    for requirement in requirements(extra=None):
        name = requirement.name.replace("-", "_")
        version = _installed_version(requirement.name)
        install = f"pip install '{requirement.name}{requirement.specifier}'"
        if version is None:
            yield Finding(name, "FAIL", "not installed", install)
        elif not requirement.specifier.contains(version, prereleases=True):
            needed = f"{version} is installed, {requirement.specifier} is needed"
            yield Finding(name, "FAIL", needed, install)
        elif name in SHOWN_PACKAGES:
            yield Finding(name, "ok", version)


def extras() -> Iterator[Finding]:
    """Say which optional packages are missing, and the extra that brings each."""
    metadata = importlib.metadata.metadata(bridge.DISTRIBUTION)
    for extra in metadata.get_all("Provides-Extra") or []:
        if extra == "dev":
            continue
        missing = [r.name for r in requirements(extra) if _installed_version(r.name) is None]
        if missing:
            remedy = f"pip install '{bridge.DISTRIBUTION}[{extra}]' if you need it"
            detail = f"optional, not installed: {', '.join(missing)}"
            yield Finding(f"extra {extra}", "warn", detail, remedy)
        else:
            yield Finding(f"extra {extra}", "ok", "installed")


def registration() -> Iterator[Finding]:
    """Say how lm-eval comes to know us."""
    if bridge.lm_eval_discovers_plugins():
        yield Finding("registration", "ok", "lm-eval discovers plugins itself")
    elif bridge.is_armed():
        detail = "bridge, armed at start-up by lm_eval_ext_bridge.pth in site-packages"
        yield Finding("registration", "ok", detail)
    else:
        detail = "bridge not armed: lm_eval_ext_bridge.pth is missing or was not read at start-up"
        remedy = f"{reinstall_command()}; or call lm_eval_ext.harness.bridge.arm() before lm-eval"
        yield Finding("registration", "FAIL", detail, remedy)


def models() -> Iterator[Finding]:
    """Look up each of our models among lm-eval's, without importing it."""
    import lm_eval.models  # noqa: F401  # registers them
    from lm_eval.api.registry import model_registry

    known = {name: value if isinstance(value, str) else f"{value.__module__}:{value.__qualname__}"
             for name, value in model_registry.items()}  # fmt: skip
    ours = bridge.entry_points("lm_eval.models")
    for entry_point in ours:
        subject, where = f"model {entry_point.name}", known.get(entry_point.name)
        if where is None:
            yield Finding(subject, "FAIL", "lm-eval does not know it", reinstall_command())
        elif where != entry_point.value:
            remedy = f"use the class {entry_point.value} from Python"
            yield Finding(subject, "warn", f"the name belongs to {where}", remedy)
    found = [one.name for one in ours if known.get(one.name) == one.value]
    if found:
        yield Finding("models", "ok", f"lm-eval knows {', '.join(found)}")


def model_classes() -> Iterator[Finding]:
    """Load the class of each of our models."""
    for entry_point in bridge.entry_points("lm_eval.models"):
        subject = f"model class {entry_point.name}"
        try:
            entry_point.load()
        except Exception as error:  # whatever an import can raise is the finding
            detail = f"does not load: {type(error).__name__}: {_one_line(error)}"
            yield Finding(subject, "FAIL", detail, reinstall_command())
        else:
            yield Finding(subject, "ok", entry_point.value)


def tasks() -> Iterator[Finding]:
    """Let lm-eval read our tasks."""
    from lm_eval.tasks import TaskManager

    folder = bridge.tasks_folder()
    if folder is None:
        remedy = reinstall_command()
        yield Finding("tasks", "FAIL", "the package lm_eval_ext.tasks is missing", remedy)
        return
    manager = TaskManager(include_defaults=False, include_path=str(folder))
    detail = f"lm-eval reads {len(manager.all_tasks)} from {folder}"
    yield Finding("tasks", "ok", detail)


def listed_tasks() -> Iterator[Finding]:
    """Ask lm-eval for our tasks among its own, as ``lm_eval ls tasks`` does."""
    from lm_eval.tasks import TaskManager

    folder = bridge.tasks_folder()
    assert folder is not None  # `tasks` said so
    index = TaskManager().task_index
    ours = [
        name
        for name, entry in index.items()
        if entry.yaml_path is not None and Path(entry.yaml_path).is_relative_to(folder)
    ]
    if ours:
        yield Finding("listed tasks", "ok", f"lm-eval lists {len(ours)} from {folder}")
    else:
        detail = f"lm-eval lists none from {folder}"
        remedy = f"{reinstall_command()}, or add --include_path {folder}"
        yield Finding("listed tasks", "FAIL", detail, remedy)


def devices() -> Iterator[Finding]:
    """Say what models can run on."""
    import torch

    yield Finding("cpu", "ok", f"{torch.get_num_threads()} threads, {os.cpu_count()} cores")
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = properties.total_memory / 2**30
        yield Finding(f"cuda:{index}", "ok", f"{properties.name}, {memory:.0f} GiB")
    if torch.cuda.device_count() == 0:
        if shutil.which("nvidia-smi"):
            detail = f"torch {torch.__version__} does not use the NVIDIA driver that is present"
            remedy = "install a CUDA build of torch: https://pytorch.org/get-started/locally"
            yield Finding("cuda", "warn", detail, remedy)
        else:
            yield Finding("cuda", "ok", "no device: models run on the CPU")


def data() -> Iterator[Finding]:
    """Look into the folder of local data sets, where one is set."""
    value = os.environ.get("LM_EVAL_EXT_DATA")
    if not value:
        yield Finding("data", "ok", "LM_EVAL_EXT_DATA not set: data sets come from the Hub")
        return
    remedy = "point LM_EVAL_EXT_DATA at the folder of the .jsonl files, or unset it"
    folder = Path(value).expanduser()
    files = sorted(path.name for path in folder.glob("*.jsonl")) if folder.is_dir() else []
    if files:
        yield Finding("data", "ok", f"LM_EVAL_EXT_DATA={value}: {', '.join(files)}")
    else:
        what = "has no .jsonl file" if folder.is_dir() else "is not a folder"
        yield Finding("data", "FAIL", f"LM_EVAL_EXT_DATA={value} {what}", remedy)


def shipped_models() -> Iterator[Finding]:
    """Look for the files of the models in the package."""
    from lm_eval_ext.models.shipped import SHIPPED, SHIPPED_DRAFTS, model_path

    whole = []
    for name in (*SHIPPED, *SHIPPED_DRAFTS):
        folder = Path(model_path(name))
        needed: tuple[str, ...] = ("config.json", "model.safetensors", "tokenizer.json")
        if name in SHIPPED_DRAFTS:
            needed = ("drafts.json",)
        missing = [file for file in needed if not (folder / file).is_file()]
        if missing:
            detail = f"{folder} lacks {', '.join(missing)}"
            yield Finding(f"model files {name}", "FAIL", detail, reinstall_command())
        else:
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            whole.append(f"{name} {size / 1e6:.1f} MB")
    if whole:
        yield Finding("model files", "ok", ", ".join(whole))


def fetched_models() -> Iterator[Finding]:
    """Look for the models of ``lm-eval-ext fetch`` in the cache."""
    from lm_eval_ext.models.fetching import FETCHED, cache_folder, what_is_wrong

    for name, model in FETCHED.items():
        subject, folder = f"model files {name}", cache_folder() / name
        wrong = what_is_wrong(name, folder)
        if wrong is None:
            size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
            yield Finding(subject, "ok", f"{model.title}, {size:.1f} MB in {folder}")
        elif folder.exists():
            yield Finding(subject, "FAIL", wrong, f"lm-eval-ext fetch {name}")
        else:
            detail = f"optional, {model.title} is {wrong}"
            yield Finding(subject, "warn", detail, f"lm-eval-ext fetch {name} if you need it")


def sandbox() -> Iterator[Finding]:
    """Start the sandbox that model-written programs run in."""
    from lm_eval_ext.errors import UserError
    from lm_eval_ext.grading.sandbox.pool import Pool

    pool = Pool(size=1)
    try:
        back_end = pool.zygote().back_end
    except UserError as error:
        reasons, _, remedy = str(error).rpartition("): ")
        yield Finding("sandbox", "warn", f"{reasons})", remedy)
    else:
        yield Finding("sandbox", "ok", f"{back_end} starts; --full attacks it")
    finally:
        pool.close()


def attacks() -> Iterator[Finding]:
    """Attack the sandbox, and say which layers hold."""
    from lm_eval_ext.errors import UserError
    from lm_eval_ext.grading.sandbox.layers import examine
    from lm_eval_ext.grading.sandbox.pool import Pool

    pool = Pool(size=1)
    try:
        zygote = pool.zygote()
        layers = examine(zygote)
    except UserError:
        return  # `sandbox` said why
    finally:
        pool.close()
    broken = [layer.name for layer in layers if layer.needed and not layer.holds]
    if broken:
        detail = f"{zygote.back_end}: used as you said so, without: {', '.join(broken)}"
        yield Finding("attacks", "warn", detail, "see docs/sandbox.md")
    else:
        yield Finding("attacks", "ok", f"{zygote.back_end}: model-written programs are isolated")
    for layer in layers:
        status: Status = "ok" if layer.holds else "warn"
        yield Finding(f"sandbox, {layer.name}", status, layer.detail)


LOOKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    python_version,
    packages,
    registration,
    models,
    tasks,
    devices,
    data,
    shipped_models,
    fetched_models,
    sandbox,
    extras,
)
"""What `examine` looks at, in order."""

SLOW_LOOKS = (model_classes, listed_tasks, attacks)
"""What it looks at as well on request."""


def requirements(extra: str | None) -> Iterator[Requirement]:
    """Yield what this distribution requires: always, or only with one of its extras."""
    for line in importlib.metadata.requires(bridge.DISTRIBUTION) or []:
        requirement = Requirement(line)
        marker = requirement.marker
        # Without an extra given, markers that ask for one do not hold.
        always = marker is None or marker.evaluate({"extra": ""})
        if extra is None:
            wanted = always
        else:
            wanted = marker is not None and not always and marker.evaluate({"extra": extra})
        if wanted:
            yield requirement


def reinstall_command() -> str:
    """Return the command that installs this distribution again from where it came from."""
    record = importlib.metadata.distribution(bridge.DISTRIBUTION).read_text("direct_url.json")
    origin = json.loads(record) if record else {}
    source = origin.get("url", bridge.DISTRIBUTION).removeprefix("file://")
    if origin.get("dir_info", {}).get("editable"):
        return f"pip install --no-deps -e {source}"
    return f"pip install --no-deps --force-reinstall {source}"


def _installed_version(distribution: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _one_line(error: Exception) -> str:
    """Return an error's message without its line breaks."""
    return " ".join(str(error).split())


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """Check the installation and say what is missing.

    Example: lm-eval-ext doctor --full
    """

    full: bool = option(
        "also load every model class, let lm-eval list all tasks, and attack the sandbox", False
    )
    json: bool = option("print the report as JSON", False)


def run(options: DoctorOptions) -> int:
    """Print the report; return 1 when something does not work, otherwise 0."""
    findings = []
    logging.disable(logging.WARNING)  # the report says it in its own words
    try:
        for finding in examine(full=options.full):
            findings.append(finding)
            if not options.json:
                remedy = f" -> {finding.remedy}" if finding.remedy else ""
                # At once: importing torch and asking lm-eval for its tasks takes some seconds.
                print(
                    f"{finding.status:4}  {finding.subject}: {finding.detail}{remedy}", flush=True
                )
    finally:
        logging.disable(logging.NOTSET)
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    return 1 if any(finding.status == "FAIL" for finding in findings) else 0

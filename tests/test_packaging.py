"""What is installed, and what lm-eval sees of it: from the wheel and from an editable install.

Each installation is a virtual environment of its own that borrows the packages of the one that
runs the tests, but not its ``.pth`` files: so it has our bridge only if our installation brings it.
"""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import lm_eval_ext

ROOT = Path(__file__).parents[1]
PTH = "lm_eval_ext_bridge.pth"
FOLDERS = {"lm_eval_ext": "lm_eval_ext", "model_wrappers": "lm_eval_ext/model_wrappers"}
FOLDERS["tasks"] = "lm_eval_ext/tasks"
PROBE = "task: packaging_probe\ndataset_path: json\noutput_type: generate_until\n"

# One worker runs them all, and builds once.
pytestmark = pytest.mark.xdist_group("packaging")


def run(*command: str | Path, cwd: Path, timeout: float = 300) -> str:
    """Run a command outside the repository, without variables that change what Python sees."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**environment, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the sources, with one more task, so that building leaves no trace here."""
    copy = tmp_path_factory.mktemp("source")
    skipped = shutil.ignore_patterns("__pycache__", "*.pyc")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=skipped)
    for file in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / file, copy)
    probe = copy / "tasks" / "packaging_probe"
    (probe / "__pycache__").mkdir(parents=True)
    (probe / "__pycache__" / "left_over.cpython-310.pyc").touch()
    (probe / "packaging_probe.yaml").write_text(PROBE)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    """Return the wheel that is built from the source distribution."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", ".", cwd=source)
    assert list((source / "dist").glob("*.tar.gz"))
    return next((source / "dist").glob("*.whl"))


def environment(folder: Path) -> Path:
    """Make a virtual environment on top of this one's packages and return its interpreter."""
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    python = folder / "bin" / "python"
    site_packages = site_packages_of(python)
    (site_packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def site_packages_of(python: Path) -> Path:
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(run(python, "-c", code, cwd=python.parent).strip())


def pip(python: Path, *words: str | Path) -> str:
    return run(sys.executable, "-m", "pip", "--python", python, *words, cwd=python.parent)


INSTALL = ("install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index")


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, source: Path
) -> Path:
    """Return the interpreter of an environment with our package installed."""
    python = environment(tmp_path_factory.mktemp(request.param) / "env")
    if request.param == "wheel":
        what: tuple[str | Path, ...] = (request.getfixturevalue("wheel"),)
    else:
        what = ("--editable", source)
    pip(python, *INSTALL, "--ignore-installed", *what)
    return python


def test_the_wheel_holds_every_module_and_data_file(source: Path, wheel: Path) -> None:
    expected = {
        f"{installed}/{path.relative_to(source / folder).as_posix()}"
        for folder, installed in FOLDERS.items()
        for path in (source / folder).rglob("*")
        if path.is_file() and path.suffix not in (".pyc", ".pth")
    }
    names = set(zipfile.ZipFile(wheel).namelist())
    held = {name for name in names if ".dist-info/" not in name}
    assert held == expected | {PTH}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_wheels_metadata(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = Parser().parsestr(archive.read(name).decode())
    assert metadata["Name"] == "lm-eval-ext"
    assert metadata["Version"] == lm_eval_ext.__version__
    assert metadata["Requires-Python"] == ">=3.10"
    assert set(metadata.get_all("Provides-Extra")) == {"fetch", "train", "vllm", "report", "dev"}


def test_the_pth_file_is_one_line_that_runs(wheel: Path) -> None:
    text = zipfile.ZipFile(wheel).read(PTH).decode("ascii")
    (line,) = [line for line in text.splitlines() if not line.startswith("#")]
    assert line.startswith("import ")
    code = f"{line}\nassert 'lm_eval_ext' not in sys.modules; print(len(sys.meta_path))"
    bare = run(sys.executable, "-S", "-c", "import sys; print(len(sys.meta_path))", cwd=ROOT)
    hooked = run(sys.executable, "-S", "-c", code, cwd=ROOT)
    assert int(hooked) == int(bare) + 1


def test_lm_eval_finds_our_models_lazily(installed: Path, tmp_path: Path) -> None:
    code = """
import lm_eval.models, sys
from lm_eval.api.registry import model_registry
assert model_registry.items() >= {
    "sampled": "lm_eval_ext.model_wrappers.sampled:SampledLM",
    "rsp": "lm_eval_ext.model_wrappers.rsp:RSP",
}.items()
assert not {"torch", "lm_eval_ext.model_wrappers"} & set(sys.modules)
print(*[name for name in sys.modules if name.startswith("lm_eval_ext")])
"""
    ours = set(run(installed, "-c", code, cwd=tmp_path).split())
    rooms = {"lm_eval_ext", "lm_eval_ext.harness"}
    assert ours == {*rooms, "lm_eval_ext.harness.bridge", "lm_eval_ext.errors"}


def test_isolated_mode_finds_them_too(installed: Path, tmp_path: Path) -> None:
    code = "import lm_eval.models as m; from lm_eval.api.registry import model_registry as r"
    assert run(installed, "-I", "-c", f"{code}; print('rsp' in r)", cwd=tmp_path) == "True\n"


# lm-eval scans its 14,000 files each time, which takes many seconds: each way to start it is tried
# on one kind of installation.
@pytest.mark.parametrize("installed", ["wheel"], indirect=True)
def test_the_console_script_lists_our_tasks(installed: Path, tmp_path: Path) -> None:
    script = Path(sysconfig.get_path("scripts")) / "lm_eval"
    assert "|packaging_probe " in run(installed, script, "ls", "tasks", cwd=tmp_path)


@pytest.mark.parametrize("installed", ["editable"], indirect=True)
def test_python_m_lm_eval_validates_our_tasks(installed: Path, tmp_path: Path) -> None:
    out = run(
        installed, "-m", "lm_eval", "validate", "--tasks", "packaging_probe,gsm8k", cwd=tmp_path
    )
    assert "All tasks found and valid" in out


@pytest.mark.parametrize("installed", ["wheel"], indirect=True)
def test_accelerate_launch_finds_our_tasks(installed: Path, tmp_path: Path) -> None:
    launch = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1")
    command = ("-m", "lm_eval", "validate", "--tasks", "packaging_probe")
    assert "All tasks found and valid" in run(installed, *launch, *command, cwd=tmp_path)


def test_other_processes_import_nothing_of_ours(installed: Path, tmp_path: Path) -> None:
    code = "import json, numpy, sys; print([m for m in sys.modules if m.startswith('lm_eval')])"
    assert run(installed, "-c", code, cwd=tmp_path) == "[]\n"


def test_our_command_is_installed(installed: Path, tmp_path: Path) -> None:
    command = installed.with_name("lm-eval-ext")
    assert run(command, "--version", cwd=tmp_path).strip() == lm_eval_ext.__version__


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_uninstalling_removes_everything(
    kind: str, source: Path, wheel: Path, tmp_path: Path
) -> None:
    python = environment(tmp_path / "env")
    site_packages = site_packages_of(python)
    before = {path.name for path in site_packages.iterdir()}
    what = (wheel,) if kind == "wheel" else ("--editable", source)
    pip(python, *INSTALL, "--ignore-installed", *what)
    assert (site_packages / PTH).is_file()
    pip(python, "uninstall", "--quiet", "--yes", "lm-eval-ext")
    assert {path.name for path in site_packages.iterdir()} - {"__pycache__"} == before
    run(python, "-c", "import lm_eval", cwd=tmp_path)


# --- the files of the project agree with each other -------------------------------------------


def test_constraints_pin_every_direct_dependency() -> None:
    pins = [
        Requirement(line)
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    from lm_eval_ext.commands.doctor import requirements

    direct = [r for extra in (None, "train", "report", "fetch", "dev") for r in requirements(extra)]
    assert len(direct) > 10
    for python in ("3.10", "3.11", "3.12", "3.13"):
        context = {"python_version": python, "extra": ""}
        pinned = {
            canonical(pin.name): next(iter(pin.specifier)).version
            for pin in pins
            if pin.marker is None or pin.marker.evaluate(context)
        }
        for requirement in direct:
            version = pinned.get(canonical(requirement.name))
            assert version is not None, f"{requirement.name} has no pin for Python {python}"
            assert requirement.specifier.contains(version), requirement


def test_releases_nobody_has_tested_are_not_installed() -> None:
    from lm_eval_ext.commands.doctor import requirements

    bounds = {r.name: r.specifier for extra in (None, "vllm") for r in requirements(extra)}
    for name, tested, others in (
        ("lm-eval", ("0.4.13", "0.4.14"), ("0.4.12", "0.5.0", "0.5.0.dev1", "1.0")),
        ("vllm", ("0.32.0", "0.32.1"), ("0.31.0", "0.33.0", "1.0")),
    ):
        assert all(bounds[name].contains(version, prereleases=True) for version in tested)
        assert not any(bounds[name].contains(version, prereleases=True) for version in others)


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_imported_package_is_a_declared_dependency() -> None:
    from lm_eval_ext.commands.doctor import requirements

    distributions = importlib.metadata.packages_distributions()
    declared = {
        canonical(requirement.name)
        for extra in (None, "train", "vllm", "report")
        for requirement in requirements(extra)
    }
    missing = {
        f"{path.relative_to(ROOT)} imports {module}"
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        for module in imported_modules(path)
        if module not in sys.stdlib_module_names and module != "lm_eval_ext"
        if not declared & {canonical(name) for name in distributions.get(module, [module])}
    }
    assert not missing


def imported_modules(path: Path) -> set[str]:
    """Return the top-level packages that a file imports anywhere."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names


def test_citation_names_this_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {lm_eval_ext.__version__}\n" in citation


def test_sources_are_python_3_10() -> None:
    files = [path for folder in (*FOLDERS, "tests") for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 20
    for path in files:
        ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=(3, 10))

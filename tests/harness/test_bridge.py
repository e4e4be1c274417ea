"""The bridge against the installed lm-eval, each test in a process of its own.

A process is given entry points of our distribution by a ``.dist-info`` folder that lies first on
its path, and modules that those entry points name beside it.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
import types
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest

from lm_eval_ext.harness import bridge

Index = dict[str, Any]
Build = Callable[[list[Path]], Index]

BUILT_IN = {"models": "hf", "filters": "regex", "metrics": "acc", "aggregations": "mean"}
REGISTRIES = {
    "models": "model_registry",
    "filters": "filter_registry",
    "metrics": "metric_registry",
    "aggregations": "aggregation_registry",
}


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """Return a folder with a distribution of ours: in each group one new name and a built-in's."""
    info = tmp_path / "lm_eval_ext-9.9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lm-eval-ext\nVersion: 9.9.9\n")
    lines = []
    for group, taken in BUILT_IN.items():
        lines += [f"[lm_eval.{group}]", f"{taken} = target_module:thing"]
        lines += ["new_name = target_module:thing"]
    (info / "entry_points.txt").write_text("\n".join(lines))
    (tmp_path / "target_module.py").write_text("def thing(items):\n    return 42.0\n")
    return tmp_path


def run_python(code: str, path: Path) -> str:
    """Run code in a new process that finds ``path`` first, and return what it printed."""
    script = "import lm_eval_ext.harness.bridge as bridge\n" + textwrap.dedent(code)
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(path)!r})\n{script}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


IMPORT_ALL = """
    import sys
    import lm_eval.api.registry as registry
    import lm_eval.models, lm_eval.filters, lm_eval.api.metrics
"""


def test_new_names_are_registered_in_every_group_and_loaded_on_first_use(plugin: Path) -> None:
    code = f"""
    bridge.arm()
    {IMPORT_ALL}
    if not bridge.lm_eval_discovers_plugins():  # it looks for them when one is asked for
        for name in {list(REGISTRIES.values())}:
            assert "new_name" in getattr(registry, name), name
    assert "target_module" not in sys.modules
    assert registry.get_aggregation("new_name")([1, 2]) == 42.0
    assert registry.get_model("new_name").__module__ == "target_module"
    """
    run_python(code, plugin)


@pytest.mark.parametrize("group", BUILT_IN)
def test_a_builtin_name_is_never_shadowed(plugin: Path, group: str) -> None:
    code = f"""
    bridge.arm()
    {IMPORT_ALL}
    taken = registry.{REGISTRIES[group]}.get({BUILT_IN[group]!r})
    assert taken.__module__.startswith("lm_eval."), taken
    """
    run_python(code, plugin)


def test_a_name_someone_registered_before_stays(plugin: Path) -> None:
    code = """
    bridge.arm()
    from lm_eval.api.registry import model_registry
    model_registry.register("new_name", target="json:JSONDecoder")
    import lm_eval.models
    assert model_registry.get("new_name").__module__ == "json.decoder"
    """
    run_python(code, plugin)


def test_arming_after_lm_eval_was_imported_registers_at_once(plugin: Path) -> None:
    code = f"""
    arm, bridge.arm = bridge.arm, lambda: None  # the installation's start-up hook calls it
    {IMPORT_ALL}
    if bridge.lm_eval_discovers_plugins():
        arm()
    else:
        assert "new_name" not in registry.model_registry
        arm()
        assert "new_name" in registry.model_registry
        assert "new_name" in registry.filter_registry
    assert registry.get_model("new_name").__module__ == "target_module"
    """
    run_python(code, plugin)


@pytest.mark.parametrize("armed_first", [True, False])
def test_an_aggregation_is_asked_for_its_standard_error(plugin: Path, armed_first: bool) -> None:
    code = f"""
    arm, bridge.arm = bridge.arm, lambda: None  # the installation's start-up hook calls it
    if {armed_first}: arm()
    from lm_eval import evaluator_utils
    from lm_eval.api import metrics
    if not {armed_first}: arm()
    stderr_for_metric = evaluator_utils.stderr_for_metric
    assert stderr_for_metric is metrics.stderr_for_metric
    class Ours:
        def standard_error(self, items, bootstrap_iters): return len(items) / bootstrap_iters
    assert stderr_for_metric(metric=Ours(), bootstrap_iters=8)([1, 2]) == 0.25
    assert stderr_for_metric(Ours(), 0) is None
    assert stderr_for_metric(metrics.mean, 8) is metrics.mean_stderr
    """
    run_python(code, plugin)


def test_arming_twice_is_arming_once(plugin: Path) -> None:
    code = """
    import sys
    bridge.arm(); bridge.arm()
    import lm_eval.models
    print(sum(isinstance(finder, bridge.BridgeFinder) for finder in sys.meta_path))
    """
    assert run_python(code, plugin).strip() == "1"


def test_reloading_lm_evals_module_keeps_our_names(plugin: Path) -> None:
    code = """
    import importlib
    bridge.arm()
    import lm_eval.models
    from lm_eval.api.registry import model_registry
    model_registry._clear()
    importlib.reload(lm_eval.models)
    assert "hf" in model_registry
    assert "new_name" in model_registry or bridge.lm_eval_discovers_plugins()
    """
    run_python(code, plugin)


def test_stands_aside_when_lm_eval_discovers_components(plugin: Path) -> None:
    """Upstream's discovery is `load_plugins` in the registry module: give this one such."""
    code = f"""
    bridge.arm()
    import lm_eval.api.registry
    discovers = bridge.lm_eval_discovers_plugins()
    if not discovers:
        lm_eval.api.registry.load_plugins = lambda group, registry: []
    assert bridge.lm_eval_discovers_plugins()
    def never(*arguments): print("registered", arguments)
    bridge._register_entry_points = never
    {IMPORT_ALL}
    if not discovers:
        for name in {list(REGISTRIES.values())}:
            assert "new_name" not in getattr(registry, name), name
    """
    assert "registered" not in run_python(code, plugin)


SUMS = {
    "task": "sums",
    "grader": "gsm8k",
    "output_type": "generate_until",
    "metadata": {"attempts": 2},
}


def test_an_lm_eval_that_scores_repeats_itself_is_refused_in_one_line(tmp_path: Path) -> None:
    """Release 0.5 has a module ``scorers``: give this one such."""
    (tmp_path / "scorers.py").write_text("")
    code = f"""
    import lm_eval
    from lm_eval_ext.errors import UserError
    before = bridge.unsupported_release()
    bridge.unsupported_release.cache_clear()
    lm_eval.__path__.append({str(tmp_path)!r})
    from lm_eval_ext.scoring.aggregations import ece
    from lm_eval_ext.task import AttemptsTask
    items = [(0.75, 1), (0.5, 1), (0.25, 0)]
    for act in (lambda: AttemptsTask({SUMS!r}), lambda: ece(items)):
        try:
            act()
        except UserError as error:
            assert "install 'lm-eval>=0.4.13,<0.5'" in str(error), error
            assert chr(10) not in str(error)
        else:
            raise AssertionError
    print(before, round(ece.value(items), 4), ece.interval(items).n_questions)
    """
    assert run_python(code, tmp_path).split() == ["None", "0.3333", "3"]


def test_loaders_keep_their_type_and_source(plugin: Path) -> None:
    code = """
    import inspect
    bridge.arm()
    import lm_eval.models
    source = inspect.getsource(lm_eval.models)
    print(type(lm_eval.models.__loader__).__name__, "MODEL_MAPPING" in source)
    """
    assert run_python(code, plugin).split() == [SourceFileLoader.__name__, "True"]


def test_a_changed_lm_eval_goes_on_working_without_us(caplog: pytest.LogCaptureFixture) -> None:
    bridge.register(types.ModuleType(bridge.TASK_INDEX))
    assert "lm-eval-ext doctor" in caplog.text
    assert "TaskIndex" in caplog.text


def test_a_damaged_package_does_not_break_lm_eval(tmp_path: Path) -> None:
    """The installed hook meets a package that cannot be imported, or that is half removed."""
    hook = Path(bridge.__file__).with_name("lm_eval_ext_bridge.pth").read_text()
    for content in ("raise RuntimeError('damaged')", ""):
        package = tmp_path / "lm_eval_ext"
        package.mkdir(exist_ok=True)
        (package / "__init__.py").write_text(content)
        code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{hook}\n"
        code += "import lm_eval; print('lm_eval', lm_eval.__version__)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("lm_eval 0."), done.stdout


# --- tasks: lm-eval's own TaskIndex.build on three small folders ---------------------------------


def write_task(folder: Path, name: str, tag: str | None = None) -> None:
    folder.mkdir(exist_ok=True)
    tag_line = f"tag: {tag}\n" if tag else ""
    (folder / f"{name}.yaml").write_text(f"task: {name}\n{tag_line}dataset_path: json\n")


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Return the folders of lm-eval, of ours, and of the user, with overlapping names of tasks."""
    names = {
        "lm_eval": ("theirs", "in_lm_eval_and_ours"),
        "ours": ("our_task", "in_lm_eval_and_ours", "in_ours_and_user"),
        "user": ("in_ours_and_user",),
    }
    for folder, tasks in names.items():
        for task in tasks:
            write_task(tmp_path / folder, task, tag=f"tag_of_{folder}")
    return {folder: tmp_path / folder for folder in names}


@pytest.fixture
def build(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Build:
    """Return ``TaskIndex.build`` as the bridge leaves it, on small folders."""
    from lm_eval.tasks import _index

    class FreshIndex(_index.TaskIndex):
        build = staticmethod(_original(_index.TaskIndex.build))

    module = types.SimpleNamespace(
        TaskIndex=FreshIndex, __file__=str(folders["lm_eval"] / "_index.py")
    )
    monkeypatch.setattr(bridge, "tasks_folder", lambda: folders["ours"])
    bridge._add_tasks(module)
    return FreshIndex.build


def _original(build: Any) -> Build:
    """Return lm-eval's function where this process is armed and has wrapped it already."""
    cells = dict(zip(build.__code__.co_freevars, build.__closure__ or (), strict=True))
    wrapped = cells.get("build_without_ours")
    return wrapped.cell_contents if wrapped else build


def origin(index: Index, name: str) -> str:
    return Path(index[name].yaml_path).parent.name


def test_our_tasks_are_added_to_lm_evals(build: Build, folders: dict[str, Path]) -> None:
    index = build([folders["lm_eval"]])
    assert origin(index, "our_task") == "ours"
    assert origin(index, "theirs") == "lm_eval"
    assert index["tag_of_ours"].tags == {"our_task", "in_lm_eval_and_ours", "in_ours_and_user"}


def test_lm_evals_task_wins_over_ours(
    build: Build, folders: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    assert origin(build([folders["lm_eval"]]), "in_lm_eval_and_ours") == "lm_eval"
    assert "'in_lm_eval_and_ours' of lm-eval-ext is replaced" in caplog.text


def test_the_users_task_wins_over_ours(build: Build, folders: dict[str, Path]) -> None:
    index = build([folders["lm_eval"], folders["user"]])
    assert origin(index, "in_ours_and_user") == "user"
    assert origin(index, "our_task") == "ours"


def test_ours_stay_out_with_lm_evals(build: Build, folders: dict[str, Path]) -> None:
    """`TaskManager(include_defaults=False)` passes only the user's folders."""
    assert set(build([folders["user"]])) == {"in_ours_and_user", "tag_of_user"}


def test_a_task_manager_that_passes_our_folder_itself_is_left_alone(
    build: Build, folders: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    index = build([folders["lm_eval"], folders["ours"], folders["user"]])
    assert origin(index, "our_task") == "ours"
    assert origin(index, "in_ours_and_user") == "user"
    assert "of lm-eval-ext is replaced" not in caplog.text


def test_without_our_folder_lm_eval_is_as_before(
    build: Build, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge, "tasks_folder", lambda: None)
    assert "our_task" not in build([folders["lm_eval"]])


def test_lm_eval_alone_knows_our_aggregations_and_loads_them_on_first_use():
    names = [entry.name for entry in bridge.entry_points("lm_eval.aggregations")]
    code = f"""
import sys
from lm_eval.api.metrics import stderr_for_metric
from lm_eval.api.registry import aggregation_registry, get_aggregation
from lm_eval_ext.harness.bridge import lm_eval_discovers_plugins
assert lm_eval_discovers_plugins() or set({names}) <= set(aggregation_registry.keys())
assert "lm_eval_ext.scoring.aggregations" not in sys.modules
assert "lm_eval_ext.metrics" not in sys.modules
ece = get_aggregation("ece")
assert ece([(0.75, 1), (0.75, 1), (0.25, 0)]) == 0.25
assert stderr_for_metric(ece, 10)([(0.75, 1), (0.5, 1), (0.25, 0)]) > 0
assert set({names}) <= set(aggregation_registry.keys())
assert get_aggregation("brier_score").__module__ == "lm_eval.api.metrics"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--tasks", "tiny_gsm8k_pasn"], "did you mean tiny_gsm8k_passn"),
        (["--tasks", "tiny_mbpp_calib", "--limit", "1"], "--confirm_run_unsafe_code"),
        (["--tasks", "tiny_gsm8k_calib", "--model", "smapled"], "did you mean sampled"),
    ],
)
def test_lm_evals_errors_of_the_user_take_one_line(arguments, expected):
    command = [sys.executable, "-m", "lm_eval", "--model", "sampled", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert ": error: " in line
    assert expected in line


def test_other_errors_keep_their_traceback():
    assert bridge.explained(ValueError("shapes differ: Tasks not found: x")) is None
    assert bridge.explained(KeyError("Tasks not found: x")) is None
    code = "import lm_eval; raise ValueError('shapes differ')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "Traceback" in done.stderr


def test_a_misspelt_model_is_answered_with_the_nearest():
    beginning = "Attempted to load model 'sampeld', but no model for this name found!"
    message = f"{beginning} Supported model names: dummy, sampled, hf"
    said = bridge.explained(ValueError(message))
    assert said == f"{beginning[:-1]} (did you mean sampled?)."
    far = message.replace("sampeld", "xyz")
    assert bridge.explained(ValueError(far)) == f"{far}."

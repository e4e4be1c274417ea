"""Make lm-eval releases without plugin discovery find our models, filters, metrics and tasks.

lm-eval 0.4.13 has no way to find an installed plugin. This module stands in until it has one.
``lm_eval_ext_bridge.pth`` in site-packages calls `arm` when a process first imports lm-eval; `arm`
puts a finder on ``sys.meta_path`` that acts after lm-eval's own code of seven modules has run:

==============================  ================================================================
after the import of             what happens
==============================  ================================================================
``lm_eval.models``              entry points of group ``lm_eval.models`` enter the model registry
``lm_eval.filters``             likewise ``lm_eval.filters`` and the filter registry
``lm_eval.api.metrics``         likewise ``lm_eval.metrics`` and ``lm_eval.aggregations``; and
                                ``stderr_for_metric`` is wrapped to ask an aggregation for its own
``lm_eval.tasks._index``        ``TaskIndex.build`` is wrapped to add our folder of tasks
``lm_eval.models.api_models``   ``TemplateAPI.generate_until`` is wrapped, so that the attempts of
                                our tasks get seeds of their own; see
                                `lm_eval_ext.harness.attempt_seeds`
``lm_eval.evaluator``           ``evaluate`` is wrapped, so that a store answers requests of our
                                tasks whatever the model, and a run says where tasks and chat
                                template do not fit; see `lm_eval_ext.harness.kept_answers` and
                                `lm_eval_ext.harness.chat_templates`
``lm_eval.utils``               ``make_table`` is wrapped, so that a run prints few rows of our
                                tasks; see `lm_eval_ext.harness.results_table`
==============================  ================================================================

A process that ends with an error of the user's shows one line of it, see `explained`.

Names come from the entry points of this distribution, so a new method needs a line in
``pyproject.toml`` and none here. They are registered as ``"module:attribute"`` strings, which
lm-eval resolves on first use: nothing of ours is imported before it is asked for. As lm-eval's own
names are registered first and a taken name is left alone, a built-in is never shadowed.

An lm-eval that discovers plugins is left to do so: its registry module has ``load_plugins``, and
its task manager passes our folder to ``TaskIndex.build`` itself.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import sys
import warnings
from collections.abc import Callable, Iterable
from functools import cache, wraps
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from lm_eval_ext.errors import show_user_errors_in_one_line

DISTRIBUTION = "lm-eval-ext"
"""The distribution whose entry points are registered."""

REGISTRIES = {
    "lm_eval.models": {"lm_eval.models": "model_registry"},
    "lm_eval.filters": {"lm_eval.filters": "filter_registry"},
    "lm_eval.api.metrics": {
        "lm_eval.metrics": "metric_registry",
        "lm_eval.aggregations": "aggregation_registry",
    },
}
"""For each lm-eval module that registers built-ins: entry-point group -> name of the registry."""

METRICS = "lm_eval.api.metrics"
"""The lm-eval module that knows the standard errors of aggregations."""

TASK_INDEX = "lm_eval.tasks._index"
"""The lm-eval module that scans folders of tasks."""

API_MODELS = "lm_eval.models.api_models"
"""The lm-eval module of models behind an API; imported with the first of them."""

EVALUATOR = "lm_eval.evaluator"
"""The lm-eval module that hands requests to a model."""

UTILS = "lm_eval.utils"
"""The lm-eval module that prints the results."""

UNKNOWN_TASK = "Tasks not found: "
UNKNOWN_MODEL = "Attempted to load model "
MISTAKES = {
    UNKNOWN_TASK: "`lm_eval ls tasks` lists all.",
    "Attempted to run task: ": "On the command line that is --confirm_run_unsafe_code.",
    UNKNOWN_MODEL: "",
}
"""How lm-eval's messages about a user's mistake begin -> what we add to them."""

_WATCHED = (*REGISTRIES, TASK_INDEX, API_MODELS, EVALUATOR, UTILS)

logger = logging.getLogger(__name__)


def arm() -> None:
    """Register with lm-eval now where it is imported already, and otherwise as it is imported.

    Called once per process by the start-up hook. Call it yourself where site-packages is not
    scanned for ``.pth`` files, for example after ``pip install --target``. A second call does
    nothing.
    """
    if is_armed():
        return
    sys.meta_path.insert(0, BridgeFinder())
    show_user_errors_in_one_line(also=explained)
    for name in _WATCHED:
        module = sys.modules.get(name)
        if module is not None:
            register(module)


def explained(error: BaseException) -> str | None:
    """Return lm-eval's message about a user's mistake with its remedy, None for other errors.

    lm-eval's command line ends with a traceback there, as for an error of its own.
    """
    message = str(error)
    beginning = next((start for start in MISTAKES if message.startswith(start)), None)
    if not isinstance(error, ValueError) or beginning is None:
        return None
    if beginning == UNKNOWN_TASK:
        folder = tasks_folder()
        ours = [] if folder is None else [path.stem for path in folder.rglob("*.yaml")]
        near = _nearest(message.removeprefix(beginning).split(", "), ours)
        message += f" (did you mean {', '.join(near)}?)" if near else ""
    elif beginning == UNKNOWN_MODEL:
        said, _, known = message.partition(" Supported model names: ")
        near = _nearest(said.split("'")[1::2], known.split(", "))
        message = f"{said.rstrip('!')} (did you mean {', '.join(near)}?)" if near else message
    return f"{message.rstrip('.')}. {MISTAKES[beginning]}".strip()


def _nearest(names: Iterable[str], known: list[str]) -> list[str]:
    import difflib  # a millisecond that no other run should pay

    return [near for name in names for near in difflib.get_close_matches(name, known)]


def is_armed() -> bool:
    """Tell whether the bridge is in place in this process."""
    return any(isinstance(finder, BridgeFinder) for finder in sys.meta_path)


def lm_eval_discovers_plugins() -> bool:
    """Tell whether the installed lm-eval finds models, filters and metrics by entry point itself.

    Asks for the function that upstream's discovery is made of, as a version number says nothing
    about development builds. Imports ``lm_eval.api.registry``.
    """
    import lm_eval.api.registry

    return hasattr(lm_eval.api.registry, "load_plugins")


@cache
def unsupported_release() -> str | None:
    """Return what to say of an lm-eval that scores repeats by itself, None of the others.

    From 0.5 on it reduces the values of a document to one before they are aggregated. Asks for the
    module that does so, as a version number says nothing about development builds.
    """
    if importlib.util.find_spec("lm_eval.scorers") is None:
        return None
    try:
        version = importlib.metadata.version("lm_eval")
    except importlib.metadata.PackageNotFoundError:
        version = "0.5"
    return (
        f"lm-eval {version} reduces the responses to a question by itself, which lm-eval-ext does "
        "not know yet: install 'lm-eval>=0.4.13,<0.5'"
    )


def tasks_folder() -> Path | None:
    """Return the folder of our tasks, or None when the installation lacks it."""
    # Asked of the module, not derived from __file__: in an editable install it lies elsewhere.
    try:
        import lm_eval_ext.tasks as tasks
    except ImportError:
        return None
    return Path(next(iter(tasks.__path__))).resolve()


class BridgeFinder:
    """Meta-path finder that leaves the finding to the others and adds an act after the import."""

    def find_spec(
        self, name: str, path: Any = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec the other finders give, with `register` appended to its execution."""
        if name not in _WATCHED:
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        specs = (finder.find_spec(name, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            _append_registration(spec.loader)
        return spec


def _append_registration(loader: Any) -> None:
    """Make this one loader instance call `register` once it has executed its module.

    The instance is changed rather than wrapped, so that its type stays what ``inspect`` and
    ``importlib.resources`` expect of it.
    """
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        register(module)

    loader.exec_module = exec_module


def register(module: ModuleType) -> None:
    """Add our names beside those that ``module`` of lm-eval has just registered.

    Never raises: an lm-eval that changed beyond recognition must go on working without us.
    """
    try:
        if module.__name__ in _WRAPPED:
            _WRAPPED[module.__name__](module)
            return
        if not lm_eval_discovers_plugins():
            for group, registry in REGISTRIES[module.__name__].items():
                _register_entry_points(group, registry)
        if module.__name__ == METRICS:
            _add_standard_errors(module)
    except Exception as error:
        logger.warning(
            "lm-eval-ext could not register with lm-eval (%s: %s); run `lm-eval-ext doctor`.",
            type(error).__name__,
            error,
        )


def _register_entry_points(group: str, registry_name: str) -> None:
    """Register the entry points of one group, lazily, except where the name is taken."""
    import lm_eval.api.registry

    registry = getattr(lm_eval.api.registry, registry_name)
    for entry_point in entry_points(group):
        if entry_point.name in registry:
            logger.debug("%s %r is lm-eval's own and stays so", registry_name, entry_point.name)
        else:
            registry.register(entry_point.name, target=entry_point.value)


def entry_points(group: str) -> list[importlib.metadata.EntryPoint]:
    """Return the entry points this distribution declares in a group."""
    declared = importlib.metadata.distribution(DISTRIBUTION).entry_points
    return [entry_point for entry_point in declared if entry_point.group == group]


def _add_standard_errors(metrics_module: Any) -> None:
    """Wrap ``stderr_for_metric`` so that it asks an aggregation that has a ``standard_error``.

    lm-eval gives standard errors to a fixed list of its own functions and "N/A" to all others.
    """
    without_ours: Callable[..., Any] = metrics_module.stderr_for_metric

    @wraps(without_ours)
    def stderr_for_metric(metric: Any, bootstrap_iters: int) -> Any:
        standard_error = getattr(metric, "standard_error", None)
        if standard_error is None or bootstrap_iters <= 0:
            return without_ours(metric, bootstrap_iters)

        def known_standard_error(items: Any) -> Any:
            error = standard_error(items, bootstrap_iters=bootstrap_iters)
            if error == error:
                return error
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # said when the value was computed
                value = metric(items)
            return "N/A" if value == value else error  # NaN is that of a value that is NaN

        return known_standard_error

    # The evaluator imports it by name: where that has happened already, it has the original.
    holders: tuple[Any, ...] = (metrics_module, sys.modules.get("lm_eval.evaluator_utils"))
    for module in holders:
        if getattr(module, "stderr_for_metric", None) is without_ours:
            module.stderr_for_metric = stderr_for_metric


def _add_tasks(index_module: Any) -> None:
    """Wrap ``TaskIndex.build`` so that it also indexes our folder.

    lm-eval passes it the folders to scan: its own unless ``include_defaults=False``, then those of
    ``--include_path``. Ours counts between them: it is added only along with lm-eval's own, and
    gives way to a name from either side.
    """
    task_index = index_module.TaskIndex
    build_without_ours: Callable[..., dict[str, Any]] = task_index.build
    lm_eval_folder = Path(index_module.__file__).resolve().parent

    def build(paths: Iterable[Path], **options: Any) -> dict[str, Any]:
        paths = list(paths)
        index = build_without_ours(paths, **options)
        folders = [Path(path).resolve() for path in paths]
        our_folder = tasks_folder()
        if our_folder is None or lm_eval_folder not in folders or our_folder in folders:
            return index
        for name, entry in build_without_ours([our_folder], **options).items():
            if name in index:
                logger.warning(
                    "Task '%s' of lm-eval-ext is replaced by the one from %s",
                    name,
                    index[name].yaml_path,
                )
            else:
                index[name] = entry
        return index

    task_index.build = staticmethod(build)


def _add_seeds(models_module: Any) -> None:
    from lm_eval_ext.harness.attempt_seeds import with_own_seeds

    api = models_module.TemplateAPI
    api.generate_until = with_own_seeds(api.generate_until)


def _add_keepers(evaluator_module: Any) -> None:
    from lm_eval_ext.harness.chat_templates import with_chat_check
    from lm_eval_ext.harness.kept_answers import with_keepers

    evaluator_module.evaluate = with_chat_check(with_keepers(evaluator_module.evaluate))


def _add_headlines(utils_module: Any) -> None:
    from lm_eval_ext.harness.results_table import with_headlines

    utils_module.make_table = with_headlines(utils_module.make_table)


_WRAPPED: dict[str, Callable[[Any], None]] = {
    TASK_INDEX: _add_tasks,
    API_MODELS: _add_seeds,
    EVALUATOR: _add_keepers,
    UTILS: _add_headlines,
}

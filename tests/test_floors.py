"""The rooms stand in the order of the data's way: no import runs up a floor or in a circle."""

from __future__ import annotations

import ast
import functools
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# From the ground up. Rooms of one floor do not import each other.
FLOORS = (
    "errors",
    "checks",
    "harness data metrics",
    "models evaluate_modules",
    "engine",
    "store",
    "vllm_engine methods",
    "model_wrappers",
    "grading",
    "scoring",
    "task leaderboard",
    "training",
    "commands",
    "__main__",
)
FLOOR_OF = {room: number for number, floor in enumerate(FLOORS) for room in floor.split()}
OLD_PATHS = {"aggregations", "bridge", "datasets", "exemplars", "group_metrics"}
"""Kept for one release; nothing of ours imports them."""


@functools.cache
def imports() -> dict[str, set[str]]:
    """Return the modules of ours that each imports anywhere, names for type checkers included."""
    paths = {}
    for folder, package in (("lm_eval_ext", ()), ("model_wrappers", ("model_wrappers",))):
        for path in (ROOT / folder).rglob("*.py"):
            parts = (*package, *path.relative_to(ROOT / folder).with_suffix("").parts)
            paths[".".join(parts).removesuffix(".__init__")] = path
    del paths["__init__"]  # the package itself: its version
    return {name: _imported(path) & set(paths) - {name} for name, path in paths.items()}


def _imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name[12:] for name in found if name.startswith("lm_eval_ext.")}


def room(module: str) -> str:
    return module.partition(".")[0]


def neighbours() -> dict[str, set[str]]:
    """Return the imports between what lies in one folder, each file or folder a node.

    An import of ``engine.decoding`` by ``store.key`` is one of ``engine`` by ``store``.
    """
    graph = defaultdict(set)
    for module, others in imports().items():
        for other in others:
            mine, theirs = module.split("."), other.split(".")
            pairs = zip(mine, theirs, strict=False)
            level = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
            # None: a package's own __init__.py, which is the package.
            if level is not None:
                graph[".".join(mine[: level + 1])].add(".".join(theirs[: level + 1]))
    return graph


def circles(graph: dict[str, set[str]]) -> set[frozenset[str]]:
    """Return the sets of nodes that reach each other."""

    def reached(start: str) -> set[str]:
        waiting, seen = [start], set()
        while waiting:
            new = graph.get(waiting.pop(), set()) - seen
            seen |= new
            waiting += new
        return seen

    above = {node: reached(node) for node in graph}
    return {
        frozenset(other for other in above[node] if node in above.get(other, ()))
        for node in graph
        if node in above[node]
    }


def test_circles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "e": {"a", "f"}, "f": {"e"}}
    assert circles(graph) == {frozenset("bc"), frozenset("ef")}
    assert circles({"a": {"b", "c"}, "b": {"c"}}) == set()


def test_every_room_has_a_floor() -> None:
    assert {room(name) for name in imports()} - OLD_PATHS <= set(FLOOR_OF)


def test_no_import_runs_up_a_floor() -> None:
    up = {
        (module, other)
        for module, others in imports().items()
        for other in others
        if room(module) != room(other) and room(module) not in OLD_PATHS
        if room(other) in OLD_PATHS or FLOOR_OF[room(other)] >= FLOOR_OF[room(module)]
    }
    assert up == set()


def test_no_files_and_no_folders_import_each_other_in_a_circle() -> None:
    assert circles(neighbours()) == set()

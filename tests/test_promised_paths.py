"""What was installed or written before the modules moved works for one more release."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

TASKS = Path(__file__).resolve().parents[1] / "tasks"
# The line of code in the .pth file of release 0.1.0, as it lies in site-packages.
OLD_HOOK = (
    'import sys; "LmEvalExtHook" in str(sys.meta_path[0]) or sys.meta_path.insert(0, '
    'type("LmEvalExtHook", (), {"find_spec": lambda name, path=None, target=None: exec("try:\\n '
    'from lm_eval_ext.bridge import arm\\n arm()\\nexcept Exception: pass") if name[:8] in '
    '("lm_eval", "lm_eval.") else None}))'
)
OLD_ENTRY_POINTS = """
[lm_eval.models]
rsp = lm_eval_ext.model_wrappers.rsp:RSP

[lm_eval.aggregations]
ece = lm_eval_ext.aggregations:ece
"""
OLD_TASK = """
include: %s
task: old_gsm8k
custom_dataset: !function lm_eval_ext.datasets.gsm8k
test_split: test
doc_to_text: "Q: {{question}} A:"
doc_to_target: "{{answer}}"
num_fewshot: 8
fewshot_config:
  sampler: first_n
  samples: !function lm_eval_ext.exemplars.gsm8k_exemplars
  doc_to_target: "{{target}}"
grader: gsm8k
generation_kwargs: {until: ["Q:"], do_sample: true, temperature: 0.7, max_gen_toks: 8}
metadata: {version: 1.0}
"""
OLD_GROUP = """
group: old_group
task: [old_gsm8k]
aggregate_metric_list: !function lm_eval_ext.group_metrics.PASSN
"""


def test_an_environment_installed_before_knows_our_models(tmp_path: Path) -> None:
    """Its hook swallows every error: a missing module would only make the models unknown."""
    info = tmp_path / "lm_eval_ext-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lm-eval-ext\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(OLD_ENTRY_POINTS)
    code = f"""
        sys.path.insert(0, {str(tmp_path)!r})
        import lm_eval.models
        from lm_eval.api.registry import get_aggregation, model_registry
        assert "rsp" in model_registry
        import lm_eval.api.metrics
        assert get_aggregation("ece")([(1.0, True), (0.5, False)]) == 0.25
    """
    # Without the hook of the environment that runs the tests.
    bare = "import sys; sys.meta_path = [f for f in sys.meta_path if 'LmEvalExt' not in str(f)]"
    script = "\n".join([bare, OLD_HOOK, textwrap.dedent(code)])
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)


def test_task_files_written_before_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("LM_EVAL_EXT_DATA", str(tmp_path))
    row = {"question": "2 + 2?", "answer": "2+2=<<2+2=4>>4\n#### 4"}
    (tmp_path / "gsm8k_test.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "old.yaml").write_text(OLD_TASK % (TASKS / "_passn_yaml"))
    (tmp_path / "group.yaml").write_text(OLD_GROUP)
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    loaded = manager.load("old_group")
    task = loaded["tasks"]["old_gsm8k"]
    assert next(iter(task.eval_docs))["question"] == "2 + 2?"
    assert len(task.config.fewshot_config.samples()) == 8
    (group,) = loaded["groups"].values()
    assert any(entry.metric == "pass@1" for entry in group.aggregate_metric_list)


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("bridge", "harness.bridge", ["arm"]),
        ("aggregations", "scoring.aggregations", ["Aggregation", "ece", "pass_at_k"]),
        ("datasets", "data.datasets", ["gsm8k", "math", "math500", "mbpp", "mbpp_sanitized"]),
        ("exemplars", "data.exemplars", ["gsm8k_exemplars", "math_exemplars", "mbpp_exemplars"]),
        ("group_metrics", "scoring.group_metrics", ["CALIB", "PASSN"]),
    ],
)
def test_old_paths_name_the_same_things(old: str, new: str, names: list[str]) -> None:
    before = importlib.import_module(f"lm_eval_ext.{old}")
    now = importlib.import_module(f"lm_eval_ext.{new}")
    for name in names:
        assert getattr(before, name) is getattr(now, name)


def test_the_room_of_the_bridge_imports_nothing_heavy() -> None:
    code = (
        "import sys; import lm_eval_ext.harness.bridge\n"
        "print({'torch', 'numpy', 'lm_eval', 'transformers', 'yaml'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"

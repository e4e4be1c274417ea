"""lm-eval's own exports with this package's tasks: W&B, Trackio, and the Hub's data sets."""

import contextlib
import copy
import io
import json
import sys
import types
from pathlib import Path

import datasets
import lm_eval
import pytest
from lm_eval.loggers import EvaluationTracker, WandbLogger
from lm_eval.loggers.trackio_logger import TrackioLogger
from lm_eval.tasks import TaskManager

ROOT = Path(__file__).resolve().parents[2]
TASKS = ["tiny_gsm8k_passn", "tiny_gsm8k_calib"]


@pytest.fixture
def evaluated(scripted_lm, quick_evaluator):
    """Return results and samples of two tasks, as lm_eval hands them to its loggers."""

    def evaluate(**options):
        manager = TaskManager(
            include_path=str(ROOT / "tasks"), include_defaults=False, metadata={"attempts": 3}
        )
        results = lm_eval.simple_evaluate(
            model=scripted_lm(lambda q, a: f" so\n#### {q + a}", with_records=True),
            tasks=TASKS,
            task_manager=manager,
            limit=4,
            bootstrap_iters=0,
            log_samples=True,
            **options,
        )
        return results, results.pop("samples")

    return evaluate


class Recorder:
    """Stands in for a run of W&B or Trackio."""

    def __init__(self):
        self.logged, self.files, self.config, self.summary = [], {}, {}, {}

    def log(self, values, step=None):
        self.logged.append(values)

    def log_artifact(self, artifact):
        self.files[artifact.name] = artifact.text


class Artifact:
    def __init__(self, name, type):
        self.name, self.text = name, None

    def new_file(self, path, mode, encoding):
        @contextlib.contextmanager
        def opened():
            file = io.StringIO()
            yield file
            self.text = file.getvalue()

        return opened()


@pytest.fixture
def wandb_run(monkeypatch):
    run = Recorder()
    rows = type("Table", (list,), {"__init__": lambda self, columns: None})
    rows.add_data = lambda self, *row: self.append(row)
    wandb = types.ModuleType("wandb")
    wandb.__version__, wandb.run, wandb.init = "0.20.0", None, lambda **_: run
    wandb.Table, wandb.Artifact = rows, Artifact
    printer = types.ModuleType("wandb.sdk.lib.printer")
    printer.new_printer = lambda: None
    for name, module in (
        ("wandb", wandb),
        ("wandb.sdk", types.ModuleType("wandb.sdk")),
        ("wandb.sdk.lib", types.ModuleType("wandb.sdk.lib")),
        ("wandb.sdk.lib.printer", printer),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    return run


@pytest.mark.parametrize("predict_only", [False, True])
def test_wandb_gets_metrics_and_samples(evaluated, wandb_run, predict_only):
    results, samples = evaluated(predict_only=predict_only)
    logger = WandbLogger({"project": "x"})
    logger.post_init(results)
    logger.log_eval_result()
    logger.log_eval_samples(copy.deepcopy(samples))
    scalars = {k: v for values in wandb_run.logged for k, v in values.items()}
    frame = scalars["tiny_gsm8k_passn_eval_results"]
    assert len(frame) == 4
    assert set(wandb_run.files) == {"results", *TASKS}
    logged = json.loads(wandb_run.files["tiny_gsm8k_passn"])
    assert len(logged[0]["attempts"]) == 3
    if predict_only:
        return
    assert scalars["tiny_gsm8k_passn/pass@1"] == results["results"][TASKS[0]]["pass@1,none"]
    assert list(frame["pass@1"]) == [sample["pass@1"] for sample in samples[TASKS[0]]]
    assert "accuracy" in scalars["tiny_gsm8k_calib_eval_results"]


def test_trackio_gets_metrics_and_samples(evaluated, monkeypatch):
    run = Recorder()
    trackio = types.ModuleType("trackio")
    trackio.init, trackio.log, trackio.config = lambda **_: run, run.log, {}
    trackio.Trace = lambda messages, metadata: {"messages": messages, "metadata": metadata}
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    results, samples = evaluated()
    logger = TrackioLogger({"project": "x"})
    logger.post_init(results)
    logger.log_eval_result()
    logger.log_eval_samples(samples)
    assert run.logged[0]["tiny_gsm8k_passn/pass@3"] == pytest.approx(
        results["results"][TASKS[0]]["pass@3,none"]
    )
    traces = [values["tiny_gsm8k_passn/sample"] for values in run.logged[1:5]]
    assert [t["metadata"]["pass@1"] for t in traces] == [s["pass@1"] for s in samples[TASKS[0]]]
    json.dumps(traces)


class Hub:
    """Stands in for huggingface_hub's client."""

    def __init__(self, **_):
        self.uploaded = []

    def create_repo(self, **_):
        pass

    def upload_file(self, *, path_or_fileobj, **_):
        self.uploaded.append(Path(path_or_fileobj).name)

    def upload_folder(self, *, folder_path, **_):
        self.uploaded += sorted(path.name for path in Path(folder_path).iterdir())


def test_hub_gets_results_and_samples_that_load_as_a_data_set(evaluated, tmp_path, monkeypatch):
    results, samples = evaluated()
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    tracker = EvaluationTracker(
        output_path=str(tmp_path),
        hub_results_org="someone",
        details_repo_name="details",
        results_repo_name="results",
        push_results_to_hub=True,
        push_samples_to_hub=True,
        token="none",
    )
    tracker.general_config_tracker.model_name = "model"
    tracker.general_config_tracker.model_name_sanitized = "model"
    tracker.save_results_aggregated(results=results, samples=samples)
    for task in TASKS:
        tracker.save_results_samples(task_name=task, samples=samples[task])
    stamp = tracker.date_id
    assert f"results_{stamp}.json" in tracker.api.uploaded
    for task in TASKS:
        name = f"samples_{task}_{stamp}.jsonl"
        assert name in tracker.api.uploaded
        rows = datasets.load_dataset(
            "json",
            data_files=str(tmp_path / "model" / name),
            split="train",
            cache_dir=str(tmp_path / "cache"),
        )
        assert len(rows) == 4
        assert rows[0]["attempts"][0]["attempt"] == 0

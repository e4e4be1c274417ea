"""Four wordings of the self-evaluation question, asked about the attempts of a finished run."""

import json

import numpy as np
import pytest

from lm_eval_ext.__main__ import main
from lm_eval_ext.commands.wordings import METRICS, confidences
from lm_eval_ext.harness import requests as harness
from lm_eval_ext.methods.self_evaluation.template import WORDINGS, SelfEvalTemplate
from lm_eval_ext.metrics import brier, within_question_auroc
from lm_eval_ext.model_wrappers.epicar import EpiCaRLM

PROMPTS = [f"Question: Ann has {n} pens and buys 2. How many has she?\nAnswer:" for n in (3, 40)]


@pytest.fixture(scope="module")
def lm():
    return EpiCaRLM("tiny-epicar", seed=1, batch_size=8, device="cpu")


@pytest.fixture(scope="module")
def attempts(lm):
    """Return three attempts at each prompt, judged while they were sampled."""
    asked = [prompt for prompt in PROMPTS for _ in range(3)]
    settings = {"do_sample": True, "temperature": 1.0, "until": ["Question:"], "max_gen_toks": 40}
    return list(zip(asked, harness.complete(lm, asked, **settings), strict=True))


@pytest.fixture(scope="module")
def run_folder(attempts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "model"
    folder.mkdir()
    results = {"n-samples": {"task": {}}, "configs": {"task": {}}, "model_name": "m"}
    (folder / "results_2026.json").write_text(json.dumps(results))
    rows = []
    for i, prompt in enumerate(PROMPTS):
        texts = [str(text) for asked, text in attempts if asked == prompt]
        details = [{"attempt": k, "answer": "5", "correct": k == i} for k in range(3)]
        arguments = {"gen_args_0": {"arg_0": prompt}}
        rows.append({"doc_id": i, "doc_hash": str(i), "filter": "none", "metrics": [],
                     "attempts": details, "resps": [texts], "arguments": arguments})  # fmt: skip
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "samples_task_2026.jsonl").write_text(text)
    return folder.parent


def test_the_default_wording_gives_what_the_wrapper_gives(lm, attempts):
    texts = [(prompt, str(text)) for prompt, text in attempts]
    found = confidences(lm, SelfEvalTemplate(), texts)
    assert found.tolist() == pytest.approx(
        [text.record.probabilities["self_eval"] for _, text in attempts], abs=1e-5
    )


def test_each_wording_is_scored_and_summed_up(lm, attempts, run_folder, tmp_path, capsys):
    output = tmp_path / "wordings.json"
    words = ["--run", str(run_folder), "--pretrained", "tiny-epicar", "--output", str(output)]
    assert main(["wordings", *words]) == 0
    found = json.loads(output.read_text())
    assert [one["prompt"] for one in found["wordings"]] == [one.prompt for one in WORDINGS]
    correct = np.array([1, 0, 0, 0, 1, 0], dtype=float)
    texts = [(prompt, str(text)) for prompt, text in attempts]
    for one, template in zip(found["wordings"], WORDINGS, strict=True):
        confidence = confidences(lm, template, texts)
        assert one["brier"] == pytest.approx(float(brier(confidence, correct)), abs=1e-5)
        within = within_question_auroc(correct, confidence=confidence, clusters=[0, 0, 0, 1, 1, 1])
        assert one["within_question_auroc"] == pytest.approx(within)
    for metric in METRICS:
        values = [one[metric] for one in found["wordings"]]
        assert found["mean"][metric] == pytest.approx(np.mean(values))
        assert found["standard deviation"][metric] == pytest.approx(np.std(values, ddof=1))
    printed = capsys.readouterr().out
    assert f"{found['mean']['ece']:.3f}" in printed
    assert "standard deviation" in printed


def test_wordings_differ_and_the_last_exchanges_the_letters():
    assert len(set(WORDINGS)) == 4
    assert WORDINGS[0] == SelfEvalTemplate()
    assert WORDINGS[3].labels == WORDINGS[0].labels[::-1]
    assert "A) No B) Yes" in WORDINGS[3].prompt


def test_unknown_tasks_are_named(run_folder, capsys):
    words = ["wordings", "--run", str(run_folder), "--pretrained", "tiny", "--tasks", "other"]
    assert main(words) == 2
    assert "--tasks=other: the run has task" in capsys.readouterr().err

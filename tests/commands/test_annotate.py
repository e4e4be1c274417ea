"""Attempts that exist already get the confidences and uncertainties they would have got."""

import json
import math

import lm_eval
import numpy as np
import pytest
import torch
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks import TaskManager

from lm_eval_ext.commands import annotate
from lm_eval_ext.commands.annotate_options import AnnotateOptions
from lm_eval_ext.errors import UserError
from lm_eval_ext.harness.bridge import tasks_folder
from lm_eval_ext.leaderboard import score
from lm_eval_ext.leaderboard.options import ScoreOptions
from lm_eval_ext.leaderboard.run_files import newest_run
from lm_eval_ext.methods.epistemic.divergence import draft_divergences
from lm_eval_ext.model_wrappers.draft_eu import DraftEU
from lm_eval_ext.models.shipped import model_path

pytestmark = pytest.mark.usefixtures("quick_evaluator")
BOTH = "drafts=tiny-drafts,self_eval=true,device=cpu"
TASK = "tiny_gsm8k_passn"


def evaluate(folder, model, model_args, *, limit=3, n_attempts=2, **more):
    """Run lm-eval, and return the sample file of its only task."""
    metadata = {**model_args, "attempts": n_attempts}
    found = lm_eval.simple_evaluate(
        model,
        model_args=model_args,
        tasks=[TASK],
        task_manager=TaskManager(
            include_path=str(tasks_folder() / "tiny"), include_defaults=False, metadata=metadata
        ),
        limit=limit,
        bootstrap_iters=0,
        **more,
    )
    samples = found.pop("samples")
    tracker = EvaluationTracker(output_path=str(folder))
    tracker.save_results_aggregated(results=found, samples=samples)
    tracker.save_results_samples(task_name=TASK, samples=samples[TASK])
    (path,) = folder.rglob("samples_*.jsonl")
    return path


def read(path):
    return sorted(map(json.loads, path.open()), key=lambda sample: sample["doc_id"])


def attempts_of(folder):
    (path,) = folder.glob("samples_*.jsonl")
    return [attempt for sample in read(path) for attempt in sample["attempts"]]


def run(path, output, model="draft-eu", model_args=BOTH, **more):
    options = AnnotateOptions((path,), model=model, model_args=model_args, output=output, **more)
    assert annotate.run(options) == 0
    return attempts_of(output)


@pytest.fixture(scope="module")
def lm():
    return DraftEU("tiny", drafts="tiny-drafts", self_eval=True, device="cpu")


@pytest.fixture(scope="module")
def directly(lm):
    """Return a function that computes both sources from plain passes over given tokens."""

    def logits(model, ids):
        with torch.inference_mode():
            return model(torch.tensor([ids])).logits[0]

    def compute(prompt, response_ids, text):
        ids = lm.prompt_token_ids(prompt)
        place = slice(len(ids) - 1, len(ids) + len(response_ids) - 1)
        target = logits(lm.model, [*ids, *response_ids])[place]
        drafts = [logits(draft, [*ids, *response_ids])[place] for draft in lm.drafts.models]
        eu = float(draft_divergences(drafts, target).eu.sum())
        layout = lm._finisher.evaluation.layout
        last = logits(lm.model, list(layout.context_ids(ids, text)))[-1]
        yes, no = last[list(layout.label_ids)].tolist()
        return eu, 1 / (1 + math.exp(no - yes))

    return compute


def test_our_own_samples_get_what_the_run_gave(tmp_path, capsys):
    arguments = {"drafts": "tiny-drafts", "self_eval": True, "device": "cpu", "seed": 5}
    path = evaluate(tmp_path / "run", "draft-eu", arguments, batch_size="auto")
    samples = read(path)
    logged = [dict(attempt) for sample in samples for attempt in sample["attempts"]]
    assert all(attempt["n_tokens"] == len(attempt["token_ids"]) for attempt in logged)
    for sample in samples:
        for attempt in sample["attempts"]:
            for name in ("probabilities", "uncertainties", "token_scores", "extra"):
                del attempt[name]
    path.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    found = run(path, tmp_path / "annotated")
    assert "6 attempts: 6 by the tokens they were sampled in" in capsys.readouterr().out
    for ours, before in zip(found, logged, strict=True):
        assert ours["probabilities"] == pytest.approx(before["probabilities"], abs=1e-4)
        assert ours["uncertainties"] == pytest.approx(before["uncertainties"], abs=1e-4)
        assert ours["extra"]["token_texts"] == before["extra"]["token_texts"]
        for name, values in before["token_scores"].items():
            np.testing.assert_allclose(ours["token_scores"][name], values, atol=1e-4)
        assert ours["correct"] == before["correct"]
    score.run(ScoreOptions(tmp_path / "annotated", metrics=("*",)))
    said = capsys.readouterr().out
    assert "prr:draft_eu" in said
    assert "debiased_ece:self_eval" in said
    about = newest_run(tmp_path / "annotated").results["annotation"]
    assert about["attempts"] == {
        TASK: {"attempts": 6, "own_tokens": 6, "retokenized": 0, "with_end": 0}
    }


def test_samples_of_plain_hf_get_what_their_text_gives(tmp_path, lm, directly, capsys):
    arguments = {"pretrained": str(model_path("tiny")), "device": "cpu"}
    path = evaluate(tmp_path / "run", "hf", arguments, batch_size=6)
    found = run(path, tmp_path / "annotated")
    assert "6 by their text, tokenized again without stop strings, 0 of" in capsys.readouterr().out
    texts = [
        (sample["arguments"]["gen_args_0"]["arg_0"], text)
        for sample in read(path)
        for text in sample["resps"][0]
    ]
    for attempt, (prompt, text) in zip(found, texts, strict=True):
        ids = lm.tokenizer(text, add_special_tokens=False)["input_ids"]
        eu, confidence = directly(prompt, ids, text)
        assert attempt["uncertainties"]["draft_eu"] == pytest.approx(eu, abs=1e-4)
        assert attempt["probabilities"]["self_eval"] == pytest.approx(confidence, abs=1e-4)
        assert "token_ids" not in attempt
    score.run(ScoreOptions(tmp_path / "annotated", metrics=("*:draft_eu",)))
    assert "prr:draft_eu" in capsys.readouterr().out


CHAT = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}Answer:{% endif %}"
)


def test_chats_of_an_api_are_rendered_with_the_models_template(
    api_server, tmp_path, lm, directly, tiny_tokenizer
):
    pytest.importorskip("tenacity", reason="lm-eval's models behind an API need it: make venv")
    arguments = {
        "model": "stub", "base_url": f"{api_server.url}/chat/completions",
        "tokenizer_backend": None, "tokenized_requests": False,
    }  # fmt: skip
    path = evaluate(tmp_path / "run", "local-chat-completions", arguments, apply_chat_template=True)
    tokenizer = type(tiny_tokenizer).from_pretrained(model_path("tiny"))
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(tmp_path / "chat")
    found = run(path, tmp_path / "annotated", model_args=f"{BOTH},tokenizer={tmp_path / 'chat'}")
    (sent,) = {len(payload["messages"]) for payload in api_server.payloads}
    assert sent == 1
    texts = {json.dumps(p["messages"]): p["messages"] for p in api_server.payloads}.values()
    contents = sorted(messages[0]["content"] for messages in texts)
    asked = [
        (json.loads(sample["arguments"]["gen_args_0"]["arg_0"][0])[0]["content"], text)
        for sample in read(path)
        for text in sample["resps"][0]
    ]
    assert sorted({content for content, _ in asked}) == contents
    for attempt, (content, text) in zip(found, asked, strict=True):
        ids = lm.tokenizer(text, add_special_tokens=False)["input_ids"]
        eu, confidence = directly(f"user: {content}\nAnswer:", ids, text)
        assert attempt["uncertainties"]["draft_eu"] == pytest.approx(eu, abs=1e-4)
        assert attempt["probabilities"]["self_eval"] == pytest.approx(confidence, abs=1e-4)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "plain")
    with pytest.raises(UserError, match="has no chat template"):
        run(path, tmp_path / "without", model_args=f"{BOTH},tokenizer={tmp_path / 'plain'}")


LINES = [
    {
        "id": "q-1", "prompt": "Question: 2 + 3 = ?\nAnswer:", "answer": "#### 5",
        "responses": [" 2 + 3 = 5\n#### 5", " #### 6"], "finish_reason": ["stop", "length"],
    },
    {"prompt": "Question: 4 + 3 = ?\nAnswer:", "answer": "#### 7", "responses": ["#### 7", ""]},
]  # fmt: skip


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "their responses.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return path


def test_lines_of_another_tool(lines, tmp_path, lm, directly, capsys):
    found = run(lines, tmp_path / "out", grader="gsm8k")
    assert "4 by their text, tokenized again without stop strings, 2 of" in capsys.readouterr().out
    end = lm.tokenizer.eos_token_id
    attempts = iter(found)
    for line, text, ends in [
        (one, text, ends)
        for one, ended in zip(LINES, ([1, 0], [0, 1]), strict=True)
        for text, ends in zip(one["responses"], ended, strict=True)
    ]:
        attempt = next(attempts)
        ids = lm.tokenizer(text, add_special_tokens=False)["input_ids"] + [end] * ends
        eu, confidence = directly(line["prompt"], ids, text)
        assert attempt["uncertainties"]["draft_eu"] == pytest.approx(eu, abs=1e-4)
        assert attempt["probabilities"]["self_eval"] == pytest.approx(confidence, abs=1e-4)
    output = tmp_path / "scores.json"
    score.run(ScoreOptions(tmp_path / "out", metrics=("*",), output=output))
    scores = json.loads(output.read_text())["tasks"]["their_responses"]["metrics"]
    assert scores["pass@1"]["value"] == 0.5
    assert scores["pass@2"]["value"] == 1.0
    assert "hallucination_auroc:self_eval" in scores


def test_epicar_alone_adds_its_confidence(lines, tmp_path):
    found = run(lines, tmp_path / "out", model="epicar", model_args="device=cpu")
    assert all(set(a) >= {"attempt", "probabilities"} for a in found)
    assert all("uncertainties" not in attempt for attempt in found)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "holds no lines"),
        ("{", "line 1: not JSON"),
        ("[]", "line 1: not an object"),
        ('{"response": "4"}', "line 1: no prompt"),
        ('{"prompt": "2+2="}', "line 1: no response"),
        ('{"prompt": "2+2=", "responses": []}', "line 1: no response"),
        ('{"prompt": "2+2=", "response": 4}', "line 1: no response"),
        ('{"doc_id": 0}', "no results_.*beside it"),
    ],
)
def test_what_is_no_sample_is_one_line(tmp_path, content, expected):
    path = tmp_path / "lines.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match=expected):
        run(path, tmp_path / "out")


@pytest.mark.parametrize("argument", ["box_completion=true", "store=a", "calibrator=a.json"])
def test_what_has_no_place_here_is_refused(lines, tmp_path, argument):
    with pytest.raises(UserError, match=argument.partition("=")[0]):
        run(lines, tmp_path / "out", model="epicar", model_args=argument)
    with pytest.raises(UserError, match="no such file"):
        run(tmp_path / "missing.jsonl", tmp_path / "out")
    with pytest.raises(UserError, match="family='gsm9k'"):
        run(lines, tmp_path / "out", grader="gsm9k")

"""Attempts of models that are not ours are kept too, and only what is missing is asked for."""

import json
import os
import signal
from collections import defaultdict

import lm_eval
import pytest
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from lm_eval_ext.errors import UserError
from lm_eval_ext.harness.bridge import tasks_folder
from lm_eval_ext.models.digests import digest
from lm_eval_ext.models.shipped import model_path
from lm_eval_ext.store.info import _report
from lm_eval_ext.store.inspection import inspect
from lm_eval_ext.store.kept_responses import KeptResponses

pytestmark = pytest.mark.usefixtures("quick_evaluator")


def evaluate(model, store, n_attempts=3, limit=2, model_args=None, **more):
    """Return the responses to each question, by its number."""
    metadata = {**(model_args or {}), "attempts": n_attempts, "store": str(store)}
    found = lm_eval.simple_evaluate(
        model,
        model_args=model_args,
        tasks=["tiny_gsm8k_passn"],
        task_manager=TaskManager(
            include_path=str(tasks_folder() / "tiny"), include_defaults=False, metadata=metadata
        ),
        limit=limit,
        predict_only=True,
        **more,
    )
    return {row["doc_id"]: row["resps"][0] for row in found["samples"]["tiny_gsm8k_passn"]}


def api_arguments(server, **more):
    return {
        "model": "stub", "base_url": f"{server.url}/completions", "tokenizer_backend": None,
        "tokenized_requests": False, "max_retries": 1, **more,
    }  # fmt: skip


def seeds_by_prompt(payloads):
    seeds = defaultdict(list)
    for payload in payloads:
        prompts = payload["prompt"]
        for prompt in prompts if isinstance(prompts, list) else [prompts]:
            seeds[prompt].append(payload["seed"])
    return {prompt: sorted(found) for prompt, found in seeds.items()}


@pytest.mark.parametrize(
    ("batch_size", "more"),
    [(1, {}), (2, {}), (1, {"num_concurrent": 4}), (2, {"num_concurrent": 2, "seed": 0})],
)
def test_an_api_is_asked_only_for_what_is_missing(api_server, tmp_path, more, batch_size):
    pytest.importorskip("tenacity", reason="lm-eval's models behind an API need it: make venv")
    arguments = api_arguments(api_server, **more)
    first = more.get("seed", 1234)

    def fail_at(number):
        api_server.n_failures = int(number >= 4)

    def run(n_attempts):
        api_server.payloads.clear()
        return evaluate(
            "local-completions", tmp_path, n_attempts, model_args=arguments, batch_size=batch_size
        )

    api_server.before = fail_at
    with pytest.raises(Exception, match="500"):
        run(4)
    api_server.before, api_server.n_failures = lambda number: None, 0
    responses = run(4)
    asked = seeds_by_prompt(api_server.payloads)
    assert 0 < sum(map(len, asked.values())) < 8
    for texts in responses.values():  # each attempt is that of its own seed, kept or new
        assert [int(text.rpartition("#### ")[2]) for text in texts] == [*range(first, first + 4)]
    assert run(4) == responses
    assert api_server.payloads == []
    more_attempts = run(6)
    assert {i: texts[:4] for i, texts in more_attempts.items()} == responses
    assert list(seeds_by_prompt(api_server.payloads).values()) == [[first + 4, first + 5]] * 2


def test_a_killed_run_resumes(api_server, tmp_path):
    pytest.importorskip("tenacity", reason="lm-eval's models behind an API need it: make venv")
    arguments = api_arguments(api_server, num_concurrent=2)
    killed = []

    def run():
        evaluate("local-completions", tmp_path, 4, limit=3, model_args=arguments)

    def kill_at(number):
        if number == 7:
            os.kill(killed[0], signal.SIGKILL)

    api_server.before = kill_at
    killed.append(os.fork())
    if killed[0] == 0:
        run()
        os._exit(0)
    assert os.waitpid(killed[0], 0)[1] == signal.SIGKILL
    kept = [
        (line["value"]["prompt"], line["value"]["attempt"])
        for path in tmp_path.glob("*.jsonl")
        for line in map(json.loads, path.open())
        if "key" in line
    ]
    assert 2 <= len(kept) <= 6
    api_server.before = lambda number: None
    api_server.payloads.clear()
    run()
    asked = seeds_by_prompt(api_server.payloads)
    assert sum(map(len, asked.values())) == 12 - len(kept)
    for prompt, seeds in asked.items():
        of_prompt = {number for name, number in kept if name == digest("prompt", prompt)}
        assert {seed - 1234 for seed in seeds} == set(range(4)) - of_prompt


def test_a_key_of_the_server_is_in_no_file(api_server, tmp_path):
    pytest.importorskip("tenacity", reason="lm-eval's models behind an API need it: make venv")
    arguments = api_arguments(api_server, header={"Authorization": "Bearer secret-1"})
    first = evaluate("local-completions", tmp_path, 1, model_args=arguments)
    arguments = api_arguments(api_server, auth_token="secret-2", num_concurrent=2)
    assert evaluate("local-completions", tmp_path, 1, model_args=arguments) == first
    assert len(api_server.payloads) == 2
    (path,) = tmp_path.glob("*.jsonl")
    assert "secret" not in path.read_text()
    other = api_arguments(api_server, model="stub-2")
    evaluate("local-completions", tmp_path, 1, model_args=other)
    assert len(api_server.payloads) == 4


HOT = {"do_sample": True, "temperature": 3.0, "max_gen_toks": 8, "until": []}


@pytest.fixture
def hf(monkeypatch):
    """Return a function that evaluates plain ``--model hf``, which may fail at a pass."""

    def run(store, n_attempts, *, fails_at=None, **more):
        passes = []
        generate = HFLM._model_generate

        def counted(self, *arguments, **named):
            passes.append(1)
            if len(passes) == fails_at:
                raise RuntimeError("lost")
            return generate(self, *arguments, **named)

        monkeypatch.setattr(HFLM, "_model_generate", counted)
        named = {"pretrained": str(model_path("tiny")), "device": "cpu"}
        try:
            return evaluate(
                "hf", store, n_attempts, model_args=named, batch_size=2, gen_kwargs=HOT, **more
            ), len(passes)
        finally:
            monkeypatch.setattr(HFLM, "_model_generate", generate)

    return run


def test_hf_resumes_with_other_random_numbers(hf, tmp_path):
    whole, n_passes = hf(tmp_path / "whole", 4)
    assert n_passes == 4
    with pytest.raises(RuntimeError, match="lost"):
        hf(tmp_path / "broken", 4, fails_at=3)
    resumed, n_passes = hf(tmp_path / "broken", 4)
    assert n_passes == 2
    # What was kept is that of the unbroken run: a store changes nothing before there is something.
    same = {(i, n) for i in whole for n in range(4) if whole[i][n] == resumed[i][n]}
    assert len(same) == 4
    texts = [text for of_question in resumed.values() for text in of_question]
    assert len(set(texts)) == 8  # no number twice, though lm-eval seeds each run alike
    assert hf(tmp_path / "broken", 4) == (resumed, 0)
    longer, n_passes = hf(tmp_path / "broken", 6)
    assert n_passes == 2
    assert {i: texts[:4] for i, texts in longer.items()} == resumed
    assert len({text for of_question in longer.values() for text in of_question}) == 12


def test_other_settings_are_other_attempts(hf, tmp_path):
    first, _ = hf(tmp_path, 2)
    other, n_passes = hf(tmp_path, 2, torch_random_seed=7)
    assert n_passes == 2
    assert other != first
    assert hf(tmp_path, 2) == (first, 0)
    assert hf(tmp_path, 2, torch_random_seed=7) == (other, 0)


def test_another_seed_is_drawn_where_vllm_draws(monkeypatch, tmp_path):
    """vLLM draws in another process: each request of a resumed run has a seed of its own."""
    asked = []

    class VLLM(lm_eval.api.model.LM):
        __module__ = "lm_eval.models.vllm_causallms"

        def generate_until(self, requests):
            asked.append([request.args[1].get("seed") for request in requests])
            return [f"{len(asked)} {i}" for i in range(len(requests))]

        def loglikelihood(self, requests):
            raise NotImplementedError

        loglikelihood_rolling = loglikelihood

    first = evaluate(VLLM(), tmp_path, 2)
    second = evaluate(VLLM(), tmp_path, 4)
    assert asked[0] == [None] * 4
    assert len(set(asked[1])) == 4
    assert None not in asked[1]
    assert {i: texts[:2] for i, texts in second.items()} == first


def test_a_model_that_reports_nothing_is_kept_at_the_end(scripted_lm, tmp_path):
    def run(script, n_attempts):
        lm = scripted_lm(script)
        return evaluate(lm, tmp_path, n_attempts), lm.requests

    first, _ = run(lambda question, attempt: f"first {question} {attempt}", 2)
    second, asked = run(lambda question, attempt: f"second {question} {attempt}", 3)
    assert len(asked) == 2
    assert {i: texts[:2] for i, texts in second.items()} == first
    assert [texts[2] for texts in second.values()] == ["second 0 0", "second 1 0"]
    assert torch.initial_seed() == 1234
    found = inspect(tmp_path)
    assert (found.n_attempts, found.damaged, found.undescribed) == (6, [], {})
    ((line, *_),) = ([x for x in _report(found) if "ScriptedLM" in x],)
    assert line.endswith("ScriptedLM, a model")


def test_our_own_wrappers_say_how_they_keep_attempts(tmp_path):
    with pytest.raises(UserError, match="write --model_args store="):
        evaluate("sampled", tmp_path / "kept", model_args={"device": "cpu"})
    arguments = {"device": "cpu", "store": str(tmp_path / "own")}
    evaluate("sampled", tmp_path / "own", model_args=arguments, gen_kwargs={"max_gen_toks": 4})
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("folder", [True, " "])
def test_a_store_is_a_folder(scripted_lm, folder):
    with pytest.raises(UserError, match="give a folder"):
        KeptResponses(folder, {}).answer(scripted_lm(None), [], None)

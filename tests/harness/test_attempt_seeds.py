"""Repeats of a request to an API have seeds of their own."""

import json
import subprocess

import pytest
from kept_index import LM_EVAL
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model

from lm_eval_ext.harness.attempt_seeds import ask_with_own_seeds
from lm_eval_ext.models.shipped import model_path

pytest.importorskip("tenacity", reason="lm-eval's models behind an API need it: make venv")

SAMPLED = {"do_sample": True, "temperature": 0.7, "until": ["Q:"], "max_gen_toks": 8}
GREEDY = {"do_sample": False, "until": ["Q:"], "max_gen_toks": 8}


@pytest.fixture
def make_lm(api_server):
    def make(model="local-completions", **arguments):
        chat = "chat" in model
        defaults = {
            "base_url": f"{api_server.url}/{'chat/' if chat else ''}completions",
            "model": "stub",
            "tokenizer_backend": None,
            "tokenized_requests": False,
        }
        return get_model(model)(**{**defaults, **arguments})

    return make


def asked(prompts, n_attempts, settings=SAMPLED, ours=True):
    requests = []
    for number, prompt in enumerate(prompts):
        instance = Instance("generate_until", {}, (prompt, dict(settings)), 0, ("t", number, 1))
        if ours:
            ask_with_own_seeds(instance)
        requests += [instance] * n_attempts
    return requests


PROMPTS = ["Q: one", "Q: two, longer", "Q: three, longer still", "Q: four", "Q: five."]
TOKENIZED = {
    "tokenizer_backend": "huggingface", "tokenizer": str(model_path("tiny")),
    "tokenized_requests": True,
}  # fmt: skip


@pytest.mark.parametrize("more", [{}, TOKENIZED], ids=["text", "tokens"])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("num_concurrent", [1, 6])
def test_every_attempt_has_the_seed_of_its_number(
    api_server, make_lm, num_concurrent, batch_size, more
):
    lm = make_lm(num_concurrent=num_concurrent, batch_size=batch_size, seed=100, **more)
    texts = lm.generate_until(asked(PROMPTS, 4))
    assert [int(text.rpartition("#### ")[2]) for text in texts] == [100, 101, 102, 103] * 5
    assert len(set(texts)) == 20
    # The text of an attempt is that of its prompt, whatever was sent along with it.
    alone = make_lm(seed=102, **more).generate_until(asked(PROMPTS[2:3], 1))
    assert texts[2 * 4 + 2] == alone[0]
    assert lm._seed == 100
    if batch_size == 1 and num_concurrent > 1:
        assert api_server.most > len(PROMPTS)  # the attempts at a question are side by side


@pytest.mark.parametrize("num_concurrent", [1, 6])
@pytest.mark.parametrize("model", ["local-chat-completions", "openai-chat-completions"])
def test_chats(make_lm, monkeypatch, num_concurrent, model):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    lm = make_lm(model, num_concurrent=num_concurrent)
    chats = [lm.apply_chat_template([{"role": "user", "content": one}]) for one in PROMPTS]
    texts = lm.generate_until(asked(chats, 3))
    assert [int(text.rpartition("#### ")[2]) for text in texts] == [1234, 1235, 1236] * 5


@pytest.mark.parametrize("num_concurrent", [1, 6])
def test_a_seed_of_the_generation_settings_is_raised_too(make_lm, num_concurrent):
    lm = make_lm(num_concurrent=num_concurrent)
    texts = lm.generate_until(asked(PROMPTS, 3, {**SAMPLED, "seed": 7}))
    assert [int(text.rpartition("#### ")[2]) for text in texts] == [7, 8, 9] * 5


@pytest.mark.parametrize("num_concurrent", [1, 6])
def test_what_needs_no_seed_is_asked_as_before(api_server, make_lm, num_concurrent):
    lm = make_lm(num_concurrent=num_concurrent)
    single = lm.generate_until(asked(PROMPTS, 1))
    greedy = lm.generate_until(asked(PROMPTS[:2], 3, GREEDY))
    assert {payload["seed"] for payload in api_server.payloads} == {1234}
    assert len(set(greedy)) == 2
    both = lm.generate_until(asked(PROMPTS[:2], 3, GREEDY) + asked(PROMPTS, 2))
    assert both[:6] == greedy
    assert both[6::2] == single
    assert len(set(both[6:])) == 10


@pytest.mark.parametrize("num_concurrent", [1, 6])
def test_requests_of_other_tasks_are_asked_as_before(api_server, make_lm, num_concurrent):
    """With the plugin installed, lm-eval's own tasks send what they send without it."""
    lm = make_lm(num_concurrent=num_concurrent)
    theirs = lm.generate_until(asked(PROMPTS, 4, ours=False))
    assert {payload["seed"] for payload in api_server.payloads} == {1234}
    both = lm.generate_until(asked(PROMPTS, 4, ours=False) + asked(PROMPTS, 3))
    assert both[:20] == theirs
    assert [int(text.rpartition("#### ")[2]) for text in both[20:]] == [1234, 1235, 1236] * 5


def test_a_model_that_sends_no_seed_sends_none(make_lm, api_server, monkeypatch):
    lm = make_lm()
    create = type(lm)._create_payload

    def without(self, *arguments, **named):
        return {k: v for k, v in create(self, *arguments, **named).items() if k != "seed"}

    monkeypatch.setattr(type(lm), "_create_payload", without)
    lm.generate_until(asked(PROMPTS, 3))
    assert all("seed" not in payload for payload in api_server.payloads)


@pytest.mark.parametrize("num_concurrent", [1, 4])
def test_a_request_that_fails_is_sent_again_with_its_seed(api_server, make_lm, num_concurrent):
    api_server.n_failures = 1
    texts = make_lm(num_concurrent=num_concurrent).generate_until(asked(PROMPTS[:2], 3))
    assert [int(text.rpartition("#### ")[2]) for text in texts] == [1234, 1235, 1236] * 2
    assert len(api_server.payloads) == 7


def run_lm_eval(folder, api_server, model, model_args="", *more):
    path = "chat/completions" if "chat" in model else "completions"
    done = subprocess.run(
        [
            *LM_EVAL, "--model", model, "--model_args",
            f"model=stub,base_url={api_server.url}/{path},tokenizer_backend=none,"
            f"tokenized_requests=False{model_args}",
            "--tasks", "tiny_gsm8k_passn", "--limit", "3", "--metadata", '{"attempts": 4}',
            "--log_samples", "--output_path", str(folder / "out"), *more,
        ],
        capture_output=True, text=True, cwd=folder, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (samples,) = (folder / "out").rglob("samples_*.jsonl")
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    return [row["resps"][0] for row in sorted(rows, key=lambda row: row["doc_id"])], done.stderr


@pytest.mark.parametrize(
    ("model", "model_args", "more"),
    [
        ("local-completions", "", []),
        ("local-completions", ",num_concurrent=8", ["--batch_size", "2"]),
        ("local-chat-completions", ",num_concurrent=3", ["--apply_chat_template"]),
    ],
)
def test_through_the_command(tmp_path, api_server, model, model_args, more):
    responses, said = run_lm_eval(tmp_path, api_server, model, model_args, *more)
    for texts in responses:
        assert [int(text.rpartition("#### ")[2]) for text in texts] == [1234, 1235, 1236, 1237]
    assert "equal" not in said


def test_a_server_that_ignores_the_number_is_named_in_one_line(tmp_path, api_server):
    api_server.text_of = lambda prompt, payload: f" #### {len(str(prompt))}"
    responses, said = run_lm_eval(tmp_path, api_server, "local-completions")
    assert all(len(set(texts)) == 1 for texts in responses)
    (line,) = [line for line in said.splitlines() if "equal" in line]
    assert "all sampled attempts at 3 of 3 questions are equal" in line


def test_lm_evals_cache_holds_no_sampled_attempt(tmp_path, api_server):
    """A task with a temperature and no do_sample, twice with the same cache."""
    (tmp_path / "sums.yaml").write_text(
        """
task: sums_passn
class: !function lm_eval_ext.task.AttemptsTask
grader: gsm8k
dataset_path: json
dataset_kwargs: {data_files: {test: sums.json}}
test_split: test
output_type: generate_until
doc_to_text: "Q: {{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["Q:"], temperature: 0.7, max_gen_toks: 8}
"""
    )
    rows = [{"question": f"{i}+1?", "answer": f"#### {i + 1}"} for i in range(3)]
    (tmp_path / "sums.json").write_text("\n".join(map(json.dumps, rows)))
    runs = []
    for run in ("one", "two"):
        (tmp_path / run).mkdir()
        done = subprocess.run(
            [
                *LM_EVAL, "--model", "local-completions", "--model_args",
                f"model=stub,base_url={api_server.url}/completions,tokenizer_backend=none,"
                "tokenized_requests=False",
                "--include_path", str(tmp_path), "--tasks", "sums_passn", "--metadata",
                '{"attempts": 4}', "--use_cache", str(tmp_path / "cache"), "--log_samples",
                "--output_path", str(tmp_path / run),
            ],
            capture_output=True, text=True, cwd=tmp_path, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        (samples,) = (tmp_path / run).rglob("samples_*.jsonl")
        runs.append([json.loads(line)["resps"][0] for line in samples.open()])
    assert runs[0] == runs[1]
    assert all(len(set(texts)) == 4 for texts in runs[1])
    assert len(api_server.payloads) == 24

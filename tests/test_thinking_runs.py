"""Runs of a model that thinks: an attempt cut inside its thought has no answer, whoever asks."""

import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import datasets
import lm_eval
import pytest
from lm_eval.tasks import TaskManager

from lm_eval_ext.task import AttemptsTask

pytestmark = pytest.mark.usefixtures("quick_evaluator")

N_QUESTIONS, N_ATTEMPTS = 3, 16
SETTINGS = {"do_sample": True, "temperature": 1.0, "top_k": 0, "max_gen_toks": 8, "until": ["\n\n"]}
GUESS = "So the answer is 18. Wait, let me check."


def questions(**metadata):
    rows = [{"question": f"Q{i}", "answer": "#### 18"} for i in range(N_QUESTIONS)]
    return {"test": datasets.Dataset.from_list(rows)}


def config(**changes):
    return {
        "task": "thoughts",
        "class": AttemptsTask,
        "custom_dataset": questions,
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "grader": "gsm8k",
        "generation_kwargs": dict(SETTINGS),
        "metadata": {"version": 1.0},
        **changes,
    }


def evaluate(model, arguments, task=None, chat=True):
    """Return a task's results and its attempts, each with its full text."""
    metadata = {**arguments, "attempts": N_ATTEMPTS}
    if isinstance(model, str):
        options = {"model": model, "model_args": arguments, "batch_size": 8, "device": "cpu"}
    else:
        options, metadata = {"model": model}, {"attempts": N_ATTEMPTS}
    results = lm_eval.simple_evaluate(
        tasks=[task or config()],
        task_manager=TaskManager(include_defaults=False, metadata=metadata),
        apply_chat_template=chat,
        bootstrap_iters=0,
        random_seed=1,
        torch_random_seed=1,
        **options,
    )
    attempts = []
    for sample in results["samples"]["thoughts"]:
        for text, details in zip(sample["resps"][0], sample["attempts"], strict=True):
            attempts.append((str(text), details))
    return results["results"]["thoughts"], attempts


def answer_in(text):
    return "18" if text.endswith("is 18.") else "7" if text.endswith("is 7.") else None


def assert_judged_by_what_follows_the_thought(results, attempts):
    ended = [(text, one) for text, one in attempts if "</think>" in text]
    cut = [(text, one) for text, one in attempts if "</think>" not in text]
    assert min(len(ended), len(cut)) > len(attempts) / 5
    assert sum(GUESS in text for text, _ in cut) > 2
    for _, one in cut:
        assert (one["answer"], one["correct"]) == (None, False)
        assert one["unfinished_thought"]
        assert one["reason"] == "unfinished thought"
    for text, one in ended:
        answer = answer_in(text.rpartition("</think>")[2].strip())
        # "is 7." at the limit may have become 7.5.
        assert one["answer"] == (None if one.get("finish_reason") == "length" else answer), text
        assert not one["unfinished_thought"]
    assert results["unfinished_thought_rate,none"] == pytest.approx(len(cut) / len(attempts))
    right = [one["answer"] == "18" for _, one in attempts]
    assert results["pass@1,none"] == pytest.approx(sum(right) / len(right))


@pytest.mark.parametrize("opens", [True, False])
def test_sampled(thinking_model, opens):
    results, attempts = evaluate("sampled", {"pretrained": thinking_model(opens=opens), "seed": 1})
    if opens:
        assert_judged_by_what_follows_the_thought(results, attempts)
    else:
        thinking = [(text, one) for text, one in attempts if "<think>" in text]
        assert len(thinking) < len(attempts)
        assert all("unfinished_thought" in one for _, one in thinking)
        for text, one in attempts:
            if "<think>" not in text:
                assert (one["answer"], "unfinished_thought" in one) == ("18", False)
            elif "</think>" not in text:
                assert one["answer"] is None
    tokens = [one.get("n_thinking_tokens", 0) for _, one in attempts]
    assert results["mean_thinking_tokens,none"] == pytest.approx(sum(tokens) / len(tokens))


@pytest.mark.parametrize("tag", ["</think>", None])
@pytest.mark.parametrize("special_tags", [True, False])
def test_sampled_judges_alike_with_and_without_the_tag(thinking_model, tag, special_tags):
    plain = {"pretrained": thinking_model(), "seed": 1}
    _, expected = evaluate("sampled", plain)
    changed = {"pretrained": thinking_model(special_tags=special_tags), "seed": 1}
    if tag is not None:
        changed["think_end_token"] = tag
    _, attempts = evaluate("sampled", changed)
    for (_, one), (_, other) in zip(attempts, expected, strict=True):
        for key in ("answer", "correct", "unfinished_thought", "n_thinking_tokens", "n_tokens"):
            assert one[key] == other[key]


def test_hf_without_the_tag(thinking_model):
    results, attempts = evaluate("hf", {"pretrained": thinking_model()})
    assert_judged_by_what_follows_the_thought(results, attempts)
    assert "mean_thinking_tokens,none" not in results


def test_hf_with_the_tag_judges_as_before_and_says_so(thinking_model, caplog):
    arguments = {"pretrained": thinking_model(), "think_end_token": "</think>"}
    with caplog.at_level(logging.WARNING, "lm_eval_ext"):
        results, attempts = evaluate("hf", arguments)
    assert "unfinished_thought_rate,none" not in results
    assert {one["answer"] for text, one in attempts if GUESS in text} == {"18"}
    assert all(one["answer"] for text, one in attempts if answer_in(text))
    said = [one.getMessage() for one in caplog.records if "cannot be seen" in one.getMessage()]
    assert len(said) == 1
    assert "think_end_token" in said[0]


def test_a_model_object_tells_of_its_tag(thinking_model, caplog):
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(thinking_model(), think_end_token="</think>", batch_size=8, device="cpu")
    _, attempts = evaluate(lm, {})
    assert all(one["answer"] for text, one in attempts if answer_in(text))


@pytest.mark.parametrize("opens", [True, False])
def test_hf_where_decoding_drops_the_tags(thinking_model, caplog, opens):
    """Ended thoughts and others look alike: nobody may lose an answer for that."""
    model = thinking_model(opens=opens, special_tags=True)
    _, attempts = evaluate("hf", {"pretrained": model})
    assert any(one["answer"] for text, one in attempts if answer_in(text))
    assert sum("special token" in one.getMessage() for one in caplog.records) == 1


def test_hf_that_shows_the_tags_of_its_completions_says_nothing(thinking_model, caplog):
    evaluate("hf", {"pretrained": thinking_model(opens=False)})
    assert not any("cannot be seen" in one.getMessage() for one in caplog.records)


def test_a_plain_prompt_that_opens_a_thought(thinking_model):
    task = config(doc_to_text="{{question}}<|assistant|><think>\n", target_delimiter="")
    for model in ("sampled", "hf"):
        results, attempts = evaluate(model, {"pretrained": thinking_model()}, task, chat=False)
        assert_judged_by_what_follows_the_thought(results, attempts)


def test_a_task_without_a_grader(thinking_model):
    task = config(
        filter_list=[
            {
                "name": "number",
                "filter": [
                    {"function": "regex", "regex_pattern": r"is (\d+)\."},
                    {"function": "take_first"},
                ],
            }
        ],
        metric_list=[{"metric": "exact_match"}],
        doc_to_target="18",
        repeats=N_ATTEMPTS,
    )
    del task["grader"]
    _, attempts = evaluate("hf", {"pretrained": thinking_model()}, task)
    cut = [one for text, one in attempts if "</think>" not in text and GUESS in text]
    assert cut
    assert not any(one["correct"] or one["answer"] for one in cut)
    assert any(one["correct"] for text, one in attempts if "</think>" in text)


def test_the_end_of_the_run_says_what_helps(thinking_model, caplog):
    evaluate("sampled", {"pretrained": thinking_model(), "seed": 1})
    (said,) = [one.getMessage() for one in caplog.records if "ended at the" in one.getMessage()]
    assert "inside their thought" in said
    assert "thinking_budget" in said
    assert "\n" not in said


@pytest.fixture
def server():
    """Serve completions, half of them cut inside their thought, in the form of OpenAI's API."""
    texts = [
        f"hm {GUESS} hm",
        "hm</think>The answer is 18.",
        "hm",
        "hm\n</think>\nThe answer is 7.",
    ]
    served = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompts = body.get("prompt") or [body["messages"]]
            choices = []
            for i, _ in enumerate(prompts):
                text = texts[len(served) % len(texts)]
                served.append(text)
                choices.append({"index": i, "text": text, "message": {"content": text}})
            answer = json.dumps({"choices": choices}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *arguments):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}/v1"
    http.shutdown()
    http.server_close()


def test_local_completions(thinking_model, server):
    arguments = {
        "model": "m",
        "base_url": f"{server}/completions",
        "tokenizer": thinking_model(),
        "tokenizer_backend": "huggingface",
    }
    results, attempts = evaluate("local-completions", arguments)
    assert_judged_by_what_follows_the_thought(results, attempts)


def test_a_chat_api_cannot_tell_and_says_so(server, caplog):
    arguments = {"model": "m", "base_url": f"{server}/chat/completions"}
    _, attempts = evaluate("local-chat-completions", arguments)
    assert {one["answer"] for text, one in attempts if GUESS in text} == {"18"}
    assert {one["answer"] for text, one in attempts if text.endswith("is 7.")} == {"7"}
    assert sum("cannot be seen" in one.getMessage() for one in caplog.records) == 1

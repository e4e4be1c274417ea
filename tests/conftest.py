"""Fixtures for all tests."""

import os
import tempfile
from pathlib import Path

import pytest
from kept_index import VARIABLE, keep_index


def pytest_configure(config):
    """Let all processes of this session share lm-eval's list of tasks."""
    if VARIABLE not in os.environ:  # the session's own process, not one of its workers
        folder = tempfile.TemporaryDirectory(prefix="lm-eval-ext-tests-")
        os.environ[VARIABLE] = str(Path(folder.name) / "index.pickle")
        config.add_cleanup(lambda: (os.environ.pop(VARIABLE), folder.cleanup()))


@pytest.fixture(scope="session", autouse=True)
def index_read_once():
    """Read lm-eval's own task files once."""
    keep_index()


@pytest.fixture(scope="session")
def published_data() -> Path:
    """Return the folder of published data files, or skip the test where there is none.

    It is the one ``LM_EVAL_EXT_DATA`` names, or ``shared/data`` beside the checkout.
    """
    stated = os.environ.get("LM_EVAL_EXT_DATA")
    folder = Path(stated) if stated else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not (folder / "gsm8k_test.jsonl").is_file():
        pytest.skip("no published data files: set LM_EVAL_EXT_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def smollm2() -> str:
    """Return the folder of the real model, or skip the test where it has not been fetched."""
    from lm_eval_ext.errors import UserError
    from lm_eval_ext.models.fetching import fetched_path

    try:
        return fetched_path("smollm2")
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def scripted_lm():
    """Return a function that makes a model of lm-eval's which answers by a script.

    ``scripted_lm(script, with_records=False)``: ``script(question_number, attempt_number)`` is the
    completion, numbers counting in the order of the requests; with records, completions are
    `Generation` strings.
    """
    from lm_eval.api.model import LM

    from lm_eval_ext.models.generation import Generation, GenerationRecord

    class ScriptedLM(LM):
        tokenizer_name = "scripted"

        def __init__(self, script, with_records=False):
            super().__init__()
            self.script, self.with_records, self.requests = script, with_records, []

        def generate_until(self, requests):
            self.requests = list(requests)
            questions, attempts, responses = {}, {}, []
            for request in requests:
                question = questions.setdefault(id(request), len(questions))
                attempt = attempts[question] = attempts.get(question, -1) + 1
                text = self.script(question, attempt)
                record = GenerationRecord(
                    attempt=attempt,
                    token_ids=tuple(range(attempt + 1)),
                    finish_reason="length" if attempt == 0 else "eos",
                )
                responses.append(Generation(text, record) if self.with_records else text)
            return responses

        def apply_chat_template(self, chat_history, add_generation_prompt=True):
            turns = "".join(f"<|{turn['role']}|>{turn['content']}" for turn in chat_history)
            return turns + ("<|assistant|>" if add_generation_prompt else "")

        def loglikelihood(self, requests):
            raise NotImplementedError

        loglikelihood_rolling = loglikelihood

    return ScriptedLM


@pytest.fixture
def quick_evaluator(monkeypatch):
    """Leave out of ``simple_evaluate`` the description of machine and checkout, a second each."""
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)
    monkeypatch.setattr("lm_eval.evaluator.get_git_commit_hash", lambda: None)


@pytest.fixture
def api_server():
    """Return a server on loopback that answers as OpenAI's do, out of order.

    It honours ``seed``: a text is a function of prompt and seed, and of the prompt alone at
    temperature 0; see ``text_of``. Its ``payloads`` are what it was asked, ``n_failures`` of the
    next requests fail, and ``before`` is called with the number of each.
    """
    import json
    import threading
    import time
    import zlib
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    def text_of(prompt, payload):
        seed = payload.get("seed") if payload["temperature"] else None
        return f" {zlib.crc32(json.dumps([prompt, seed]).encode())}\n#### {seed}"

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            server = self.server
            payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server.lock:
                server.payloads.append(payload)
                server.before(len(server.payloads))
                server.under_way += 1
                server.most = max(server.most, server.under_way)
                fails = server.n_failures > 0
                server.n_failures -= fails
            # Long enough for a busy machine to send the others meanwhile.
            time.sleep(0.05 + 0.002 * (zlib.crc32(repr(payload).encode()) % 10))
            with server.lock:
                server.under_way -= 1
            if "messages" in payload:
                message = {"content": server.text_of(payload["messages"], payload)}
                choices = [{"index": 0, "message": {"role": "assistant", **message}}]
            else:
                prompts = payload["prompt"]
                several = isinstance(prompts, list) and not isinstance(prompts[0], int)
                prompts = prompts if several else [prompts]
                texts = [server.text_of(one, payload) for one in prompts]
                choices = [{"index": i, "text": text} for i, text in enumerate(texts)][::-1]
            body = json.dumps({"choices": choices}).encode()
            self.send_response(500 if fails else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_):
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.lock, made.payloads, made.under_way, made.most = threading.Lock(), [], 0, 0
    made.n_failures, made.text_of, made.before = 0, text_of, lambda number: None
    made.url = f"http://127.0.0.1:{made.server_address[1]}/v1"
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()


ARCHITECTURES = ("llama", "qwen3", "gemma3", "gpt_neox", "mistral")
# Attention the engine does not know (gpt_oss: sinks; bloom: ALiBi), and no attention at all.
UNFIT_ARCHITECTURES = ("bloom", "gpt_oss", "mamba")


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """Return the tokenizer of the shipped model."""
    from transformers import AutoTokenizer

    from lm_eval_ext.models.shipped import model_path

    return AutoTokenizer.from_pretrained(model_path("tiny"))


@pytest.fixture(scope="session")
def random_model(tiny_tokenizer):
    """Return a function that makes a small model of an architecture with random weights.

    The vocabulary is that of the shipped tokenizer; weights are larger than at initialization, so
    that the next-token distributions are neither flat nor certain.
    """
    import functools

    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 16,
        "max_position_embeddings": 512,
    }
    window = {"sliding_window": 12}
    settings = {
        "llama": ("llama", shape),
        "qwen3": ("qwen3", shape),
        "gemma3": (
            "gemma3_text",
            {
                **shape,
                **window,
                "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            },
        ),
        "gpt_neox": ("gpt_neox", {k: v for k, v in shape.items() if "head_dim" not in k}),
        "mistral": ("mistral", {**shape, **window}),
        "granite": ("granite", {**shape, "embedding_multiplier": 12.0}),
        "bloom": ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
        "gpt_oss": (
            "gpt_oss",
            {
                **shape,
                "num_hidden_layers": 2,
                "intermediate_size": 32,
                "num_local_experts": 2,
                "num_experts_per_tok": 1,
            },
        ),
        "mamba": ("mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
    }

    @functools.cache
    def make(name):
        model_type, values = settings[name]
        special = {
            f"{kind}_token_id": getattr(tiny_tokenizer, f"{kind}_token_id")
            for kind in ("bos", "eos", "pad")
        }
        config = AutoConfig.for_model(
            model_type, vocab_size=len(tiny_tokenizer), **values, **special
        )
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_config(config).eval()
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.data.mul_(3)
        return model

    return make


GUESS = " So the answer is 18. Wait, let me check."
RIGHT, WRONG = "The answer is 18.", "The answer is 7."
# What follows a token, with what probability.
THOUGHTS = {
    "\n": {" hm": 1.0},
    " hm": {" hm": 0.5, "\n\n": 0.15, GUESS: 0.2, "</think>": 0.15},
    "\n\n": {" hm": 1.0},
    GUESS: {" hm": 1.0},
    "</think>": {RIGHT: 0.6, WRONG: 0.4},
    RIGHT: {"</s>": 0.5, "\n\n": 0.5},
    WRONG: {"</s>": 0.5, "\n\n": 0.5},
    "<|assistant|>": {"<think>": 0.7, RIGHT: 0.3},
    "<think>": {" hm": 1.0},
}
THINKING_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% if OPENS %}<think>\n{% endif %}{% endif %}"
)


@pytest.fixture(scope="session")
def thinking_model(tmp_path_factory):
    """Return a function that writes a model which thinks before it answers "18." or "7.".

    Each token depends on the one before it alone, as in `THOUGHTS`. ``opens``: the chat template
    begins the thought, rather than the model, mostly; ``special_tags``: decoding drops the tags.
    """
    import functools

    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<pad>", "<s>", "</s>", "<unk>", *THOUGHTS, "<|user|>"]
    words += [f"<{i}>" for i in range(16 - len(words))]
    tags = ("<think>", "</think>")

    def tokenizer(opens, special_tags):
        plain = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>"))
        plain.decoder = decoders.Fuse()
        others = [word for word in words[4:] if word not in tags]
        plain.add_tokens([AddedToken(word, normalized=False) for word in others])
        marks = [AddedToken(tag, normalized=False, special=special_tags) for tag in tags]
        (plain.add_special_tokens if special_tags else plain.add_tokens)(marks)
        names = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), words, strict=False))
        fast = PreTrainedTokenizerFast(tokenizer_object=plain, **names)
        fast.chat_template = THINKING_TEMPLATE.replace("OPENS", str(opens))
        return fast

    @functools.cache
    def write(opens=True, special_tags=False):
        folder = tmp_path_factory.mktemp("thinking")
        tokenizer(opens, special_tags).save_pretrained(folder)
        config = LlamaConfig(
            vocab_size=len(words),
            hidden_size=len(words),
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=1,
            num_key_value_heads=1,
            head_dim=32,  # vLLM has no attention for less on CPUs
            max_position_embeddings=512,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
            tie_word_embeddings=False,
        )
        model = LlamaForCausalLM(config)
        logits = torch.full((len(words), len(words)), -30.0)  # [next token, newest token]
        for newest, following in THOUGHTS.items():
            for word, probability in following.items():
                place = words.index(word), words.index(newest)
                logits[place] = torch.tensor(probability).log()
        with torch.no_grad():
            for layer in model.model.layers:  # nothing but the embedding goes through
                layer.self_attn.o_proj.weight.zero_()
                layer.mlp.down_proj.weight.zero_()
            model.model.embed_tokens.weight.copy_(torch.eye(len(words)))
            # The norm makes 4 of a one among sixteen.
            model.lm_head.weight.copy_(logits / len(words) ** 0.5)
        model.save_pretrained(folder)
        return str(folder)

    return write


# (class, arguments that make it a wrapper, arguments that make it `sampled`). A new wrapper adds
# a line here and gets every test of the matrix, and those of the store.
WRAPPERS = {
    "sampled": ("sampled:SampledLM", {}, {}),
    "rsp": ("rsp:RSP", {"length": 4}, {"length": 0}),
    "draft-eu": ("draft_eu:DraftEU", {"drafts": "tiny"}, {"drafts": "tiny+tiny"}),
    "epicar": ("epicar:EpiCaRLM", {"calibration_temperature": 2.0}, {"self_eval": True}),
    "sink-pruned": (
        "sink_pruned:SinkPrunedLM",
        {"ratio": 0.25, "calibration": "tiny"},
        {"ratio": 0},
    ),
}


def find_wrapper(name):
    import importlib

    module, _, class_name = WRAPPERS[name][0].partition(":")
    return getattr(importlib.import_module(f"lm_eval_ext.model_wrappers.{module}"), class_name)


@pytest.fixture(scope="session")
def wrapper_class():
    """Return a function that imports a wrapper's class by name."""
    return find_wrapper


@pytest.fixture(scope="session")
def wrappers():
    """Return the classes of the wrappers by their names."""
    return {name: find_wrapper(name) for name in WRAPPERS}


def pytest_generate_tests(metafunc):
    """Run a test that asks for ``wrapper_name`` or ``neutral_wrapper`` once per wrapper."""
    if "wrapper_name" in metafunc.fixturenames:
        metafunc.parametrize("wrapper_name", WRAPPERS)
    if "neutral_wrapper" in metafunc.fixturenames:
        # All but the control itself, with their neutral arguments.
        methods = {name: neutral for name, (_, _, neutral) in WRAPPERS.items() if neutral}
        metafunc.parametrize("neutral_wrapper", methods.items(), ids=methods)


@pytest.fixture
def arguments(wrapper_name):
    """Return the wrapper's own arguments."""
    return WRAPPERS[wrapper_name][1]


@pytest.fixture
def neutral_arguments(wrapper_name):
    """Return the arguments under which the wrapper changes nothing."""
    return WRAPPERS[wrapper_name][2]

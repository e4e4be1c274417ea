"""Attempts per second of ``sampled`` against stock ``hf`` with repeats, and against vLLM.

Same model, same prompts, same sampling settings and same number of attempts; ``sampled`` and
``hf`` both through lm-eval's ``generate_until``. With a model of your own, the prompts are those of
``gsm8k_passn`` (eight shots), or with --chat of ``gsm8k_passn_chat``; GSM8K comes from the folder
that ``LM_EVAL_EXT_DATA`` names, or from the Hub. With --training-shots the shots are GSM8K's first
eight training problems as published, which are nearly twice as long. ``hf`` repeats the prompt for
every attempt, so that one batch is enough for its rate: each of --hf-rows is tried, and the best
one counts.

    python benchmarks/passn_throughput.py --quick
    python benchmarks/passn_throughput.py
    real="python benchmarks/passn_throughput.py --model PATH --threads 1"
    $real --vllm-python PYTHON
    $real --vllm-python PYTHON --attempts 64
    $real --vllm-python PYTHON --greedy --questions 32
    $real --vllm-python PYTHON --training-shots
    $real --chat --questions 4 --attempts 4
    $real --chat --questions 1 --attempts 1
    $real --chat --questions 1 --attempts 4
    $real --chat --questions 16 --attempts 1

--greedy is ``gsm8k_calib``, one greedy answer for each question; ``hf`` then answers all of them,
and the texts must be equal. Where ``hf`` can make all attempts in one batch, as with --chat, both
take turns --repeats times, and medians count. vLLM has its own dependencies: pass the Python of its
virtual environment; it runs eager and compiled, with an empty prefix cache, and the better one
counts. Its CPU build has no attention for heads as small as those of the shipped model, hence
``--model random``: random weights, about as many parameters, four heads of 32, whose attempts run
to the limit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AttentionInterface, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from lm_eval_ext.data.datasets import load_split as load_published
from lm_eval_ext.data.tiny.formats import prompt, target
from lm_eval_ext.data.tiny.problems import load_split
from lm_eval_ext.harness import requests as harness
from lm_eval_ext.model_wrappers.sampled import SampledLM
from lm_eval_ext.models.shipped import model_path

SHOTS = 8
SHIPPED = ("tiny", "random")
TASKS = {
    (False, False): "gsm8k_passn",
    (False, True): "gsm8k_calib",
    (True, False): "gsm8k_passn_chat",
    (True, True): "gsm8k_calib_chat",
}
"""By whether prompts are chats, and answers greedy."""


class Work(NamedTuple):
    """What every system does."""

    prompts: Sequence[str]
    settings: dict[str, Any]
    attempts: int

    def requests(self) -> list[Instance]:
        """Return what lm-eval asks for: one instance per question, as often as it has attempts."""
        asked = []
        for i, text in enumerate(self.prompts):
            of_question = ("bench", i, self.attempts)
            instance = Instance("generate_until", {}, (text, self.settings), 0, of_question)
            asked += [instance] * self.attempts
        return asked


class Rate(NamedTuple):
    """How fast a system was, how long its attempts were, and what they say."""

    attempts_per_second: float
    tokens: float
    texts: Sequence[str] = ()

    def show(self, name: str) -> None:
        """Print it."""
        rate = f"{self.attempts_per_second:9.3f} attempts/s"
        print(f"  {name:20} {rate} ({self.tokens:.0f} tokens each)", flush=True)


def few_shot_prompts(n_questions: int) -> list[str]:
    """Return eight-shot prompts over generated word problems."""
    # The shortest of some, for prompts of about 600 tokens.
    shots = sorted(load_split("gsm8k", "train", size=4 * SHOTS), key=lambda doc: len(str(doc)))
    shots = shots[:SHOTS]
    head = "\n\n".join(prompt("gsm8k", shot) + " " + target("gsm8k", shot) for shot in shots)
    questions = load_split("gsm8k", "test", size=n_questions)
    return [head + "\n\n" + prompt("gsm8k", question) for question in questions]


def random_model(folder: str) -> str:
    """Save a Llama with random weights and the shipped tokenizer, and return its folder."""
    tokenizer = AutoTokenizer.from_pretrained(model_path("tiny"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def training_shot_prompts(n_questions: int) -> list[str]:
    """Return GSM8K's first test questions after its first training problems."""
    training, test = (load_published("gsm8k", split) for split in ("train", "test"))
    head = "\n\n".join(
        f"Question: {row['question']}\nAnswer: {row['answer']}" for row in training.take(SHOTS)
    )
    questions = test.take(n_questions)["question"]
    return [f"{head}\n\nQuestion: {question}\nAnswer:" for question in questions]


def work_of(options: argparse.Namespace, lm: HFLM, n_attempts: int) -> Work:
    """Return the prompts and settings."""
    if options.shipped:
        settings = {"do_sample": True, "temperature": 0.7, "until": ["Question:"]}
        if options.greedy:
            settings.update(do_sample=False, temperature=0.0)
        prompts = few_shot_prompts(options.questions)
    else:
        found = harness.task_requests(
            TASKS[options.chat, options.greedy],
            lm,
            limit=options.questions,
            apply_chat_template=options.chat,
        )
        prompts, settings = [text for text, _ in found], found[0][1]
        if options.training_shots:
            prompts = training_shot_prompts(options.questions)
            settings["until"] = ["Question:"]
    return Work(prompts, {**settings, "max_gen_toks": options.max_gen_toks}, n_attempts)


def measured(lm: HFLM, requests: Sequence[Instance]) -> Rate:
    """Return the rate of a model of lm-eval's."""
    started = time.perf_counter()
    responses = lm.generate_until(list(requests), disable_tqdm=True)
    seconds = time.perf_counter() - started
    tokens = statistics.mean(len(ids) for ids in lm.tokenizer(responses)["input_ids"])
    return Rate(len(responses) / seconds, tokens, [str(text) for text in responses])


@contextmanager
def attention_in_steps(seconds: list[float]) -> Iterator[None]:
    """Add up the time of attention in steps of one token, whatever attention is registered."""
    register = AttentionInterface.register

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def attention(module: Any, query: torch.Tensor, *others: Any, **named: Any) -> Any:
            started = time.perf_counter()
            result = function(module, query, *others, **named)
            if query.shape[2] == 1:
                seconds.append(time.perf_counter() - started)
            return result

        return attention

    AttentionInterface.register = lambda name, function: register(name, timed(function))
    try:
        yield
    finally:
        AttentionInterface.register = register


def measure_ours(lm: SampledLM, work: Work) -> Rate:
    """Return the rate of ``sampled``, and print where its time went."""
    seconds: list[float] = []
    with attention_in_steps(seconds):
        rate = measured(lm, work.requests())
    rate.show("sampled")
    timing = lm.get_model_info()["lm_eval_ext"]["timing"]
    parts = [f"{part} {figures['seconds']:.2f} s" for part, figures in timing.items()]
    print(f"    {', '.join(parts)}; attention in the steps {sum(seconds):.2f} s", flush=True)
    return rate


def measure_hf(lm: HFLM, work: Work, rows: Sequence[int]) -> tuple[int, Rate]:
    """Return the best of some batch sizes, and its rate in one batch of the first attempts."""
    best: tuple[int, Rate] | None = None
    requests = work.requests()
    for size in sorted({min(size, len(requests)) for size in rows}):
        lm.batch_size_per_gpu = size
        rate = measured(lm, requests[:size])
        rate.show(f"hf, {size} rows")
        if best is None or rate.attempts_per_second > best[1].attempts_per_second:
            best = size, rate
    assert best is not None
    lm.batch_size_per_gpu = best[0]
    return best


def compare_with_hf(
    options: argparse.Namespace, ours: SampledLM, stock: HFLM, work: Work
) -> tuple[float, Rate]:
    """Return how many times as fast as ``hf`` we are, and our rate."""
    n_total = len(work.prompts) * work.attempts
    rate = measure_ours(ours, work)
    if options.shipped:
        stock.batch_size_per_gpu = options.hf_rows[-1]
        theirs = measured(stock, work.requests())
        theirs.show("hf")
        return rate.attempts_per_second / theirs.attempts_per_second, rate
    rows, theirs = measure_hf(stock, work, options.hf_rows)
    if options.greedy:
        theirs = measured(stock, work.requests())
        theirs.show(f"hf, {rows} rows, all")
        equal = sum(a == b for a, b in zip(rate.texts, theirs.texts, strict=True))
        print(f"  texts equal to hf's: {equal} of {n_total}")
    ratios = [rate.attempts_per_second / theirs.attempts_per_second]
    rates = [rate]
    for _ in range(options.repeats - 1 if rows == n_total else 0):
        theirs = measured(stock, work.requests())
        theirs.show(f"hf, {rows} rows")
        rates.append(measure_ours(ours, work))
        ratios.append(rates[-1].attempts_per_second / theirs.attempts_per_second)
    middle = statistics.median(rate.attempts_per_second for rate in rates)
    return statistics.median(ratios), Rate(middle, rate.tokens)


def measure_vllm(options: argparse.Namespace, work: Work, *, compiled: bool) -> Rate:
    """Run the same attempts in vLLM, in its own environment."""
    greedy = not work.settings["do_sample"]
    task = {
        "model": options.model,
        "prompts": work.prompts,
        "threads": options.threads,
        "compiled": compiled,
        "max_length": 2048,
        "sampling": {
            "n": work.attempts,
            "temperature": 0.0 if greedy else work.settings["temperature"],
            "top_k": 0 if greedy else 50,  # transformers' default, so that of the others
            "max_tokens": options.max_gen_toks,
            "stop": work.settings["until"],
        },
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "task.json")
        path.write_text(json.dumps(task))
        worker = Path(__file__).parent / "vllm_worker.py"
        command = [options.vllm_python, str(worker), str(path)]
        finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode:
        errors = [line for line in finished.stderr.splitlines() if "Error" in line]
        raise SystemExit(f"vLLM failed: {errors[0] if errors else finished.stderr[-500:]}")
    # vLLM writes its log to standard output too.
    (result,) = [line for line in finished.stdout.splitlines() if line.startswith('{"attempts')]
    rate = Rate(**json.loads(result))
    rate.show("vllm, compiled" if compiled else "vllm, eager")
    return rate


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="tiny", help="folder, Hub id, tiny or random")
    parser.add_argument("--quick", action="store_true", help="tiny, four questions, N=16 only")
    parser.add_argument("--threads", type=int, help="of every system; by default those of torch")
    parser.add_argument("--questions", type=int, help="4, or 16 with tiny or random")
    parser.add_argument(
        "--attempts", type=int, nargs="+", metavar="N", help="16, or 16 and 64 with tiny or random"
    )
    parser.add_argument(
        "--max-gen-toks", type=int, help="96, with --chat 160, with tiny or random 120"
    )
    parser.add_argument("--greedy", action="store_true", help="one greedy answer for each question")
    parser.add_argument("--chat", action="store_true", help="chat prompts instead of eight shots")
    parser.add_argument(
        "--training-shots", action="store_true", help="the shots are GSM8K's own, not the task's"
    )
    parser.add_argument("--repeats", type=int, default=3, help="where hf makes all in one batch")
    parser.add_argument("--rows", type=int, default=512, help="batch_size of sampled")
    parser.add_argument(
        "--hf-rows", type=int, nargs="+", help="batch sizes of hf; 8 and 16, or 64 with tiny"
    )
    parser.add_argument("--vllm-python", help="Python of an environment with vLLM")
    options = parser.parse_args()
    options.shipped = options.quick or options.model in SHIPPED
    if options.quick:
        options.model, options.questions, options.attempts = "tiny", 4, [16]
    if options.shipped and options.chat:
        parser.error("--chat needs a --model with a chat template")
    shipped = options.shipped
    defaults = {
        "questions": 16 if shipped else 4,
        "attempts": [16, 64] if shipped else [16],
        "max_gen_toks": 120 if shipped else 160 if options.chat else 96,
        "hf_rows": [64] if shipped else [8, 16],
    }
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.greedy:
        options.attempts = [1]
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    return options


def compare(options: argparse.Namespace) -> None:
    """Run every system on the same attempts."""
    torch.manual_seed(1234)
    ours = SampledLM(options.model, batch_size=options.rows)
    stock = HFLM(options.model, device=str(ours.device))
    line = ""
    for n_attempts in options.attempts:
        work = work_of(options, ours, n_attempts)
        length = statistics.mean(len(ours.tok_encode(text)) for text in work.prompts)
        n_total = len(work.prompts) * n_attempts
        print(
            f"N={n_attempts}, {len(work.prompts)} questions, {length:.0f} prompt tokens, "
            f"{options.max_gen_toks} tokens at most",
            flush=True,
        )
        few = work._replace(settings={**work.settings, "max_gen_toks": 4}, attempts=1)
        for lm in (ours, stock):  # warm
            measured(lm, few.requests()[:2])
        ratio, rate = compare_with_hf(options, ours, stock, work)
        beside = ""
        if options.vllm_python:
            theirs = max(
                measure_vllm(options, work, compiled=compiled).attempts_per_second
                for compiled in (False, True)
            )
            beside = f"; {rate.attempts_per_second / theirs:.2f} sampled / the better of vLLM's two"
        line = (
            f"{ratio:.2f} (sampled / stock hf{beside}; attempts per second at N={n_attempts}, "
            f"n = {n_total} attempts)"
        )
        print(f"  {line}", flush=True)
    print(f"ratio: {line}")


def main() -> None:
    """Measure and print one line per system, ending with the ratio."""
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        if options.model == "random":
            options.model = random_model(folder)
        elif options.model == "tiny":
            options.model = model_path("tiny")
        compare(options)


if __name__ == "__main__":
    main()

"""Attempts per second of ``sampled`` against stock ``hf`` with repeats, and against vLLM.

Same model, same eight-shot prompts, same sampling settings and same number of attempts in one
run; ``sampled`` and ``hf`` both through lm-eval's ``generate_until``. vLLM has its own
dependencies: pass the Python of its virtual environment with --vllm-python. Its CPU build has no
attention for heads as small as those of the shipped model, hence ``--model random``: random
weights, about as many parameters, four heads of 32. Such a model hardly ever ends an attempt, so
all run to the limit.

    python benchmarks/passn_throughput.py --quick
    python benchmarks/passn_throughput.py
    python benchmarks/passn_throughput.py --model random --vllm-python .venv-vllm/bin/python
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from lm_eval_ext.model_wrappers.sampled import SampledLM
from lm_eval_ext.tiny import model_path
from lm_eval_ext.tiny.formats import prompt, target
from lm_eval_ext.tiny.problems import load_split

SHOTS = 8
MAX_GEN_TOKS = 120
TEMPERATURE = 0.7


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


def attempts_per_second(lm: HFLM, prompts: list[str], n_attempts: int) -> tuple[float, float]:
    """Return attempts per second, and mean tokens per attempt."""
    settings = {
        "do_sample": True,
        "temperature": TEMPERATURE,
        "max_gen_toks": MAX_GEN_TOKS,
        "until": ["Question:"],
    }
    requests = []
    for i, text in enumerate(prompts):
        instance = Instance("generate_until", {}, (text, settings), 0, ("bench", i, n_attempts))
        requests += [instance] * n_attempts
    started = time.perf_counter()
    responses = lm.generate_until(requests, disable_tqdm=True)
    seconds = time.perf_counter() - started
    tokens = statistics.mean(len(ids) for ids in lm.tokenizer(responses)["input_ids"])
    return len(responses) / seconds, tokens


def vllm_attempts_per_second(python: str, model: str, prompts: list[str], n_attempts: int) -> float:
    """Run the same attempts in vLLM, in its own environment, and return attempts per second."""
    with tempfile.TemporaryDirectory() as folder:
        task = Path(folder, "task.json")
        task.write_text(
            json.dumps(
                {
                    "model": model,
                    "prompts": prompts,
                    "n": n_attempts,
                    "temperature": TEMPERATURE,
                    "max_tokens": MAX_GEN_TOKS,
                    "stop": ["Question:"],
                }
            )
        )
        worker = Path(__file__).parent / "vllm_worker.py"
        finished = subprocess.run([python, str(worker), str(task)], capture_output=True, text=True)
    if finished.returncode:
        errors = [line for line in finished.stderr.splitlines() if "Error" in line]
        raise SystemExit(f"vLLM failed: {errors[0] if errors else finished.stderr[-500:]}")
    # vLLM writes its log to standard output too.
    (result,) = [line for line in finished.stdout.splitlines() if line.startswith('{"attempts')]
    return float(json.loads(result)["attempts_per_second"])


def main() -> None:
    """Measure and print one line per system, ending with the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="tiny", help="folder, Hub id, tiny or random")
    parser.add_argument("--quick", action="store_true", help="four questions, N=16 only")
    parser.add_argument("--attempts", type=int, nargs="+", default=[16, 64], metavar="N")
    parser.add_argument("--rows", type=int, default=512, help="batch_size of sampled")
    parser.add_argument("--hf-rows", type=int, default=64, help="batch_size of hf")
    parser.add_argument("--vllm-python", help="Python of an environment with vLLM")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        if arguments.model == "random":
            arguments.model = random_model(folder)
        elif arguments.model == "tiny":
            arguments.model = model_path("tiny")
        compare(arguments)


def compare(arguments: argparse.Namespace) -> None:
    """Run every system on the same attempts."""
    torch.manual_seed(1234)
    ours = SampledLM(arguments.model, batch_size=arguments.rows)
    stock = HFLM(arguments.model, batch_size=arguments.hf_rows, device=str(ours.device))
    ratio = float("nan")
    n_questions = 4 if arguments.quick else 16
    for n_attempts in [16] if arguments.quick else arguments.attempts:
        prompts = few_shot_prompts(n_questions)
        length = statistics.mean(len(ours.tok_encode(text)) for text in prompts)
        print(f"N={n_attempts}, {n_questions} questions, {length:.0f} prompt tokens")
        attempts_per_second(ours, prompts[:2], n_attempts)  # warm-up
        our_rate, our_tokens = attempts_per_second(ours, prompts, n_attempts)
        print(f"  sampled {our_rate:8.1f} attempts/s ({our_tokens:.0f} tokens each)")
        hf_rate, hf_tokens = attempts_per_second(stock, prompts, n_attempts)
        print(f"  hf      {hf_rate:8.1f} attempts/s ({hf_tokens:.0f} tokens each)")
        ratio = our_rate / hf_rate
        print(f"  sampled / hf: {ratio:.1f}")
        if arguments.vllm_python:
            rate = vllm_attempts_per_second(
                arguments.vllm_python, arguments.model, prompts, n_attempts
            )
            print(f"  vllm    {rate:8.1f} attempts/s; sampled / vllm: {our_rate / rate:.2f}")
    print(
        f"ratio: {ratio:.1f} (sampled / stock hf, attempts per second at N={n_attempts}, "
        f"n = {n_questions * n_attempts} attempts)"
    )


if __name__ == "__main__":
    main()

"""One decoding step of the engine against transformers' own forward with its ``DynamicCache``.

Same model, same prompts of equal length, same rows and same tokens, the steps of both in turn in
one process. Prompts begin alike, as few-shot examples do; ``4 x 16`` is four prompts with sixteen
rows each. The logits of both are compared as well.

    python benchmarks/shared_prefix.py --quick
    python benchmarks/shared_prefix.py --model SmolLM2-135M-Instruct --threads 1
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import NamedTuple

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.cache_utils import DynamicCache

from lm_eval_ext.engine.inputs import private_inputs
from lm_eval_ext.engine.private_cache import PrivateCache
from lm_eval_ext.engine.prompt_tree import PromptTree
from lm_eval_ext.engine.random_stream import attempt_stream
from lm_eval_ext.engine.request import AttemptRequest, common_prefix_split
from lm_eval_ext.engine.shared_prefix import forward, shared_prefix_mode
from lm_eval_ext.models.shipped import model_path


class Case(NamedTuple):
    """How many prompts there are, rows to each, and tokens that all share and that each has."""

    prompts: int
    rows: int
    shared: int
    own: int

    def __str__(self) -> str:
        return f"{self.prompts} x {self.rows}, {self.shared} + {self.own} prompt tokens"


CASES = [
    Case(4, 16, 1000, 100),
    Case(4, 4, 1000, 100),
    Case(16, 1, 1000, 100),
    Case(4, 4, 0, 150),
    Case(16, 1, 0, 150),
    Case(1, 4, 1000, 100),
    Case(1, 1, 1000, 100),
    Case(1, 4, 0, 150),
    Case(1, 1, 0, 150),
]
QUICK = [Case(4, 4, 200, 40), Case(16, 1, 200, 40)]


class Timing(NamedTuple):
    """Seconds of a step and its last logits, ours and theirs."""

    ours: float
    theirs: float
    difference: float


@torch.inference_mode()
def time_steps(model: PreTrainedModel, case: Case, steps: int) -> Timing:
    """Return the median seconds of a step, ours and theirs in turn."""
    vocabulary = model.config.get_text_config().vocab_size
    draws = torch.Generator().manual_seed(0)

    def tokens(*shape: int) -> torch.Tensor:
        return torch.randint(vocabulary, shape, generator=draws)

    shared = tokens(case.shared).tolist()
    prompts = [shared + tokens(case.own).tolist() for _ in range(case.prompts)]
    inputs = tokens(steps, case.prompts * case.rows, 1).to(model.device)

    theirs = DynamicCache()
    ids = torch.tensor(prompts, device=model.device)
    model(input_ids=ids, past_key_values=theirs, use_cache=True, logits_to_keep=1)
    theirs.batch_repeat_interleave(case.rows)

    requests = []
    for prompt in prompts:
        for row in range(case.rows):
            stream = attempt_stream(0, "", row, purpose="tokens")
            requests.append(AttemptRequest(*common_prefix_split(prompt), stream))
    tree = PromptTree(requests)
    rows = [tree.placed(request) for request in requests]
    longest = max(row.private_length for row in rows)
    ours = PrivateCache([longest - row.private_length for row in rows])
    with shared_prefix_mode(model):
        tree.read(model, requests)
        prefix = tree.prefix(requests)
        forward(model, private_inputs(model, rows), prefix=prefix, cache=ours, logits_to_keep=1)

    seconds: tuple[list[float], list[float]] = ([], [])
    for ids in inputs:
        with shared_prefix_mode(model):
            started = time.perf_counter()
            our_logits = forward(model, ids, prefix=prefix, cache=ours)
            seconds[0].append(time.perf_counter() - started)
        started = time.perf_counter()
        their_logits = model(input_ids=ids, past_key_values=theirs, use_cache=True).logits
        seconds[1].append(time.perf_counter() - started)
    difference = float((our_logits - their_logits).abs().max())
    return Timing(*(statistics.median(values[2:]) for values in seconds), difference)


def main() -> None:
    """Measure and print a line per case, ending with the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="tiny", help="folder, Hub id or tiny")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch (%(default)s)")
    parser.add_argument("--steps", type=int, default=12, help="steps of each (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="two cases with short prompts")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    name = model_path("tiny") if arguments.model == "tiny" else arguments.model
    model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32).eval()
    of_16_rows = []
    for case in QUICK if arguments.quick else CASES:
        found = time_steps(model, case, arguments.steps)
        ratio = found.theirs / found.ours
        if case.prompts * case.rows == 16:
            of_16_rows.append(ratio)
        print(
            f"{case!s:36s} ours {1000 * found.ours:7.1f} ms, transformers "
            f"{1000 * found.theirs:7.1f} ms, {ratio:.2f} times; logits differ by "
            f"{found.difference:.1g}",
            flush=True,
        )
    print(
        f"ratio: {min(of_16_rows):.2f} (transformers' DynamicCache / ours, seconds of a step of "
        f"16 rows, the smallest of n = {len(of_16_rows)} cases)"
    )


if __name__ == "__main__":
    main()

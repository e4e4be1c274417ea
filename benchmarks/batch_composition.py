"""How often another composition of the batch tips a token over, and with it the rest of an attempt.

Matrix products round differently in batches of other sizes, so the same logits differ in their last
digits. A token is the one whose interval of the cumulative distribution holds its uniform number:
it tips over where that number falls between an end of the interval and where the other batch has
it. The same attempts, with the same random streams, are decoded at two batch sizes. Tokens that
differ are counted, and, as they are rare, their number is also estimated from the logits of both:
the chance that a uniform number chooses different tokens, summed over all places.

    python benchmarks/batch_composition.py --quick
    python benchmarks/batch_composition.py --model PATH --threads 1

Tokens are compared up to the first that differs, behind which a text goes its own way. The prompts
are the shipped tasks' generated word problems, as chats where the model has a template; logits are
kept, 0.2 MB for each token and batch size at a vocabulary of 50,000.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from lm_eval.api.instance import Instance

from lm_eval_ext.data.tiny.formats import prompt
from lm_eval_ext.data.tiny.problems import load_split
from lm_eval_ext.engine.kept_logits import KeepingDecoder, LogitStore
from lm_eval_ext.engine.sampling_settings import SamplingSettings
from lm_eval_ext.model_wrappers.sampled import SampledLM
from lm_eval_ext.store.sampling_group import Sampled, SamplingGroup


class WithLogits(SampledLM):
    """Keeps the logits behind every token, by attempt: in the order of the requests."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._rows_of_request: dict[Any, list[int]] = {}
        self.logits: dict[int, torch.Tensor] = {}
        super().__init__(*arguments, **named)

    def _choose_decoder(self) -> Callable[..., Any]:
        self._logits = LogitStore(2**33)  # pages are taken as they fill
        return partial(KeepingDecoder, store=self._logits, kept=self._rows_of_request)

    def _sample(self, group: SamplingGroup) -> Iterator[Sampled]:
        for done in super()._sample(group):
            rows = self._rows_of_request[group.attempts[done.index]]
            self.logits[done.index] = self._logits.take(rows)
            yield done
        self._logits.clear()


class Run(NamedTuple):
    """Tokens and logits of each attempt."""

    token_ids: list[tuple[int, ...]]
    logits: dict[int, torch.Tensor]


def prompts_for(lm: SampledLM, n_questions: int) -> list[str]:
    """Return word problems, as chats where the model has a template."""
    questions = [prompt("gsm8k", doc) for doc in load_split("gsm8k", "test", size=n_questions)]
    if not lm.tokenizer.chat_template:
        return questions
    return [lm.apply_chat_template([{"role": "user", "content": text}]) for text in questions]


def decoded(lm: WithLogits, requests: Sequence[Instance], rows: int) -> Run:
    """Decode the attempts in batches of a size."""
    lm.batch_size_per_gpu, lm.logits = rows, {}
    started = time.perf_counter()
    attempts = lm.generate_until(list(requests), disable_tqdm=True)
    run = Run([one.record.token_ids for one in attempts], lm.logits)
    n_tokens, seconds = sum(map(len, run.token_ids)), time.perf_counter() - started
    print(f"{rows} rows: {len(attempts)} attempts, {n_tokens} tokens, {seconds:.0f} s", flush=True)
    return run


def chance_to_tip(
    ours: torch.Tensor, others: torch.Tensor, settings: SamplingSettings
) -> torch.Tensor:
    """Return for each row of logits how likely a uniform number chooses different tokens."""
    processors = settings.logits_processors()
    ends = [
        torch.softmax(processors(None, rows.clone()).double(), dim=-1).cumsum(dim=-1)
        for rows in (ours, others)
    ]
    begins = [torch.nn.functional.pad(end[:, :-1], (1, 0)) for end in ends]
    both = torch.minimum(*ends) - torch.maximum(*begins)  # where both choose this token
    return 1 - both.clamp_min(0).sum(dim=-1)


class Difference(NamedTuple):
    """What two runs differ by."""

    n_tokens: int
    n_tipped: int
    n_expected: float
    largest: float

    @property
    def per_million(self) -> float:
        """Tokens expected to tip over."""
        return 1e6 * self.n_expected / self.n_tokens


def compared(ours: Run, others: Run, settings: SamplingSettings) -> Difference:
    """Compare two runs over the same attempts."""
    n_tokens = n_tipped = 0
    expected = largest = 0.0
    for i, (one, other) in enumerate(zip(ours.token_ids, others.token_ids, strict=True)):
        differ = (j for j, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
        first = next(differ, None)
        n = len(one) if first is None else first + 1
        n_tokens, n_tipped = n_tokens + n, n_tipped + (first is not None)
        a, b = ours.logits[i][:n], others.logits[i][:n]
        expected += float(chance_to_tip(a, b, settings).sum())
        chosen = torch.tensor(one[:n])[:, None]
        change = (a.log_softmax(dim=-1) - b.log_softmax(dim=-1)).gather(1, chosen)
        largest = max(largest, float(change.abs().max()))
    return Difference(n_tokens, n_tipped, expected, largest)


def main() -> None:
    """Decode, compare and print the rate."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="tiny", help="folder, Hub id or tiny")
    parser.add_argument("--quick", action="store_true", help="tiny, four questions")
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--questions", type=int, default=8, help="(%(default)s)")
    parser.add_argument("--attempts", type=int, default=8, help="N (%(default)s)")
    parser.add_argument("--max-gen-toks", type=int, default=48, help="(%(default)s)")
    parser.add_argument("--temperature", type=float, default=0.7, help="(%(default)s)")
    parser.add_argument("--top-k", type=int, default=50, help="(%(default)s)")
    parser.add_argument(
        "--rows", type=int, nargs=2, default=[4, 16], metavar="ROWS", help="batch sizes (4 16)"
    )
    options = parser.parse_args()
    if options.quick:
        options.model, options.questions = "tiny", 4
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    sampling = {"temperature": options.temperature, "top_k": options.top_k}
    asked = {"do_sample": True, "max_gen_toks": options.max_gen_toks, "until": [], **sampling}
    lm = WithLogits(options.model, seed=0)
    requests: list[Instance] = []
    for text in prompts_for(lm, options.questions):
        requests += [Instance("generate_until", {}, (text, asked), 0)] * options.attempts
    runs = [decoded(lm, requests, rows) for rows in options.rows]
    settings = SamplingSettings(options.max_gen_toks, do_sample=True, **sampling)
    found = compared(*runs, settings)
    print(f"log-probs of the chosen tokens differ by {found.largest:.1e} at most")
    few, many = options.rows
    print(
        f"ratio: {found.per_million:.2g} (tokens expected to tip over, per million, between {few} "
        f"and {many} rows; {found.n_tipped} of {found.n_tokens} did)"
    )


if __name__ == "__main__":
    main()

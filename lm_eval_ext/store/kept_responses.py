"""Keep the attempts of any model of lm-eval, and ask it only for those that are missing.

Such a model has no random stream for each attempt, so a key says no more than: attempt i at a
prompt, of this model, with these settings. What is drawn in its place on another day is another
text. A model that would repeat its random numbers is therefore seeded by what is kept.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from lm_eval_ext.errors import UserError
from lm_eval_ext.harness.attempt_seeds import ask_with_own_seeds
from lm_eval_ext.harness.attempt_settings import RESERVED
from lm_eval_ext.harness.kept_answers import Generate, model_itself, reporting
from lm_eval_ext.harness.requests import with_seed
from lm_eval_ext.models.digests import canonical, digest
from lm_eval_ext.models.fingerprint import fingerprints
from lm_eval_ext.models.generation import Generation, GenerationRecord
from lm_eval_ext.store.argument_effects import NO_EFFECT, SAMPLED_ARGUMENTS, KeyedArguments
from lm_eval_ext.store.attempt_store import AttemptStore, StoredAttempt
from lm_eval_ext.store.interruption import announce_at_failure, stopped_cleanly
from lm_eval_ext.store.key import AttemptKey, Context, make_context

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

logger = logging.getLogger(__name__)

_WITHOUT_EFFECT = {name for name, effect in SAMPLED_ARGUMENTS.items() if effect == NO_EFFECT} | {
    # Of models behind an API, and of vLLM; secrets among them.
    "auth_token", "header", "num_concurrent", "max_retries", "timeout", "verify_certificate",
    "ca_cert_path", "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size",
    "gpu_memory_utilization", "distributed_executor_backend", "max_num_seqs",
}  # fmt: skip
# What fingerprints of weights and tokenizer say better.
_FINGERPRINTED = {
    name for name, effect in SAMPLED_ARGUMENTS.items() if effect.entry in ("model", "tokenizer")
}


class KeptResponses:
    """Answers the requests of a task's models from a folder.

    Parameters
    ----------
    folder
        Folder of the store.
    arguments
        Arguments of the model, as far as the task knows them.
    """

    def __init__(self, folder: Any, arguments: Mapping[str, Any]) -> None:
        self.folder, self._given = str(folder), folder
        self._arguments = arguments
        self._store: AttemptStore | None = None

    def answer(self, lm: Any, requests: Sequence[Instance], generate: Generate) -> list[Any]:
        """Return an answer for each request; see `lm_eval_ext.harness.kept_answers`.

        Raises
        ------
        UserError
            If the folder cannot be used, or the model is one of ours without a store.
        """
        model = model_itself(lm)
        if isinstance(model, KeyedArguments):
            if getattr(model, "store", None) is None:
                raise UserError(
                    f"metadata store={self.folder}: this model keeps attempts itself, each with "
                    f"its random stream; write --model_args store={self.folder}"
                )
            return list(generate(list(requests)))
        if self._store is None:
            self._store = AttemptStore(self._given)
            announce_at_failure(self._store)
        with stopped_cleanly(self._store):
            return _Answering(self._store, self._contexts(lm, requests), requests).run(lm, generate)

    def _contexts(self, lm: Any, requests: Sequence[Instance]) -> list[Context]:
        """Return the context of each request: one for each set of generation settings."""
        about, settings = self._identity(model_itself(lm))
        made: dict[str, Context] = {}
        for request in requests:
            name = repr(request.args[1])
            if name not in made:
                made[name] = make_context({**settings, "sampling": request.args[1]}, about)
        return [made[repr(request.args[1])] for request in requests]

    def _identity(self, model: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        kind = f"{type(model).__module__}.{type(model).__qualname__}"
        prints: dict[str, str] = {}
        if isinstance(getattr(model, "model", None), torch.nn.Module):
            prints = dict(fingerprints(model.model, model.tokenizer))
        left_out = _WITHOUT_EFFECT | (_FINGERPRINTED if prints else set())
        # As a hash: an argument may be a secret.
        arguments = {k: v for k, v in self._arguments.items() if k not in left_out}
        served = {n: getattr(model, n, None) for n in ("base_url", "model") if not prints}
        settings = {
            "model_type": kind,
            **prints,
            "arguments": digest("arguments", canonical(arguments)),
            **{n: value for n, value in served.items() if isinstance(value, str)},
            "seed": int(getattr(model, "_seed", torch.initial_seed())),
        }
        pretrained = self._arguments.get("pretrained", self._arguments.get("model", "a model"))
        return {"pretrained": str(pretrained), "wrapper": kind}, settings


def kept_responses(metadata: Mapping[str, Any]) -> KeptResponses | None:
    """Return what keeps the attempts of a task whose metadata has a ``store``, or None.

    Parameters
    ----------
    metadata
        The task's metadata, the arguments of the model among them.
    """
    if metadata.get("store") is None:
        return None
    ours = {*RESERVED, "store", "metrics", "grader"}
    return KeptResponses(metadata["store"], {k: v for k, v in metadata.items() if k not in ours})


class _Answering:
    """One list of requests: the answers that are there, and those that come."""

    def __init__(
        self, store: AttemptStore, contexts: Sequence[Context], requests: Sequence[Instance]
    ) -> None:
        self._store, self._requests = store, requests
        self._contexts = {context.name: context for context in contexts}
        seen: Counter[int] = Counter()
        self._keys: list[AttemptKey] = []
        for request, context in zip(requests, contexts, strict=True):
            prompt = digest("prompt", text_of(request.args[0]))
            self._keys.append(AttemptKey(context.name, prompt, "", seen[id(request)]))
            seen[id(request)] += 1
        self._answers: dict[AttemptKey, Any] = {}
        for key in dict.fromkeys(self._keys):
            stored = store.get(key)
            if stored is not None:
                self._answers[key] = plain(stored.generation)
        self._n_kept = len(self._answers)

    def run(self, lm: Any, generate: Generate) -> list[Any]:
        # Requests with the same prompt and number are one attempt.
        firsts = {key: i for i, key in reversed([*enumerate(self._keys)])}
        missing = sorted(i for key, i in firsts.items() if key not in self._answers)
        logger.warning(  # which lm-eval's command line shows of other packages
            "store=%s: %d of %d attempts are to be generated",
            self._store.folder,
            len(missing),
            len(firsts),
        )
        if missing:
            self._store.require_writable()
        groups: dict[str, list[int]] = defaultdict(list)
        for i in missing:
            groups[self._keys[i].context].append(i)
        for places in groups.values():
            self._generate(lm, generate, places)
        self._store.sync()
        return [self._answers[key] for key in self._keys]

    def _generate(self, lm: Any, generate: Generate, places: list[int]) -> None:
        """Ask for attempts under one set of generation settings, and keep each as it comes."""
        asked = [self._requests[i] for i in places]
        expected: dict[str, list[AttemptKey]] = defaultdict(list)
        for i in places:
            expected[self._keys[i].prompt].append(self._keys[i])
        noted: dict[str, list[str]] = defaultdict(list)

        def note(context: Any, number: int | None, answer: Any) -> None:
            prompt = digest("prompt", text_of(context))
            waiting = [k for k in expected[prompt] if number in (None, k.attempt)]
            if waiting:
                expected[prompt].remove(waiting[0])
                noted[prompt].append(str(answer))
                self._keep(waiting[0], answer)

        numbers: dict[int, list[int]] = defaultdict(list)
        for i, request in zip(places, asked, strict=True):
            numbers[id(request)].append(self._keys[i].attempt)
        for request in asked:
            ask_with_own_seeds(request, numbers[id(request)])
        with reporting(lm, note), self._other_random_numbers():
            if self._n_kept and _is_vllm(model_itself(lm)):
                asked = [
                    with_seed(request, self._seed(self._keys[i]))
                    for i, request in zip(places, asked, strict=True)
                ]
            found = list(generate(asked))
        for i, answer in zip(places, found, strict=True):
            prompt = self._keys[i].prompt
            if str(answer) in noted[prompt]:
                noted[prompt].remove(str(answer))
            else:  # not reported
                self._keep(expected[prompt].pop(0), answer)

    def _keep(self, key: AttemptKey, answer: Any) -> None:
        record = GenerationRecord(attempt=key.attempt)
        kept = answer if isinstance(answer, Generation) else Generation(answer, record)
        self._store.append(self._contexts[key.context], key, StoredAttempt(kept, {}))
        self._store.sync_if_due(32)
        self._answers[key] = answer

    @contextmanager
    def _other_random_numbers(self) -> Iterator[None]:
        """Let PyTorch draw numbers that what is kept was not drawn from."""
        if not self._n_kept:  # a first run is what it would be without a store
            yield
            return
        with torch.random.fork_rng():
            torch.manual_seed(self._seed())
            yield

    def _seed(self, key: AttemptKey | None = None) -> int:
        """Return a seed, of one attempt or of all, that follows from what is kept."""
        names = sorted(one.name for one in self._answers)
        return int(digest("resumed", *names, "" if key is None else key.name)[:7], 16)


def text_of(context: Any) -> str:
    """Return the text of a rendered prompt, or the messages of a chat as JSON text."""
    return str(getattr(context, "prompt", context))


def plain(generation: Generation) -> Any:
    """Return a kept answer as the model gave it."""
    return generation if generation.record.token_ids else str(generation)


def _is_vllm(model: Any) -> bool:
    """Return whether a model draws in a process of its own, which PyTorch's seed does not reach."""
    return any(kind.__module__ == "lm_eval.models.vllm_causallms" for kind in type(model).__mro__)

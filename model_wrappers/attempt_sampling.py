"""What every wrapper does, whichever class of lm-eval loads its model."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from lm_eval_ext import __version__
from lm_eval_ext.checks import whole_number
from lm_eval_ext.data.question_text import text_hash
from lm_eval_ext.engine.attempt_texts import (
    open_thought,
    read_tag,
    read_thinking_budget,
    stopped_inside_thought,
    thought_formats,
    with_thinking_budget,
    with_thought,
)
from lm_eval_ext.engine.follow_up import FollowUp
from lm_eval_ext.engine.random_stream import attempt_stream
from lm_eval_ext.engine.request import AttemptRequest, AttemptResult, common_prefix_split
from lm_eval_ext.engine.row_budget import annotated_within_memory
from lm_eval_ext.engine.sampling_progress import SamplingProgress
from lm_eval_ext.engine.sampling_settings import SamplingSettings
from lm_eval_ext.engine.stop_strings import StopStrings
from lm_eval_ext.engine.timing import Timing
from lm_eval_ext.errors import UserError
from lm_eval_ext.harness import requests as harness
from lm_eval_ext.harness.requests import GenerationRequest
from lm_eval_ext.methods.calibrator import calibrated, read_attempt_calibrator
from lm_eval_ext.methods.self_evaluation.finishing import (
    AttemptFinisher,
    GroupFinisher,
    read_finisher_settings,
)
from lm_eval_ext.models.answer_tokens import with_answer_tokens
from lm_eval_ext.models.generation import Generation
from lm_eval_ext.models.token_texts import TokenTexts
from lm_eval_ext.store.argument_effects import SAMPLED_ARGUMENTS, KeyedArguments
from lm_eval_ext.store.attempt_store import AttemptStore
from lm_eval_ext.store.interruption import announce_at_failure, stopped_cleanly
from lm_eval_ext.store.run_contexts import run_contexts
from lm_eval_ext.store.sampling_group import (
    Sampled,
    SamplingGroup,
    fitted_prompts,
    resolved_settings,
)
from lm_eval_ext.store.stored_sampling import StoredSampling

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)
shown = harness.info_logger(__name__)


class AttemptSampling(KeyedArguments, ABC):
    r"""Sample N attempts per prompt: requests, random streams, store, annotations, self-evaluation.

    A head combines this with the class of lm-eval that loads the model and answers loglikelihood
    requests, and says four things: how the model is loaded (`load`), how attempts are decoded
    (`decode`), how many at once (`max_rows`) and what the model is (`model_fingerprints`). A method
    overrides the stage that it changes: `attempt_request`, what is read; `annotate`, what is known
    of an attempt after it.

    Parameters
    ----------
    pretrained
        Hub id or folder of a causal model, or the name of a shipped or fetched one.
    seed
        Seed of the run; by default torch's seed, which lm-eval's ``--seed`` sets.
    self_eval
        Let the model judge each attempt after it, as ``--model epicar`` does: the probability
        ``self_eval``. It judges what it saw and wrote, injected vectors included.
    self_eval_prompt, self_eval_labels
        The question and its two labels, joined by ``+`` or a list; see
        `lm_eval_ext.methods.self_evaluation.template`.
    calibration_temperature
        Temperature of that probability: a number, or a file or folder of ``lm-eval-ext train
        temperature``.
    box_completion
        Append a lead-in to attempts that end without a closed ``\boxed{}``, and decode up to 32
        tokens more; see `lm_eval_ext.methods.self_evaluation.box_completion`.
    calibrator
        File of ``lm-eval-ext train calibrator``: adds the probability ``calibrated``, from an
        attempt's other sources; prompts it was fitted on are refused. A store keeps attempts
        without it.
    thinking_budget
        Most tokens of a thought: then its closing tag is forced and the answer decoded. The limit
        of an attempt is this and ``max_gen_toks`` together; forced tokens are in no statistic.
    think_start_token
        Tag that begins a thought, where it is none of the known ones
        (`lm_eval_ext.models.thoughts.KNOWN`); ``think_end_token`` is lm-eval's own argument.
    store
        Folder that keeps every finished attempt: a run that ended early, or asks for more, reads
        it and generates only what is missing. Several processes may share it.
    **model_arguments
        What `load` takes.
    """

    argument_effects: ClassVar = SAMPLED_ARGUMENTS
    fingerprints: Mapping[str, str] = {}
    length: int = 0
    """Vectors injected into each prompt, which leaves room for them."""

    # What lm-eval's classes bring.
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    think_end_token: str | int | None
    device: torch.device | None
    rank: int
    loglikelihood: Callable[..., Any]
    loglikelihood_rolling: Callable[..., Any]

    def __init__(
        self,
        pretrained: str | PreTrainedModel = "tiny",
        *,
        seed: int | None = None,
        self_eval: bool = False,
        self_eval_prompt: str | None = None,
        self_eval_labels: str | Sequence[str] | None = None,
        calibration_temperature: float | str | Path | None = None,
        box_completion: bool = False,
        calibrator: str | Path | None = None,
        thinking_budget: int | None = None,
        think_start_token: str | int | None = None,
        store: str | Path | None = None,
        **model_arguments: Any,
    ) -> None:
        self.seed = whole_number("seed", torch.initial_seed() if seed is None else seed)
        finishing = read_finisher_settings(
            self_eval=self_eval,
            self_eval_prompt=self_eval_prompt,
            self_eval_labels=self_eval_labels,
            calibration_temperature=calibration_temperature,
            box_completion=box_completion,
        )
        self._calibrator = read_attempt_calibrator(calibrator)
        self.thinking_budget = read_thinking_budget(thinking_budget)
        self.think_start_token = read_tag(think_start_token)
        self.store = None if store is None else AttemptStore(store)
        self.load(pretrained, **model_arguments)
        self._timing = Timing()
        self._settings_used: list[dict[str, Any]] = []
        self._finisher = AttemptFinisher(finishing, self.tokenizer, max_length=int(self.max_length))
        if self.store is not None:  # before a wrapper touches the model
            self.fingerprints = self.model_fingerprints()
            announce_at_failure(self.store)

    @abstractmethod
    def load(self, pretrained: Any, **model_arguments: Any) -> None:
        """Load the model with lm-eval's class.

        Raises
        ------
        UserError
            If it cannot be loaded, or not with these arguments.
        """

    @property
    @abstractmethod
    def generation_defaults(self) -> GenerationConfig | None:
        """The model's own settings of generation, as they are now."""

    @abstractmethod
    def decode(
        self,
        requests: Sequence[AttemptRequest],
        settings: SamplingSettings,
        *,
        stop: StopStrings,
        follow_up: FollowUp | None,
    ) -> Iterator[tuple[int, AttemptResult]]:
        """Decode at least one attempt, and what `follow_up` asks to be read after each.

        Yields
        ------
        tuple
            Index of a request and its result, in the order in which attempts end.
        """

    @abstractmethod
    def max_rows(self, requests: Sequence[AttemptRequest], settings: SamplingSettings) -> int:
        """Return how many of some attempts are decoded at once."""

    @abstractmethod
    def model_fingerprints(self) -> dict[str, str]:
        """Return the fingerprints of the model and of its tokenizer, for the keys of a store."""

    def generate_until(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[Generation]:
        """Answer lm-eval's generation requests in their order; each repeat is another attempt."""
        wanted = with_thinking_budget(
            self, harness.generation_requests(self, requests), self.thinking_budget
        )
        if self._calibrator is not None:
            prompts = (text_hash(request.prompt) for request in wanted)
            self._calibrator.refuse(prompts, "this run")
        generations: list[Generation] = [Generation()] * len(requests)
        progress = self.show_progress(wanted, disable=disable_tqdm or self.rank != 0)
        self._timing = Timing(self.device, tell=progress.count)
        with self._timing.part("everything else"):
            with stopped_cleanly(self.store), progress:
                for indices in harness.by_settings(wanted):
                    group = self._group([wanted[i] for i in indices])
                    progress.expect(group.attempts)
                    for done in self._answered(group):
                        i = indices[done.index]
                        generations[i] = done.generation
                        self._finisher.count(done.tally)
                        progress.ended(wanted[i], done.generation, was_kept=done.was_kept)
            self._finisher.report()
            if self.annotates and self.store is None:
                generations = self._timed_annotate(wanted, generations)
        if not disable_tqdm and self.rank == 0:
            shown.info("%d attempts: %s", len(requests), self._timing.line())
        texts = TokenTexts(self.tokenizer)
        return calibrated(self._calibrator, with_answer_tokens(texts, generations))

    def show_progress(
        self, requests: Sequence[GenerationRequest], *, disable: bool
    ) -> SamplingProgress:
        """Begin the progress bar of a run; `lm-eval-ext plan --measure` ends the run with it."""
        return SamplingProgress(requests, disable=disable)

    @property
    def annotates(self) -> bool:
        """Whether the wrapper annotates attempts after they are sampled."""
        return type(self).annotate is not AttemptSampling.annotate

    def set_cache_hook(self, cache_hook: Any) -> None:
        """Refuse lm-eval's response cache, whose keys know nothing of a model's settings."""
        raise UserError(
            "--use_cache: its keys hold neither the settings of this model nor the number of an "
            "attempt, so other settings would be answered with these texts; leave it out, and keep "
            "attempts with --model_args store=FOLDER"
        )

    def _answered(self, group: SamplingGroup) -> Iterator[Sampled]:
        """Yield attempts as they end; with a store complete, otherwise not yet annotated."""
        if self.store is None:
            yield from self._sample(group)
            return
        stored = StoredSampling(
            self.store,
            group,
            run_contexts(self, group.settings),
            is_outdated=partial(stopped_inside_thought, self),
            sample=self._sample,
            annotate=self._timed_annotate,
        )
        for done in stored.run(self.max_rows(group.attempts, group.settings)):
            opened = group.attempts[done.index].opened
            yield replace(done, generation=with_thought(self, done.generation, opened))

    def attempt_request(
        self, prompt: str, token_ids: Sequence[int], attempt: int
    ) -> AttemptRequest:
        """Return what the model reads for an attempt; wrappers that change the input override this.

        `prompt` is rendered, and `token_ids` are its tokens after truncation.
        """
        shared, private = common_prefix_split(token_ids)
        return AttemptRequest(shared, private, self.token_stream(prompt, attempt))

    def prompt_token_ids(self, prompt: str) -> list[int]:
        """Return a prompt's tokens, BOS once, before any truncation."""
        return harness.prompt_tokens(self, prompt)

    def annotate(
        self, requests: Sequence[GenerationRequest], generations: list[Generation]
    ) -> list[Generation]:
        """Add annotations to finished attempts; wrappers that score attempts override this.

        Both lists have the same order, as the result must have.
        """
        return generations

    def _timed_annotate(
        self, requests: Sequence[GenerationRequest], generations: list[Generation]
    ) -> list[Generation]:
        n_tokens = sum(len(generation.record.token_ids) for generation in generations)
        with self._timing.part("annotation", n_tokens):
            return annotated_within_memory(self.annotate, requests, generations)

    def token_stream(self, prompt: str, attempt: int) -> Any:
        """Return the random stream that chooses an attempt's tokens."""
        return attempt_stream(self.seed, prompt, attempt, purpose="tokens")

    def _group(self, requests: list[GenerationRequest]) -> SamplingGroup:
        settings = resolved_settings(self.generation_defaults, requests[0])
        if asdict(settings) not in self._settings_used:
            self._settings_used.append(asdict(settings))
        prompts = [request.prompt for request in requests]
        room = harness.prompt_room(self, max_new_tokens=settings.max_new_tokens, length=self.length)
        tokens, truncated = fitted_prompts(prompts, self.prompt_token_ids, room=room)
        opened = {prompt: open_thought(self, prompt) for prompt in tokens}
        attempts = [
            replace(
                self.attempt_request(request.prompt, tokens[request.prompt], request.attempt),
                opened=opened[request.prompt],
            )
            for request in requests
        ]
        return SamplingGroup(requests, attempts, settings, truncated)

    def _sample(self, group: SamplingGroup) -> Iterator[Sampled]:
        """Yield attempts as they end, judged and with boxes completed where that was asked for."""
        finisher = GroupFinisher(self._finisher, self, group)
        stop = StopStrings(self.tokenizer, group.settings.stop, thought_formats(self))
        named: dict[str, Any] = {"stop": stop, "follow_up": finisher.follow_up}
        for i, result in self.decode(group.attempts, group.settings, **named):
            done = finisher.finish(i, result)
            if done is not None:
                yield done
        requests, boxes = finisher.completions(), self._finisher.boxes
        if boxes is not None and requests:
            settings, named["stop"] = boxes.settings(group.settings), boxes.stop
            for i, result in self.decode(requests, settings, **named):
                yield finisher.complete(requests[i], result)

    @property
    def eos_token_ids(self) -> list[int]:
        """Tokens that end an attempt."""
        configured = getattr(self.generation_defaults, "eos_token_id", None)
        several = configured if isinstance(configured, (list, tuple)) else [configured]
        return [int(i) for i in {*several, self.tokenizer.eos_token_id} if i is not None]

    def get_model_info(self) -> dict[str, Any]:
        """Add what was used, and where the time went, to lm-eval's results."""
        of_lm_eval = getattr(super(), "get_model_info", dict)  # not all of its classes have one
        ours = {**self.run_record(), "timing": self._timing.record()}
        return {**of_lm_eval(), "lm_eval_ext": ours}

    def run_record(self) -> dict[str, Any]:
        """Return what a reader needs to repeat the run; wrappers add their own settings."""
        return {
            "version": __version__,
            "seed": self.seed,
            "sampling": self._settings_used,
            **self._finisher.record(),
            **({} if self._calibrator is None else {"calibrator": self._calibrator.path}),
        }

    def common_settings(self) -> dict[str, Any]:
        """Return what is in the keys of every wrapper's attempts; heads add what they decide."""
        opening = self.think_start_token
        return {
            **self.fingerprints,
            "seed": self.seed,
            "max_length": int(self.max_length),
            "eos_token_ids": sorted(self.eos_token_ids),
            "think_end_token": self.think_end_token,
            **({"think_start_token": opening} if opening else {}),
            **self._finisher.key_settings(),
        }

"""``--model sampled``: N attempts from one prefill, each reproducible by itself."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from lm_eval.models.huggingface import HFLM

from lm_eval_ext import __version__
from lm_eval_ext.checks import whole_number
from lm_eval_ext.data.question_text import text_hash
from lm_eval_ext.engine.attempt_texts import (
    budget_of_thoughts,
    open_thought,
    read_tag,
    read_thinking_budget,
    response_text,
    thought_formats,
    visible_text,
    with_thinking_budget,
    with_thought,
)
from lm_eval_ext.engine.decoding import Decoder
from lm_eval_ext.engine.epilogue import Epilogue
from lm_eval_ext.engine.fallback import FallbackDecoder, fallback_for
from lm_eval_ext.engine.memory import fitting_rows
from lm_eval_ext.engine.random_stream import attempt_stream
from lm_eval_ext.engine.request import AttemptRequest, AttemptResult, common_prefix_split
from lm_eval_ext.engine.row_budget import RowBudget, annotated_within_memory
from lm_eval_ext.engine.sampling import Sampler
from lm_eval_ext.engine.sampling_progress import SamplingProgress
from lm_eval_ext.engine.sampling_settings import SamplingSettings
from lm_eval_ext.engine.stop_strings import StopStrings
from lm_eval_ext.engine.support import misfit
from lm_eval_ext.engine.timing import Timing
from lm_eval_ext.errors import UserError
from lm_eval_ext.harness import requests as harness
from lm_eval_ext.harness.requests import GenerationRequest
from lm_eval_ext.methods.calibrator import calibrated, read_attempt_calibrator
from lm_eval_ext.methods.self_evaluation.conclusion import Conclusion, Texts, read_conclusion
from lm_eval_ext.models.fingerprint import fingerprints
from lm_eval_ext.models.generation import Generation
from lm_eval_ext.models.model_loading import model_location, readable_load_errors, require_causal
from lm_eval_ext.store.argument_effects import SAMPLED_ARGUMENTS, KeyedArguments
from lm_eval_ext.store.attempt_store import AttemptStore
from lm_eval_ext.store.interruption import announce_at_failure, stopped_cleanly
from lm_eval_ext.store.run_contexts import stored_sampling
from lm_eval_ext.store.sampling_group import (
    Sampled,
    SamplingGroup,
    fitted_prompts,
    resolved_settings,
)

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)
shown = harness.info_logger(__name__)


class SampledLM(KeyedArguments, HFLM):
    r"""Sample N attempts per prompt; the base of every wrapper and the plain control.

    All attempts of a prompt share one prefill and the attention over it; rows that finish make
    room for waiting ones. The tokens of an attempt come from its own random stream, derived from
    the run's seed, the prompt and the number of the attempt, so its text does not depend on batch
    size, order, the other attempts or the number of processes (in float32 on one kind of machine;
    lower precisions round differently in batches of different shapes). Greedy decoding gives the
    text of ``--model hf``.

    Parameters
    ----------
    pretrained
        Hub id or folder of a causal model, a loaded model, or the name of a shipped or fetched one.
    seed
        Seed of the run; by default torch's seed, which lm-eval's ``--seed`` sets.
    batch_size
        Attempts decoded at once; ``"auto"`` takes as many as fit in memory.
    max_batch_size
        Upper bound for ``batch_size=auto``.
    device
        As for ``--model hf``; by default a GPU where there is one.
    self_eval
        Let the model judge each attempt after it, as ``--model epicar`` does: the probability
        ``self_eval``. It judges what it saw and wrote, injected vectors included.
    thinking_budget
        Most tokens of a thought: then its closing tag is forced and the answer decoded. The limit
        of an attempt is this and ``max_gen_toks`` together; forced tokens are in no statistic.
    think_start_token
        Tag that begins a thought, where it is none of the known ones
        (`lm_eval_ext.models.thoughts.KNOWN`); ``think_end_token`` is lm-eval's own argument.
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
    store
        Folder that keeps every finished attempt: a run that ended early, or asks for more, reads
        it and generates only what is missing. Several processes may share it.
    **hf_arguments
        Whatever ``--model hf`` takes: ``dtype``, ``peft``, ``trust_remote_code``,
        ``add_bos_token``, ``max_length``, ``think_end_token`` and so on.

    Examples
    --------
    .. code-block:: console

        lm_eval --model sampled --model_args pretrained=tiny --tasks tiny_gsm8k_passn
    """

    argument_effects: ClassVar = SAMPLED_ARGUMENTS
    store: AttemptStore | None = None
    fingerprints: Mapping[str, str] = {}
    _rows_of_batches: int | None = None  # while a store's batches must stay whole

    def __init__(
        self,
        pretrained: str | PreTrainedModel = "tiny",
        *,
        seed: int | None = None,
        batch_size: int | str = "auto",
        max_batch_size: int | None = None,
        device: str | None = None,
        self_eval: bool = False,
        self_eval_prompt: str | None = None,
        self_eval_labels: str | Sequence[str] | None = None,
        calibration_temperature: float | str | Path | None = None,
        box_completion: bool = False,
        calibrator: str | Path | None = None,
        thinking_budget: int | None = None,
        think_start_token: str | int | None = None,
        store: str | Path | None = None,
        **hf_arguments: Any,
    ) -> None:
        self.seed = whole_number("seed", torch.initial_seed() if seed is None else seed)
        if not str(batch_size).startswith("auto") and whole_number("batch_size", batch_size) < 1:
            raise UserError(f"batch_size={batch_size} must be at least 1, or auto")
        conclusion = read_conclusion(
            self_eval,
            prompt=self_eval_prompt,
            labels=self_eval_labels,
            temperature=calibration_temperature,
            box_completion=box_completion,
        )
        self._calibrator = read_attempt_calibrator(calibrator)
        self.thinking_budget = read_thinking_budget(thinking_budget)
        self.think_start_token = read_tag(think_start_token)
        self.store = None if store is None else AttemptStore(store)
        self._most_rows = max_batch_size
        if isinstance(pretrained, str):
            pretrained = model_location(pretrained)
        with readable_load_errors(pretrained, type(self).__name__):
            super().__init__(
                pretrained,
                batch_size=batch_size,
                # HFLM's own default; only loglikelihood requests use it.
                max_batch_size=64 if max_batch_size is None else max_batch_size,
                device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
                **hf_arguments,
            )
        require_causal(self)
        if hasattr(self, "accelerator"):
            # HFLM divides the questions among processes only where it sees several GPUs.
            self._rank = self.accelerator.process_index
            self._world_size = self.accelerator.num_processes
        self.shared_prefix_misfit = misfit(self.model)
        self._decoder_class = self._choose_decoder()
        self._timing = Timing()
        self._settings_used: list[dict[str, Any]] = []
        self._row_budget = RowBudget()
        self._conclusion = Conclusion(conclusion, self.tokenizer, max_length=int(self.max_length))
        if self.store is not None:  # before a wrapper touches the model
            self.fingerprints = fingerprints(self.model, self.tokenizer)
            announce_at_failure(self.store)

    def _choose_decoder(self) -> Callable[..., Decoder | FallbackDecoder]:
        """Return the engine's decoder, or the fallback, saying once what does not fit."""
        if self.shared_prefix_misfit is None:
            return Decoder
        return fallback_for(self.model, self.shared_prefix_misfit)

    def generate_until(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[Generation]:
        """Answer lm-eval's generation requests, in their order.

        Parameters
        ----------
        requests
            The requests; an attempt is asked for by repeating its request.
        """
        wanted = with_thinking_budget(
            self, harness.generation_requests(self, requests), self.thinking_budget
        )
        if self._calibrator is not None:
            prompts = (text_hash(request.prompt) for request in wanted)
            self._calibrator.refuse(prompts, "this run")
        by_settings: dict[str, list[int]] = defaultdict(list)
        for i, request in enumerate(wanted):
            by_settings[repr((*request,)[2:])].append(i)
        generations: list[Generation] = [Generation()] * len(requests)
        progress = self.show_progress(wanted, disable=disable_tqdm or self.rank != 0)
        self._timing = Timing(self.device, tell=progress.count)
        with self._timing.part("everything else"):
            with stopped_cleanly(self.store), progress:
                for places in by_settings.values():
                    group = self._group([wanted[i] for i in places])
                    progress.expect(group.attempts)
                    for done in self._answered(group):
                        i = places[done.place]
                        generations[i] = done.generation
                        self._conclusion.count(done.tally)
                        progress.ended(wanted[i], done.generation, was_kept=done.was_kept)
            self._conclusion.report()
            if self.annotates and self.store is None:
                generations = self._timed_annotate(wanted, generations)
        if not disable_tqdm and self.rank == 0:
            shown.info("%d attempts: %s", len(requests), self._timing.line())
        return calibrated(self._calibrator, generations)

    def show_progress(
        self, requests: Sequence[GenerationRequest], *, disable: bool
    ) -> SamplingProgress:
        """Begin the progress bar of a run; `lm-eval-ext plan --measure` ends the run with it."""
        return SamplingProgress(requests, disable=disable)

    @property
    def annotates(self) -> bool:
        """Whether the wrapper annotates attempts after they are sampled."""
        return type(self).annotate is not SampledLM.annotate

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
        stored = stored_sampling(
            self, self.store, group, sample=self._sample, annotate=self._timed_annotate
        )
        rows, whole = self._max_rows(group.attempts, group.settings), self.device.type == "cpu"
        if whole and self.batch_size == "auto":
            rows = self._rows_of_batches = stored.rows_as_before(rows, most=self._most_rows)
        try:
            for done in stored.run(rows, whole=whole):
                opened = group.attempts[done.place].opened
                yield done._replace(generation=with_thought(self, done.generation, opened))
        finally:
            self._rows_of_batches = None

    def attempt_request(
        self, prompt: str, token_ids: Sequence[int], attempt: int
    ) -> AttemptRequest:
        """Say what the model reads for one attempt; wrappers that change the input override this.

        Parameters
        ----------
        prompt
            The rendered prompt.
        token_ids
            Its tokens, after truncation.
        attempt
            Number of the attempt.
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

    @property
    def n_vectors(self) -> int:
        """Injected positions per attempt, for which a prompt leaves room."""
        return 0

    def _group(self, requests: list[GenerationRequest]) -> SamplingGroup:
        settings = self._resolve(requests[0])
        prompts = [request.prompt for request in requests]
        room = harness.prompt_room(
            self, max_new_tokens=settings.max_new_tokens, n_vectors=self.n_vectors
        )
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
        """Yield attempts as they end."""
        texts = Texts(
            lambda ids, opened: visible_text(self, ids, group.settings.stop, opened),
            lambda ids, opened: response_text(self, ids, group.settings.stop, opened),
        )
        stop = StopStrings(self.tokenizer, group.settings.stop, thought_formats(self))
        with harness.autocast(self):
            for done in self._conclusion.run(
                self._decode, group.attempts, group.settings, stop, texts
            ):
                generation = Generation(done.text, group.record(done.place, done.result))
                generation = with_thought(self, generation, group.attempts[done.place].opened)
                generation = self._conclusion.annotated(generation, done.result)
                yield Sampled(done.place, generation, done.tally)

    def _decode(
        self,
        requests: Sequence[AttemptRequest],
        settings: SamplingSettings,
        stop: StopStrings,
        epilogue: Epilogue | None,
    ) -> Iterator[tuple[int, AttemptResult]]:
        def decoder(rows: int) -> Decoder | FallbackDecoder:
            return self._decoder_class(
                self.model,
                sampler=Sampler(settings),
                stop=stop,
                eos_token_ids=self._eos_token_ids(),
                max_rows=rows,
                epilogue=epilogue,
                budget=budget_of_thoughts(self, settings.thinking_budget),
                timing=self._timing,
            )

        if not requests:
            return iter(())
        return self._row_budget.decode(decoder, requests, self._max_rows(requests, settings))

    def _resolve(self, request: GenerationRequest) -> SamplingSettings:
        settings = resolved_settings(self.model, request)
        if asdict(settings) not in self._settings_used:
            self._settings_used.append(asdict(settings))
        return settings

    def _eos_token_ids(self) -> list[int]:
        configured = getattr(self.model.generation_config, "eos_token_id", None)
        several = configured if isinstance(configured, (list, tuple)) else [configured]
        return [int(i) for i in {*several, self.tokenizer.eos_token_id} if i is not None]

    def _max_rows(self, attempts: Sequence[AttemptRequest], settings: SamplingSettings) -> int:
        if self._rows_of_batches is not None:  # not what fits at the moment
            return self._rows_of_batches
        if self.batch_size != "auto":
            if int(self.batch_size) == 1 and len(attempts) > 1:
                logger.warning(
                    "batch_size=1, lm_eval's default, decodes one attempt at a time: add "
                    "--batch_size auto"
                )
            return int(self.batch_size)
        rows = fitting_rows(
            self.model,
            attempts,
            max_new_tokens=settings.max_new_tokens,
            limit=self._most_rows,
            shares_beginnings=self.shared_prefix_misfit is None,
        )
        logger.info("batch_size=auto: decoding up to %d attempts at once", rows)
        return rows

    def get_model_info(self) -> dict[str, Any]:
        """Add what the engine used, and where the time went, to lm-eval's results."""
        ours = {**self.run_record(), "timing": self._timing.record()}
        return {**super().get_model_info(), "lm_eval_ext": ours}

    def run_record(self) -> dict[str, Any]:
        """Return what a reader needs to repeat the run; wrappers add their own settings."""
        return {
            "version": __version__,
            "seed": self.seed,
            "decoder": "generate" if self.shared_prefix_misfit else "shared_prefix",
            "sampling": self._settings_used,
            **self._conclusion.record(),
            **({} if self._calibrator is None else {"calibrator": self._calibrator.path}),
        }

    def common_settings(self) -> dict[str, Any]:
        """Return what is in the keys of every wrapper's attempts."""
        opening = self.think_start_token
        return {
            **self.fingerprints,
            # `generate` rounds in its own way.
            "decoder": "generate" if self.shared_prefix_misfit else "shared_prefix",
            "seed": self.seed,
            "max_length": int(self.max_length),
            "eos_token_ids": sorted(self._eos_token_ids()),
            "think_end_token": self.think_end_token,
            **({"think_start_token": opening} if opening else {}),
            "mixed_precision": str(self.mixed_precision_dtype),
            **self._conclusion.settings(),
        }

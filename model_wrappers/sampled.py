"""``--model sampled``: N attempts from one prefill, each reproducible by itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from lm_eval.models.huggingface import HFLM

from lm_eval_ext.checks import whole_number
from lm_eval_ext.engine.attempt_texts import budget_of_thoughts
from lm_eval_ext.engine.decoding import Decoder
from lm_eval_ext.engine.fallback import FallbackDecoder, fallback_for
from lm_eval_ext.engine.follow_up import FollowUp
from lm_eval_ext.engine.memory import fitting_rows
from lm_eval_ext.engine.request import AttemptRequest, AttemptResult
from lm_eval_ext.engine.row_budget import RowBudget
from lm_eval_ext.engine.sampling import Sampler
from lm_eval_ext.engine.sampling_settings import SamplingSettings
from lm_eval_ext.engine.stop_strings import StopStrings
from lm_eval_ext.engine.support import misfit
from lm_eval_ext.errors import UserError
from lm_eval_ext.harness import requests as harness
from lm_eval_ext.model_wrappers.attempt_sampling import AttemptSampling
from lm_eval_ext.models.fingerprint import fingerprints
from lm_eval_ext.models.model_loading import model_location, readable_load_errors, require_causal

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel

logger = logging.getLogger(__name__)


class SampledLM(AttemptSampling, HFLM):
    """Sample N attempts per prompt with this package's engine; the plain control of every method.

    All attempts of a prompt share one prefill and the attention over it; rows that finish make
    room for waiting ones. The tokens of an attempt come from its own random stream, derived from
    the run's seed, the prompt and the number of the attempt, so its text does not depend on batch
    size, order, the other attempts or the number of processes (in float32 on one kind of machine;
    lower precisions round differently in batches of different shapes). Greedy decoding gives the
    text of ``--model hf``.

    Takes the arguments of `AttemptSampling` and those of `load`.

    Examples
    --------
    .. code-block:: console

        lm_eval --model sampled --model_args pretrained=tiny --tasks tiny_gsm8k_passn
    """

    argument_effects: ClassVar = {}  # those of `AttemptSampling`

    def load(
        self,
        pretrained: str | PreTrainedModel,
        *,
        batch_size: int | str = "auto",
        max_batch_size: int | None = None,
        device: str | None = None,
        **hf_arguments: Any,
    ) -> None:
        """Load the model as ``--model hf`` does.

        Parameters
        ----------
        pretrained
            Hub id, folder or name, or a loaded model.
        batch_size
            Attempts decoded at once; ``"auto"`` takes as many as fit in memory.
        max_batch_size
            Upper bound for ``batch_size=auto``.
        device
            As for ``--model hf``; by default a GPU where there is one.
        **hf_arguments
            Whatever ``--model hf`` takes: ``dtype``, ``peft``, ``trust_remote_code``,
            ``add_bos_token``, ``max_length``, ``think_end_token`` and so on.
        """
        if not str(batch_size).startswith("auto") and whole_number("batch_size", batch_size) < 1:
            raise UserError(f"batch_size={batch_size} must be at least 1, or auto")
        # lm-eval itself says cuda:0 where the user says nothing, and HFLM then takes the CPU.
        if device == "cuda" and not torch.cuda.is_available():
            raise UserError(f"device={device}: torch finds no GPU here; leave it out, or give cpu")
        if isinstance(pretrained, str):
            pretrained = model_location(pretrained)
        with readable_load_errors(pretrained, type(self).__name__):
            HFLM.__init__(
                self,
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
        self._max_batch_size, self._row_budget = max_batch_size, RowBudget()

    @property
    def generation_defaults(self) -> GenerationConfig | None:
        """The model's own; a trainer may replace them after the model was wrapped."""
        return self.model.generation_config

    def _choose_decoder(self) -> Callable[..., Decoder | FallbackDecoder]:
        """Return the engine's decoder, or the fallback, saying once what does not fit."""
        if self.shared_prefix_misfit is None:
            return Decoder
        return fallback_for(self.model, self.shared_prefix_misfit)

    def model_fingerprints(self) -> dict[str, str]:
        """Return the fingerprints of the model and of its tokenizer."""
        return fingerprints(self.model, self.tokenizer)

    def decode(
        self,
        requests: Sequence[AttemptRequest],
        settings: SamplingSettings,
        *,
        stop: StopStrings,
        follow_up: FollowUp | None,
    ) -> Iterator[tuple[int, AttemptResult]]:
        """Decode attempts with the engine, with fewer rows where memory runs out."""

        def decoder(rows: int) -> Decoder | FallbackDecoder:
            return self._decoder_class(
                self.model,
                sampler=Sampler(settings),
                stop=stop,
                eos_token_ids=self.eos_token_ids,
                max_rows=rows,
                follow_up=follow_up,
                budget=budget_of_thoughts(self, settings.thinking_budget),
                timing=self._timing,
            )

        rows = self.max_rows(requests, settings)
        with harness.autocast(self):
            yield from self._row_budget.decode(decoder, requests, rows)

    def max_rows(self, requests: Sequence[AttemptRequest], settings: SamplingSettings) -> int:
        """Return ``batch_size``, or for ``auto`` how many of some attempts fit in memory."""
        if self.batch_size != "auto":
            if int(self.batch_size) == 1 and len(requests) > 1:
                logger.warning(
                    "batch_size=1, lm_eval's default, decodes one attempt at a time: add "
                    "--batch_size auto"
                )
            return int(self.batch_size)
        rows = fitting_rows(
            self.model,
            requests,
            max_new_tokens=settings.max_new_tokens,
            limit=self._max_batch_size,
            shares_beginnings=self.shared_prefix_misfit is None,
        )
        logger.info("batch_size=auto: decoding up to %d attempts at once", rows)
        return rows

    @property
    def _decoder_name(self) -> str:
        return "generate" if self.shared_prefix_misfit else "shared_prefix"

    def run_record(self) -> dict[str, Any]:
        """Add how attempts were decoded to the record of the run."""
        return {**super().run_record(), "decoder": self._decoder_name}

    def common_settings(self) -> dict[str, Any]:
        """Add how attempts are decoded, since `generate` rounds in its own way."""
        return {
            **super().common_settings(),
            "decoder": self._decoder_name,
            "mixed_precision": str(self.mixed_precision_dtype),
        }

"""``--model draft-eu``: token-level epistemic uncertainty from the disagreement of small drafts."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
import torch
from tqdm import tqdm

from lm_eval_ext.checks import check_choice
from lm_eval_ext.data.question_text import text_hash
from lm_eval_ext.engine.decoding import Decoder
from lm_eval_ext.engine.fallback import FallbackDecoder
from lm_eval_ext.engine.kept_logits import KeepingDecoder, LogitStore
from lm_eval_ext.engine.memory import free_bytes
from lm_eval_ext.engine.packed import ForcedAttempt
from lm_eval_ext.engine.request import AttemptRequest
from lm_eval_ext.errors import UserError
from lm_eval_ext.harness.requests import GenerationRequest
from lm_eval_ext.methods.epistemic.drafts import load_drafts
from lm_eval_ext.methods.epistemic.fitted import FITTED, read_eu_fit
from lm_eval_ext.methods.epistemic.forced_model import ForcedModel
from lm_eval_ext.methods.epistemic.reference import AttemptKey, NoiseScope, TokurReference
from lm_eval_ext.methods.epistemic.response_scoring import FinishedAttempt, ResponseScorer, Scores
from lm_eval_ext.methods.epistemic.weight_perturbation import WeightPerturbation
from lm_eval_ext.model_wrappers.attempt_sampling import AttemptSampling
from lm_eval_ext.model_wrappers.sampled import SampledLM
from lm_eval_ext.models.fingerprint import model_fingerprint
from lm_eval_ext.models.generation import Generation
from lm_eval_ext.models.token_texts import TOKEN_TEXTS, TokenTexts
from lm_eval_ext.store.argument_effects import NO_EFFECT, Effect
from lm_eval_ext.store.sampling_group import Sampled, SamplingGroup

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

Aggregate = Literal["sum", "mean", "max"]

_AGGREGATES: dict[str, Callable[..., Any]] = {"sum": np.sum, "mean": np.mean, "max": np.max}
# Uncertainty of the sequence by the name of the score it is aggregated from.
_UNCERTAINTIES = {
    "jsd": "draft_jsd",
    "eu": "draft_eu",
    "kl": "draft_kl",
    "reference_eu": "tokur_eu",
    "reference_tu": "tokur_tu",
    "reference_au": "tokur_au",
}
# Share of the free memory that the logits of decoding may fill until they are scored.
_KEPT_SHARE = 0.25


class DraftUncertainty(AttemptSampling):
    """Estimate the epistemic uncertainty of every response token from small draft models.

    Based on "Efficient Epistemic Uncertainty Estimation for LLMs via Knowledge Distillation",
    arXiv:2602.01956. After generation each of K drafts reads prompt and response once; at every
    token the uncertainty is the drafts' Jensen-Shannon divergence plus the KL divergence from
    their mixture to the target. Texts are those of `SampledLM`.

    Differs from the paper, whose text leaves these open: temperature 1, the full vocabulary, nats,
    the plain target in the KL term, and the sum over tokens as the score of a response. The
    reference is that of TokUR, arXiv:2505.11737; see `lm_eval_ext.methods.epistemic.reference` for
    what is ours in it.

    Every generation carries per token ``jsd``, ``kl``, ``eu`` and ``single_draft`` (the KL
    divergence of the first draft to the target), and with a reference ``reference_eu``,
    ``reference_tu``, ``reference_au`` and ``target_entropy``; per response the uncertainties
    ``draft_eu``, ``draft_jsd``, ``draft_kl``, ``tokur_eu``, ``tokur_tu`` and ``tokur_au``, with
    their sum, mean and maximum over tokens in ``extra``, where ``token_texts`` is too, the text of
    each token. All tokens of the response count, the end-of-sequence token and those that complete
    the stop string among them; there are none after these.

    Parameters
    ----------
    drafts
        K drafts of the target's tokenizer, K from 1 up: Hub ids or folders joined by ``+``, a
        folder that ``lm-eval-ext train drafts`` wrote, the name of a shipped one, or a list.
    draft_device, draft_dtype
        Where and in what precision drafts run; those of the target by default.
    aggregate
        ``"sum"``, ``"mean"`` or ``"max"`` over tokens: the score of a response.
    reference
        ``"tokur"`` adds the uncertainty under perturbed weights of the target; ``"none"``.
    reference_samples
        M, the clean target included.
    rank, sigma, modules
        Of the perturbation, see `WeightPerturbation`; module names joined by ``+``.
    noise_scope
        ``"sequence"``, one set of weights per sample, or ``"token"``, fresh noise per token.
    corrected
        Multiply the reference's epistemic uncertainty by M/(M-1).
    eu_fit
        File of ``lm-eval-ext train eu-fit``: adds ``eu_fitted`` per token and ``draft_eu_fitted``,
        the estimate on the scale of the reference. A store keeps attempts without it.
    **sampled_arguments
        As for `SampledLM`; ``seed`` also seeds the reference.

    Raises
    ------
    UserError
        For a value outside the above, or a draft that does not fit the target.
    """

    argument_effects: ClassVar = {
        **dict.fromkeys(
            (
                "drafts", "draft_dtype", "aggregate", "reference", "reference_samples", "rank",
                "sigma", "modules", "noise_scope", "corrected",
            ),
            Effect("annotation", "draft_eu"),
        ),
        "draft_device": NO_EFFECT,
        "eu_fit": NO_EFFECT,  # added to what a store gives back
    }  # fmt: skip

    def __init__(
        self,
        pretrained: Any = "tiny",
        *,
        drafts: str | Sequence[str | PreTrainedModel] = "tiny-drafts",
        draft_device: str | None = None,
        draft_dtype: str | torch.dtype | None = None,
        aggregate: Aggregate = "sum",
        reference: Literal["none", "tokur"] | None = "none",
        reference_samples: int = 10,
        rank: int = 8,
        sigma: float = 0.1,
        modules: str | Sequence[str] = "q_proj+v_proj",
        noise_scope: NoiseScope = "sequence",
        corrected: bool = False,
        eu_fit: str | Path | None = None,
        **sampled_arguments: Any,
    ) -> None:
        check_choice("aggregate", aggregate, get_args(Aggregate))
        if reference not in (None, "none", "tokur"):
            raise UserError(f"reference={reference!r} is not one of none, tokur")
        if sampled_arguments.get("box_completion"):
            raise UserError(
                "box_completion=true: --model draft-eu scores the tokens of an attempt after its "
                "prompt, without a lead-in between them; use --model epicar or sampled"
            )
        dtype = _torch_dtype(draft_dtype)
        self._fit = read_eu_fit(eu_fit)
        self._memory_reported = False
        super().__init__(pretrained, **sampled_arguments)
        self.aggregate = aggregate
        model = self.scoring_model()
        self.drafts = load_drafts(
            drafts,
            target=model,
            tokenizer=self.tokenizer,
            device=draft_device or model.device,
            dtype=dtype or model.dtype,
            trust_remote_code=bool(sampled_arguments.get("trust_remote_code", False)),
        )
        target = ForcedModel(model)
        self.reference: TokurReference | None = None
        self._reference_settings: dict[str, Any] | None = None
        if reference == "tokur":
            names = modules.split("+") if isinstance(modules, str) else list(modules)
            perturbation = WeightPerturbation(model, rank=rank, sigma=sigma, modules=names)
            self.reference = TokurReference(
                target,
                perturbation,
                samples=reference_samples,
                noise_scope=noise_scope,
                corrected=corrected,
                seed=self.seed,
            )
            self._reference_settings = {
                "posterior": "tokur",
                "samples": self.reference.samples,
                "rank": perturbation.rank,
                "sigma": perturbation.sigma,
                "modules": names,
                "noise_scope": noise_scope,
                "corrected": corrected,
            }
        self._token_texts = TokenTexts(self.tokenizer)
        self._scorer = ResponseScorer(target, self.drafts, self.reference)

    @abstractmethod
    def scoring_model(self) -> PreTrainedModel:
        """Return the target as a model of transformers, called once."""

    def _sample(self, group: SamplingGroup) -> Iterator[Sampled]:
        if not self._memory_reported:
            self._report_memory(len(group.requests), group.settings.max_new_tokens)
            self._memory_reported = True
        yield from super()._sample(group)

    def _report_memory(self, n_requests: int, max_new_tokens: int) -> None:
        parameters, buffers = self._scorer.memory(max_new_tokens)
        # A warning is what lm-eval's command line shows of other packages.
        logger.warning(
            "draft-eu: %d drafts with %.3g GB of parameters; logits of a pass take up to %.3g GB%s",
            len(self.drafts.names),
            parameters,
            buffers,
            self._further_memory(n_requests * max_new_tokens),
        )

    def generate_until(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[Generation]:
        """Answer lm-eval's generation requests, with the fitted estimate where there is a fit."""
        if self._fit is not None:
            self._fit.refuse(text_hash(str(request.args[0])) for request in requests)
        generations = super().generate_until(requests, disable_tqdm)
        return [self._with_fitted(generation) for generation in generations]

    def _with_fitted(self, generation: Generation) -> Generation:
        if self._fit is None:
            return generation
        fitted = self._fit.estimate(generation.record.token_scores)
        of_tokens = fitted[generation.record.chosen]
        summary = {how: float(f(of_tokens)) for how, f in _AGGREGATES.items()}
        name = "draft_eu_fitted"
        return generation.annotated(
            uncertainties={name: summary[self.aggregate]},
            token_scores={FITTED: fitted},
            extra={name: summary},
        )

    def _further_memory(self, n_tokens: int) -> str:
        """Return the end of the line about memory, for a number of response tokens."""
        return ""

    def _kept_logits(self, generation: Generation) -> Callable[[], torch.Tensor] | None:
        """Return what takes the target's logits along an attempt, where they were kept."""
        return None

    def annotate(
        self, requests: Sequence[GenerationRequest], generations: list[Generation]
    ) -> list[Generation]:
        """Score finished attempts."""
        prompts = {request.prompt for request in requests}
        token_ids = {prompt: tuple(self.prompt_token_ids(prompt)) for prompt in prompts}
        attempts = [
            self._finished(request, generation, token_ids[request.prompt])
            for request, generation in zip(requests, generations, strict=True)
        ]
        annotated = list(generations)
        with tqdm(
            total=len(attempts),
            disable=self.rank != 0 or len(attempts) < 2,
            desc="Scoring attempts",
            unit="attempt",
        ) as progress:
            for place, scores in self._scorer.score(attempts):
                annotated[place] = self._annotated(generations[place], scores)
                progress.update()
        return annotated

    def _finished(
        self, request: GenerationRequest, generation: Generation, prompt_ids: tuple[int, ...]
    ) -> FinishedAttempt:
        record = generation.record
        return FinishedAttempt(
            # An over-long prompt was cut from the left.
            ForcedAttempt(prompt_ids[-record.n_prompt_tokens :], record.token_ids),
            AttemptKey(request.prompt, request.attempt),
            self._kept_logits(generation),
        )

    def _annotated(self, generation: Generation, scores: Scores) -> Generation:
        chosen = generation.record.chosen
        summaries = {
            name: {how: float(f(scores[source][chosen])) for how, f in _AGGREGATES.items()}
            for source, name in _UNCERTAINTIES.items()
            if source in scores
        }
        statistics = generation.record.statistics
        if self.reference is not None and statistics is not None:
            # The yardstick beside the reference: the entropy the target has without any drafts.
            scores = {**scores, "target_entropy": statistics.entropy}
        return generation.annotated(
            uncertainties={name: values[self.aggregate] for name, values in summaries.items()},
            token_scores=scores,
            extra={
                **summaries,
                TOKEN_TEXTS: self._token_texts.of(
                    [i for i, kept in zip(generation.record.token_ids, chosen, strict=True) if kept]
                ),
            },
        )

    @cached_property
    def _draft_fingerprints(self) -> list[str]:
        return [model_fingerprint(model) for model in self.drafts.models]

    def annotation_settings(self) -> dict[str, Any]:
        """Return the drafts, by what they compute, and the settings of the scores."""
        known = self._draft_fingerprints
        return {
            "draft_eu": {
                "drafts": [None if i is None else known[i] for i in self.drafts.model_of_draft],
                "aggregate": self.aggregate,
                "reference": self._reference_settings,
            },
        }

    def run_record(self) -> dict[str, Any]:
        """Add the drafts and the reference to the record of the run."""
        return {
            **super().run_record(),
            "draft_eu": {
                "drafts": list(self.drafts.names),
                "n_drafts": len(self.drafts.names),
                "copies_of_target": self.drafts.model_of_draft.count(None),
                "aggregate": self.aggregate,
                "reference": self._reference_settings,
            },
        }


class DraftEU(DraftUncertainty, SampledLM):
    """Small drafts beside a model of transformers.

    Examples
    --------
    .. code-block:: console

        lm_eval --model draft-eu --model_args pretrained=tiny,drafts=tiny-drafts \
            --tasks tiny_gsm8k_passn
    """

    argument_effects: ClassVar = {}  # those of its bases

    def __init__(self, pretrained: Any = "tiny", **arguments: Any) -> None:
        self._store = LogitStore(int(_KEPT_SHARE * free_bytes(torch.device("cpu"))))
        self._kept_by_request: dict[AttemptRequest, list[int]] = {}
        self._kept_by_generation: dict[int, list[int]] = {}
        super().__init__(pretrained, **arguments)

    def scoring_model(self) -> PreTrainedModel:
        """Return the model itself."""
        return self.model

    def _choose_decoder(self) -> Callable[..., Decoder | FallbackDecoder]:
        """Keep logits where copying them is cheaper than another pass: beside a CPU."""
        chosen = super()._choose_decoder()
        if chosen is not Decoder or self.model.device.type != "cpu":
            return chosen
        return partial(KeepingDecoder, store=self._store, kept=self._kept_by_request)

    def _sample(self, group: SamplingGroup) -> Iterator[Sampled]:
        for sampled in super()._sample(group):
            rows = self._kept_by_request.pop(group.attempts[sampled.index], None)
            if rows is not None:
                self._kept_by_generation[id(sampled.generation)] = rows
            yield sampled

    def _further_memory(self, n_tokens: int) -> str:
        if self.model.device.type != "cpu":
            return ""
        kept = min(self._store.max_bytes, 4 * self._scorer.width * n_tokens)
        return f", logits kept from decoding up to {kept / 1e9:.3g} GB"

    def _kept_logits(self, generation: Generation) -> Callable[[], torch.Tensor] | None:
        rows = self._kept_by_generation.get(id(generation))
        return None if rows is None else partial(self._store.take, rows)

    def annotate(
        self, requests: Sequence[GenerationRequest], generations: list[Generation]
    ) -> list[Generation]:
        """Score finished attempts, and let go of the logits that were kept for it."""
        annotated = super().annotate(requests, generations)
        self._kept_by_generation.clear()
        self._store.clear()
        return annotated


def _torch_dtype(value: str | torch.dtype | None) -> torch.dtype | None:
    if value is None or isinstance(value, torch.dtype):
        return value
    dtype = getattr(torch, str(value), None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise UserError(
            f"draft_dtype={value!r} is not a floating-point type: use float32, bfloat16 or float16"
        )
    return dtype

"""``--model sink-pruned``: take out the heads that give their attention to the first token."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from lm_eval_ext.engine.support import misfit
from lm_eval_ext.errors import UserError
from lm_eval_ext.methods.sinks.block_layout import find_layout
from lm_eval_ext.methods.sinks.calibration_data import calibration_set, default_source
from lm_eval_ext.methods.sinks.choices import Allocation, Unit
from lm_eval_ext.methods.sinks.masks import pruned, zero_heads
from lm_eval_ext.methods.sinks.plan import PruningPlan, PruningSettings, make_plan
from lm_eval_ext.methods.sinks.scores_file import read_scores
from lm_eval_ext.methods.sinks.statistics import CalibrationStatistics, collect_statistics
from lm_eval_ext.methods.sinks.structural import shrink
from lm_eval_ext.model_wrappers.sampled import SampledLM
from lm_eval_ext.models.digests import digest
from lm_eval_ext.store.argument_effects import Effect

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Form = Literal["zeroed", "structural"]

logger = logging.getLogger(__name__)


class SinkPrunedLM(SampledLM):
    r"""Evaluate a model without its attention sinks: heads that attend to the first token.

    Based on "Garbage Attention in Large Language Models: BOS Sink Heads and Sink-aware Pruning",
    arXiv:2601.06787. Every head is scored by its mean attention to the first token on calibration
    data; the heads with the highest scores, over all layers but the first and the last, are masked
    in one shot and without training. Generation and loglikelihood requests both see the pruned
    model. Masking saves no time; ``lm-eval-ext prune export`` writes a smaller model.

    Differs from the paper: calibration is on text and not on the prompts of an evaluated task
    (``calibration=mmlu`` is the paper's), and other units and criteria can be chosen.

    Parameters
    ----------
    ratio
        Share of the model's units to remove, in [0, 1); 0 is `SampledLM`, token for token.
    unit
        ``"head"``, a query head; ``"kv_group"``, the query heads that share a key/value head;
        ``"attention"``, all heads of a layer; ``"block"``, attention and MLP.
    criterion
        What goes first. Heads: ``"sink"``, ``"random"``, ``"magnitude"``, ``"wanda"``,
        ``"wanda_per_layer"``, ``"ahon"``, ``"ahon_ln"``, ``"top_layers"``. Blocks: ``"sink"``,
        ``"random"``, ``"shortgpt"``, ``"top_down"``, ``"bottom_up"``.
    calibration
        Source of the calibration data, see `lm_eval_ext.methods.sinks.calibration_data`: a text or
        JSONL file, lm-eval tasks, or a data set of the Hub; by default WikiText-2, and for a
        shipped model its own validation problems.
    calibration_size
        Most calibration sequences.
    skip_first
        Blocks after the first that are not touched.
    allocation
        ``"global"``, one ranking over all layers, or ``"even"``, equally many units in every layer,
        as a smaller model saved by ``lm-eval-ext prune export`` needs.
    scores
        File of ``lm-eval-ext prune score`` to take the scores from.
    pruning_seed
        Seed of the random criterion.
    mean_compensation
        Let removed heads give out their mean output on the calibration data instead of zeros; not
        in the paper.
    **sampled_arguments
        As for `SampledLM`.

    Raises
    ------
    UserError
        For a value outside the above, a model whose heads cannot be found, or a ratio that would
        reach into blocks that must not be touched.

    Examples
    --------
    .. code-block:: console

        lm_eval --model sink-pruned --model_args pretrained=tiny,ratio=0.25 \
                --tasks tiny_gsm8k_calib,tiny_gsm8k_passn
    """

    argument_effects: ClassVar = dict.fromkeys(
        (
            "ratio", "unit", "criterion", "calibration", "calibration_size", "skip_first",
            "allocation", "scores", "pruning_seed", "mean_compensation",
        ),
        Effect("text", "pruning"),
    )  # fmt: skip

    def __init__(
        self,
        pretrained: Any = "tiny",
        *,
        ratio: float = 0.125,
        unit: Unit = "head",
        criterion: str = "sink",
        calibration: str | None = None,
        calibration_size: int = 128,
        skip_first: int = 0,
        allocation: Allocation = "global",
        scores: str | Path | None = None,
        pruning_seed: int = 0,
        mean_compensation: bool = False,
        **sampled_arguments: Any,
    ) -> None:
        settings = PruningSettings(
            ratio=ratio,
            unit=unit,
            criterion=criterion,
            skip_first=skip_first,
            allocation=allocation,
            seed=pruning_seed,
            mean_compensation=mean_compensation,
        )
        if scores is not None and criterion == "random":
            raise UserError(
                "scores= with criterion=random: the file holds one draw, whatever pruning_seed "
                "says; leave scores out"
            )
        known = None if scores is None else read_scores(Path(scores), criterion, unit)
        super().__init__(pretrained, **sampled_arguments)
        self._is_pruned = False
        self._calibration: dict[str, Any] | None = None
        self._scores_file = None if scores is None else str(scores)
        statistics = CalibrationStatistics()
        needs = settings.needs(scored=known is not None)
        if needs:
            source = calibration or default_source(pretrained)
            data = calibration_set(self, source, size=calibration_size)
            statistics = collect_statistics(self.model, data.prompts, needs)
            self._calibration = data.record
        if known is not None:
            self._calibration = self._calibration or known[1]
        layout = find_layout(self.model) if settings.ratio > 0 else None
        self._set_plan(
            make_plan(layout, settings, statistics, scores=None if known is None else known[0])
        )
        logger.info("removed: %s", self.plan.removal.described())

    def _set_plan(self, plan: PruningPlan) -> None:
        self.plan = plan
        if plan.removal.blocks:
            # Masked heads change no shape; a model of fewer blocks is tried again.
            with self.pruning():
                self.shared_prefix_misfit = misfit(self.model)
                self._decoder_class = self._choose_decoder()

    def with_plan(self, plan: PruningPlan, calibration: dict[str, Any] | None) -> SinkPrunedLM:
        """Return the same model, loaded once, pruned otherwise.

        Parameters
        ----------
        plan
            What to remove.
        calibration
            Record of the calibration data behind the plan.
        """
        other = copy.copy(self)
        other._calibration = calibration
        other._scores_file = None
        other._settings_used = []
        other._set_plan(plan)
        return other

    @contextmanager
    def pruning(self) -> Iterator[None]:
        """Return a context in which `model` is pruned; outside of it the model is whole."""
        if self._is_pruned:  # a subclass that scores its attempts asks from inside
            yield
            return
        self._is_pruned = True
        try:
            with pruned(self.model, self.plan.removal, replacement=self.plan.replacement):
                yield
        finally:
            self._is_pruned = False

    def export(self, folder: Path, form: Form) -> PreTrainedModel:
        """Write the pruned model and its tokenizer as a checkpoint; the model is changed for good.

        Parameters
        ----------
        folder
            An empty folder.
        form
            ``"zeroed"``, the weights behind removed heads are zero; ``"structural"``, what was
            removed is gone.

        Raises
        ------
        UserError
            If no checkpoint of that form computes what the pruned model computes.
        """
        if self.plan.replacement is not None:
            raise UserError(
                "mean_compensation=true cannot be exported: the architectures have no place for it"
            )
        if form == "structural":
            model = shrink(self.model, self.plan.removal)
        else:
            zero_heads(self.model, self.plan.removal)
            model = self.model
        model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        return model

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
        """Answer generation requests with the pruned model."""
        with self.pruning():
            return super().generate_until(requests, disable_tqdm)

    def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
        """Answer loglikelihood requests with the pruned model."""
        with self.pruning():
            return super().loglikelihood(requests, disable_tqdm)

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:
        """Answer rolling loglikelihood requests with the pruned model."""
        with self.pruning():
            return super().loglikelihood_rolling(requests, disable_tqdm)

    def key_settings(self) -> dict[str, Any]:
        """Return the mask: what is removed, whatever chose it, and what takes its place."""
        removal, replacement = self.plan.removal, self.plan.replacement
        if not removal.heads and not removal.blocks:
            return {}
        return {
            "pruning": {
                "heads": [list(place) for place in removal.heads],
                "blocks": list(removal.blocks),
                "replacement": None if replacement is None else digest(replacement.tobytes()),
            },
        }

    def run_record(self) -> dict[str, Any]:
        """Add what was removed, and why, to the record of the run."""
        calibration = self._calibration or {}
        return {
            **super().run_record(),
            "pruning": {
                **self.plan.record(),
                "scores_file": self._scores_file,
                "calibration": self._calibration,
                "calibration_sha256": calibration.get("sha256"),
                "token_0_id": calibration.get("token_0_id"),
            },
        }
